"""Hits counted by ranges of users. What is common to all is made once, from the window of all users: the orders of popularity
and the neighbours of items. Who took what in the window goes through memory some users at a time and lies in files.

Belongs here: what a range reads to be counted. Does not belong here: the ranges (`user_parts.py`), counting
(`core/evaluation/hit_counts`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core import columns as col
from dssm_assets.core.config.model import Model, Similarity
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps.interactions import interactions, item_events, read_cuts, rows_of, taken_by_everybody, window_history
from dssm_assets.steps.parallel import run_parallel
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.workspace import StepResult, Workspace, digests, window_days
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.local_files import ScratchArrays, ScratchFile
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.arrays.ids import IdIndex
    from dssm_assets.core.arrays.ragged import IntArray
    from dssm_assets.core.evaluation.baselines.item_cooccurrence import TakenTogether
    from dssm_assets.core.evaluation.baselines.suite import CommonBaselines
    from dssm_assets.core.evaluation.report import ReportFacts
    from dssm_assets.core.evaluation.scorer import ModelScorer
    from dssm_assets.core.evaluation.segments import Cuts
    from dssm_assets.core.evaluation.truth import Truth


PART_USERS: Final = 16 * 2048
"""Users of a file: cut the same way however many processes there are. A whole number of the blocks in which a model is
asked, so that no user's block depends on the cut. The lists of so many users, 200 text ids each, take some 400 MiB."""


@dataclass(frozen=True)
class Scored:
    """Who is scored on a day.

    Attributes:
        truth: of the scored users.
        item_ids: the corpus.
        built_from: vectors of items, of users, ground truth.
        day_users: users of the day, of whom all or a sample is scored.
    """

    truth: Truth
    item_ids: pa.Array
    built_from: tuple[Manifest, ...]
    day_users: int

    @property
    def user_ids(self) -> pa.Array:
        """Returns the evaluated users, ascending."""
        return self.truth.user_ids

    def parts(self) -> Iterator[tuple[int, int, Truth]]:
        """Yields start, stop and truth of each range of users; without users one empty range."""
        count = self.truth.num_users
        for start in range(0, max(count, 1), PART_USERS):
            stop = min(start + PART_USERS, count)
            part = self.truth.users_from(start, stop)
            yield start, stop, replace(part, user_ids=alone(part.user_ids))


@dataclass(frozen=True)
class WrittenPart:
    """A file that has been written aside."""

    path: Path
    row_count: int
    schema: pa.Schema


class PartModel:
    """The model of a day as the scorer of one range of users after another."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Reads the corpus."""
        self._workspace = workspace
        self.built_from = scored_from(workspace, ds)
        self._items = workspace.tables.read(self.built_from[0])
        self._scorer: ModelScorer | None = None

    def of(self, user_ids: pa.Array) -> ModelScorer:
        """Returns the scorer of these users, who are ascending; of the others no vector is held."""
        from dssm_assets.core.evaluation.scorer import model_scorer

        users = rows_of(self._workspace, self.built_from[1], None, user_ids)
        if self._scorer is None:
            self._scorer = model_scorer(self._items, users, user_ids, _similarity(self._workspace.config.model))
            return self._scorer
        return self._scorer.for_users(users, user_ids)


def scored_from(workspace: Workspace, ds: str) -> tuple[Manifest, ...]:
    """Returns vectors of items and users, and the truth."""
    return tuple(workspace.need(name, ds) for name in ("item_vectors", "user_vectors", "ground_truth"))


def read_scored(workspace: Workspace, ds: str) -> Scored:
    """Returns who is scored on a day."""
    from dssm_assets.core.evaluation.truth import read_truth, sampled_users

    built_from, config = scored_from(workspace, ds), workspace.config
    item_ids = workspace.tables.read(built_from[0], [col.ITEM_ID]).column(0).combine_chunks()
    of_day = workspace.tables.read(built_from[2])
    chosen = sampled_users(of_day, config.evaluation.max_users, config.seed)
    return Scored(read_truth(chosen, item_ids), item_ids, built_from, of_day.num_rows)


