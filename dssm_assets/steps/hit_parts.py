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
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.steps.interactions import interactions, item_events, taken_by_everybody, window_history
from dssm_assets.steps.spread import spread_over
from dssm_assets.steps.training import history_days
from dssm_assets.steps.user_parts import PartModel, Scored, WrittenPart, publish, read_scored, write_part
from dssm_assets.steps.workspace import StepResult, Workspace, digests, window_days
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.scratch_arrays import ScratchArrays, ScratchFile

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.baselines.suite import CommonBaselines
    from dssm_assets.core.evaluation.baselines.taken_together import TakenTogether
    from dssm_assets.core.evaluation.ids import IdPlaces
    from dssm_assets.core.evaluation.report import ReportFacts
    from dssm_assets.core.evaluation.truth import Truth
    from dssm_assets.core.retrieval.exclusions import Index


@dataclass(frozen=True)
class _Task:
    """A range of users: their truth, and where their hits are written."""

    truth: Truth
    path: Path


@dataclass(frozen=True)
class _Common:
    """What the baselines of all users have in common, as another process of this machine can read it."""

    popular: Index
    recent: Index
    starts: Index
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
        self._model, past = PartModel(workspace, ds), history_days(workspace, ds)
        first = window_days(ds, workspace.config.window.days)[0]
        self._window, self._older = [day for day in past if day.ds >= first], [day for day in past if day.ds < first]
        self.inputs = digests([*self._model.made_from, past])
        self._items: IdPlaces | None = None

    def do(self, task: _Task) -> tuple[WrittenPart, ReportFacts]:
        """Writes a file; returns it, and who was counted."""
        from dssm_assets.core.evaluation import specs
        from dssm_assets.core.evaluation.hit_counts import count_hits
        from dssm_assets.core.evaluation.ids import IdPlaces
        from dssm_assets.core.evaluation.report import report_facts

        truth, scorer = task.truth, self._model.of(task.truth.user_ids)
        self._items = self._items or IdPlaces(scorer.item_ids)
        window = interactions(self._workspace, self._window, truth.user_ids, self._items)
        history = interactions(self._workspace, self._older, truth.user_ids, self._items, window)
        scorers = [scorer, *self._common.for_users(window, history)]
        ks = self._workspace.config.evaluation.k
        counts = count_hits(scorers, truth, window.exclusions(truth.num_users), ks)
        part = write_part(self._workspace, task.path, specs.HIT_COUNTS, counts.table)
        return part, report_facts(truth, scorer, counts)


def counted(workspace: Workspace, ds: str) -> StepResult:
    """Counts the hits of the model and of every baseline on a day."""
    from dssm_assets.core.evaluation import specs
    from dssm_assets.core.evaluation.report import facts_together

    scored, past = read_scored(workspace, ds), history_days(workspace, ds)
    users = f"{scored.truth.num_users:,} of {scored.day_users:,} users"
    workspace.log(f"scoring {users} x {len(scored.item_ids):,} items: the model and the baselines")
    inputs = digests([*scored.made_from, past])
    with workspace.tables.partitions.staging() as folder, workspace.tables.partitions.staging() as scratch:
        common = _common(workspace, ds, scored, ScratchArrays(scratch))
        tasks = [_Task(truth, folder / part_name(number)) for number, (_, _, truth) in enumerate(scored.parts())]
        done = list(spread_over(workspace, partial(_Counter, ds, common), tasks, inputs))
        facts = asdict(replace(facts_together([counted for _, counted in done]), day_users=scored.day_users))
        parts = [part for part, _ in done]
        manifest = publish(workspace, specs.HIT_COUNTS, ds, parts, inputs, report=facts)
    return StepResult(manifest, facts)


def _common(workspace: Workspace, ds: str, scored: Scored, scratch: ScratchArrays) -> _Common:
    """Returns what all lists have in common."""
    from dssm_assets.core.evaluation.baselines.fill import order_by_events
    from dssm_assets.core.evaluation.baselines.item_cooccurrence import fit_neighbors
    from dssm_assets.core.evaluation.ids import IdPlaces

    window, settings, items = window_history(workspace, ds), workspace.config.evaluation, IdPlaces(scored.item_ids)
    recent = [day for day in history_days(workspace, ds) if day.ds >= window_days(ds, settings.recent_days)[0]]
    popular, lately = (order_by_events(item_events(workspace, days, items)) for days in (window, recent))
    together = _together(workspace, window, scored.user_ids, items, scratch)
    neighbors = fit_neighbors(together, settings.cooccurrence_neighbors, scratch)
    files = ScratchFile.of(neighbors.indices), ScratchFile.of(neighbors.data)
    return _Common(popular, lately, neighbors.indptr, files)


def _together(
    workspace: Workspace, window: Sequence[Manifest], user_ids: pa.Array, corpus: IdPlaces, scratch: ScratchArrays
) -> TakenTogether:
    """Returns what everybody took together in the window, in files; ids of users are of the type of the given ones."""
    from dssm_assets.core.evaluation.baselines.taken_together import TakenTogether, last_items

    lengths = [np.zeros(1, np.int64)]

    def items() -> Iterator[NDArray[np.int32]]:
        for taken in taken_by_everybody(workspace, window, user_ids, corpus):
            counted, last = last_items(taken)
            lengths.append(counted)
            yield last

    joined = scratch.joined(items(), np.int32)
    return TakenTogether(np.cumsum(np.concatenate(lengths)), joined, len(corpus.values))
