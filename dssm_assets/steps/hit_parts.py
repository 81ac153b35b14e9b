"""Hits counted in parts: ranges of evaluated users, a file each, by one process or several with the same bytes.

A part holds of its users alone: vectors, truth, what they took. What is common to all is made once, from the window of all
users: the orders of popularity and the neighbours of items. The corpus is held by every process.

Belongs here: cutting, what a part reads, writing. Does not belong here: counting (`core/evaluation/hit_counts`), which
process does what (`spread.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.errors import Fault, ProvenanceError
from dssm_assets.core.model_config import Model, Similarity
from dssm_assets.steps.interactions import interactions, users_between
from dssm_assets.steps.spread import spread
from dssm_assets.steps.training import history_days
from dssm_assets.steps.workspace import StepResult, Workspace, WorkspaceHandle, digests, window_days
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.baselines.suite import CommonBaselines
    from dssm_assets.core.evaluation.interactions import Interactions
    from dssm_assets.core.evaluation.report import ReportFacts
    from dssm_assets.core.evaluation.scorer import ModelScorer
    from dssm_assets.core.evaluation.truth import Truth

PART_USERS: Final = 64 * 2048
"""Users of a file: cut the same way however many processes there are. A whole number of the blocks in which a model is
asked, so that no user's block depends on the cut."""


@dataclass(frozen=True)
class _Ids:
    """Who is scored, and the corpus."""

    user_ids: pa.Array
    item_ids: pa.Array


@dataclass(frozen=True)
class _Task:
    """A range of users: their truth, what they took in the window, and where their hits are written."""

    truth: Truth
    window: Interactions
    path: Path


@dataclass(frozen=True)
class _Done:
    """A file of hits that has been written, and who was counted."""

    row_count: int
    schema: pa.Schema
    facts: ReportFacts


class _Counter:
    """Counts hits of ranges of users."""

    def __init__(self, workspace: Workspace, ds: str, common: CommonBaselines) -> None:
        self._workspace, self._common = workspace, common
        self._made_from = scored_from(workspace, ds)
        self._past = history_days(workspace, ds)
        self._items = workspace.tables.read(self._made_from[0])
        self._scorer: ModelScorer | None = None

    @classmethod
    def again(cls, handle: WorkspaceHandle, ds: str, common: CommonBaselines, inputs: dict[str, str]) -> _Counter:
        """Returns the counter of another process.

        Raises:
            ProvenanceError: what is scored has changed meanwhile.
        """
        made = cls(handle.open(), ds, common)
        if digests([*made._made_from, made._past]) != inputs:
            remedy = "let one run finish before another writes what it reads"
            raise ProvenanceError(
                Fault(f"hit_counts/{ds}", "inputs that stay while they are read", "others in between", remedy)
            )
        return made

    def do(self, task: _Task) -> _Done:
        """Writes a file."""
        from dssm_assets.core.evaluation import specs
        from dssm_assets.core.evaluation.hit_counts import count_hits
        from dssm_assets.core.evaluation.report import report_facts

        truth, window, tables = task.truth, task.window, self._workspace.tables
        scorer = self._model(truth.user_ids)
        history = interactions(self._workspace, self._past, scorer, is_theirs_alone=True)
        baselines = self._common.for_users(window, history)
        taken = window.exclusions(truth.num_users)
        counts = count_hits([scorer, *baselines], truth, taken, self._workspace.config.evaluation.k)
        schema = counts.table.schema
        row_count = tables.write_part(task.path, specs.HIT_COUNTS, counts.table.to_batches(), schema)
        return _Done(row_count, schema, report_facts(truth, scorer, counts))

    def _model(self, user_ids: pa.Array) -> ModelScorer:
        from dssm_assets.core.evaluation.scorer import model_scorer

        users = users_between(self._workspace, self._made_from[1], None, user_ids)
        if self._scorer is not None:
            return self._scorer.for_users(users, user_ids)
        self._scorer = model_scorer(self._items, users, user_ids, similarity_of(self._workspace.config.model))
        return self._scorer


def similarity_of(model: Model) -> Similarity:
    """Returns how stored vectors are compared: of unit length are the towers', not those that a prior has widened."""
    return Similarity.INNER_PRODUCT if model.prior else model.similarity


def scored_from(workspace: Workspace, ds: str) -> list[Manifest]:
    """Returns vectors of items and users, and the truth."""
    return [workspace.need(name, ds) for name in ("item_vectors", "user_vectors", "ground_truth")]


def counted(workspace: Workspace, ds: str) -> StepResult:
    """Counts the hits of the model and of every baseline on a day."""
    import torch

    from dssm_assets.core.evaluation import specs
    from dssm_assets.core.evaluation.report import facts_together

    made_from, past = scored_from(workspace, ds), history_days(workspace, ds)
    truth, window, common = _common(workspace, ds, made_from, past)
    inputs, processes = digests([*made_from, past]), workspace.config.evaluation.num_processes
    with workspace.tables.partitions.staging() as folder:
        tasks = list(_tasks(truth, window, folder))
        del window
        again = partial(_Counter.again, WorkspaceHandle.of(workspace), ds, common, inputs)
        make = partial(_Counter, workspace, ds, common) if min(processes, len(tasks)) == 1 else again
        done = list(spread(make, tasks, processes, torch.get_num_threads()))
        facts = asdict(facts_together([part.facts for part in done]))
        manifest = workspace.tables.publish_parts(
            specs.HIT_COUNTS,
            ds,
            [(task.path, part.row_count) for task, part in zip(tasks, done, strict=True)],
            schema=done[0].schema,
            inputs=inputs,
            facts={"report": facts},
        )
    return StepResult(manifest, facts)


def _common(
    workspace: Workspace, ds: str, made_from: Sequence[Manifest], past: Sequence[Manifest]
) -> tuple[Truth, Interactions, CommonBaselines]:
    """Returns the truth, what everybody took in the window, and what all lists have in common."""
    from dssm_assets.core.evaluation.baselines.suite import CommonBaselines
    from dssm_assets.core.evaluation.truth import read_truth

    config = workspace.config
    item_ids = workspace.tables.read(made_from[0], [col.ITEM_ID]).column(0).combine_chunks()
    truth = read_truth(workspace.tables.read(made_from[2]), item_ids)
    ids = _Ids(truth.user_ids, item_ids)
    firsts = (window_days(ds, days)[0] for days in (config.window.days, config.evaluation.recent_days))
    window, recent = (interactions(workspace, [day for day in past if day.ds >= first], ids) for first in firsts)
    common = CommonBaselines.fit(window, recent, config.evaluation)
    workspace.log(f"scoring {truth.num_users} users x {len(item_ids)} items: the model and the baselines")
    return truth, window, common


def _tasks(truth: Truth, window: Interactions, folder: Path) -> Iterator[_Task]:
    for number, start in enumerate(range(0, max(truth.num_users, 1), PART_USERS)):
        stop = min(start + PART_USERS, truth.num_users)
        part = truth.users_from(start, stop)
        # A slice of an Arrow array would take the whole array with it to another process.
        alone = replace(part, user_ids=part.user_ids.take(pa.array(range(len(part.user_ids)), pa.int64())))
        yield _Task(alone, window.users_from(start, stop), folder / part_name(number))