def write_part(workspace: Workspace, path: Path, spec: TableSpec, table: pa.Table) -> WrittenPart:
    """Writes a part's table aside."""
    row_count = workspace.tables.write_part(path, spec, table.to_batches(), table.schema)
    return WrittenPart(path, row_count, table.schema)


def publish(
    workspace: Workspace, spec: TableSpec, ds: str, parts: Sequence[WrittenPart], inputs: dict[str, str], **facts: Any
) -> Manifest:
    """Makes the files of all parts, at least one, the partition of a day."""
    staged = [(part.path, part.row_count) for part in parts]
    return workspace.tables.publish_parts(spec, ds, staged, schema=parts[0].schema, inputs=inputs, facts=facts)


def alone(column: pa.Array) -> pa.Array:
    """Returns a copy of a slice: the slice itself would take the whole array with it to another process."""
    return column.take(pa.array(range(len(column)), pa.int64()))


def _similarity(model: Model) -> Similarity:
    """Returns how stored vectors are compared: of unit length are the towers', not those that a prior or codes widened."""
    return Similarity.INNER_PRODUCT if model.prior or model.frozen_embedding else model.similarity


@dataclass(frozen=True)
class _Task:
    """A range of users: their truth, and where their hits are written."""

    truth: Truth
    path: Path


@dataclass(frozen=True)
class _Common:
    """What the baselines of all users have in common, as another process of this machine can read it."""

    popular: IntArray
    recent: IntArray
    starts: IntArray
    neighbors: tuple[ScratchFile, ScratchFile]

    def opened(self) -> CommonBaselines:
        """Returns it with the neighbours mapped."""
        from dssm_assets.core.evaluation.baselines.item_cooccurrence import neighbors_of
        from dssm_assets.core.evaluation.baselines.suite import CommonBaselines

        columns, values = (file.open() for file in self.neighbors)
        return CommonBaselines(self.popular, self.recent, neighbors_of(self.starts, columns, values))


class _Counter:
    """Counts hits of ranges of users."""

    def __init__(self, ds: str, common: _Common, workspace: Workspace) -> None:
        self._workspace, self._common = workspace, common.opened()
        self._model, past = PartModel(workspace, ds), find_history_days(workspace, ds)
        first = window_days(ds, workspace.config.window.days)[0]
        self._window, self._older = [day for day in past if day.ds >= first], [day for day in past if day.ds < first]
        self.inputs = digests([*self._model.built_from, past])
        self._items: IdIndex | None = None

    def process(self, task: _Task) -> tuple[WrittenPart, ReportFacts]:
        """Writes a file; returns it, and who was counted."""
        from dssm_assets.core.arrays.ids import IdIndex
        from dssm_assets.core.evaluation import evaluation_tables
        from dssm_assets.core.evaluation.hit_counts import count_hits
        from dssm_assets.core.evaluation.report import report_facts

        truth, scorer = task.truth, self._model.of(task.truth.user_ids)
        self._items = self._items or IdIndex(scorer.item_ids)
        window = interactions(self._workspace, self._window, truth.user_ids, self._items)
        history = interactions(self._workspace, self._older, truth.user_ids, self._items, window)
        scorers = [scorer, *self._common.for_users(window, history)]
        ks = self._workspace.config.evaluation.k
        counts = count_hits(scorers, truth, window.exclusions(truth.num_users), ks)
        part = write_part(self._workspace, task.path, evaluation_tables.HIT_COUNTS, counts.table)
        return part, report_facts(truth, scorer, counts)


def counted(workspace: Workspace, ds: str) -> StepResult:
    """Counts the hits of the model and of every baseline on a day."""
    from dssm_assets.core.evaluation import evaluation_tables
    from dssm_assets.core.evaluation.report import facts_together

    scored, past = read_scored(workspace, ds), find_history_days(workspace, ds)
    users = f"{scored.truth.num_users:,} of {scored.day_users:,} users"
    workspace.log(f"scoring {users} x {len(scored.item_ids):,} items: the model and the baselines")
    inputs = digests([*scored.built_from, past])
    with workspace.tables.partitions.staging() as folder, workspace.tables.partitions.staging() as scratch:
        common = _common(workspace, ds, scored, ScratchArrays(scratch))
        tasks = [_Task(truth, folder / part_name(number)) for number, (_, _, truth) in enumerate(scored.parts())]
        done = list(run_parallel(workspace, partial(_Counter, ds, common), tasks, inputs))
        facts = asdict(replace(facts_together([counted for _, counted in done]), day_users=scored.day_users))
        parts = [part for part, _ in done]
        manifest = publish(workspace, evaluation_tables.HIT_COUNTS, ds, parts, inputs, report=facts)
    return StepResult(manifest, facts)


def _common(workspace: Workspace, ds: str, scored: Scored, scratch: ScratchArrays) -> _Common:
    """Returns what all lists have in common."""
    from dssm_assets.core.arrays.ids import IdIndex
    from dssm_assets.core.evaluation.baselines.fill import order_by_events
    from dssm_assets.core.evaluation.baselines.item_cooccurrence import fit_neighbors

    window, settings, items = window_history(workspace, ds), workspace.config.evaluation, IdIndex(scored.item_ids)
    recent = [day for day in find_history_days(workspace, ds) if day.ds >= window_days(ds, settings.recent_days)[0]]
    popular, lately = (order_by_events(item_events(workspace, days, items)) for days in (window, recent))
    together = _together(workspace, window, scored.user_ids, items, scratch)
    neighbors = fit_neighbors(together, settings.cooccurrence_neighbors, scratch)
    files = ScratchFile.from_array(neighbors.indices), ScratchFile.from_array(neighbors.data)
    return _Common(popular, lately, neighbors.indptr, files)


def _together(
    workspace: Workspace, window: Sequence[Manifest], user_ids: pa.Array, corpus: IdIndex, scratch: ScratchArrays
) -> TakenTogether:
    """Returns what everybody took together in the window, in files; ids of users are of the type of the given ones."""
    from dssm_assets.core.evaluation.baselines.item_cooccurrence import TakenTogether, last_items

    lengths = [np.zeros(1, np.int64)]

    def items() -> Iterator[NDArray[np.int32]]:
        for taken in taken_by_everybody(workspace, window, user_ids, corpus):
            counted, last = last_items(taken)
            lengths.append(counted)
            yield last

    joined = scratch.concat(items(), np.int32)
    return TakenTogether(np.cumsum(np.concatenate(lengths)), joined, len(corpus.ids))


@dataclass(frozen=True)
class _ListTask:
    """A range of users: their truth, the segments that they are in, and where their lists are written."""

    truth: Truth
    cuts: Cuts
    path: Path


class _Lister:
    """Lists ranges of users."""

    def __init__(self, ds: str, workspace: Workspace) -> None:
        self._workspace, self._model = workspace, PartModel(workspace, ds)
        self.inputs = digests(self._model.built_from)

    def process(self, task: _ListTask) -> WrittenPart:
        """Writes a file."""
        from dssm_assets.core.evaluation import evaluation_tables
        from dssm_assets.core.evaluation.detail import hit_rate_detail

        k = self._workspace.config.evaluation.k[-1]
        table = hit_rate_detail(self._model.of(task.truth.user_ids), task.truth, task.cuts, k=k)
        return write_part(self._workspace, task.path, evaluation_tables.HIT_RATE_DETAIL, table)


def listed(workspace: Workspace, ds: str) -> Manifest:
    """Writes down each evaluated user's list of a day, hits and misses."""
    from dssm_assets.core.evaluation import evaluation_tables

    scored = read_scored(workspace, ds)
    cuts, cut_from = read_cuts(workspace, ds, scored)
    with workspace.tables.partitions.staging() as folder:
        tasks = [
            _ListTask(truth, _alone(cuts.users_from(start, stop)), folder / part_name(number))
            for number, (start, stop, truth) in enumerate(scored.parts())
        ]
        parts = list(run_parallel(workspace, partial(_Lister, ds), tasks, digests(scored.built_from)))
        return publish(workspace, evaluation_tables.HIT_RATE_DETAIL, ds, parts, digests([*scored.built_from, *cut_from]))


def _alone(cuts: Cuts) -> Cuts:
    return replace(cuts, users={name: alone(labels) for name, labels in cuts.users.items()})
