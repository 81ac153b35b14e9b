"""Hits counted by ranges of users. What is common to all is made once, from the window of all users: the orders of popularity
and the neighbours of items.

Belongs here: what a range reads to be counted. Does not belong here: the ranges (`user_parts.py`), counting
(`core/evaluation/hit_counts`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dssm_assets.steps.interactions import interactions
from dssm_assets.steps.spread import spread_over
from dssm_assets.steps.training import history_days
from dssm_assets.steps.user_parts import PartModel, Scored, WrittenPart, publish, read_scored, write_part
from dssm_assets.steps.workspace import StepResult, Workspace, digests, window_days
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.baselines.suite import CommonBaselines
    from dssm_assets.core.evaluation.interactions import Interactions
    from dssm_assets.core.evaluation.report import ReportFacts
    from dssm_assets.core.evaluation.truth import Truth


@dataclass(frozen=True)
class _Task:
    """A range of users: their truth, what they took in the window, and where their hits are written."""

    truth: Truth
    window: Interactions
    path: Path


class _Counter:
    """Counts hits of ranges of users."""

    def __init__(self, ds: str, common: CommonBaselines, workspace: Workspace) -> None:
        self._workspace, self._common = workspace, common
        self._model, self._past = PartModel(workspace, ds), history_days(workspace, ds)
        self.inputs = digests([*self._model.made_from, self._past])

    def do(self, task: _Task) -> tuple[WrittenPart, ReportFacts]:
        """Writes a file; returns it, and who was counted."""
        from dssm_assets.core.evaluation import specs
        from dssm_assets.core.evaluation.hit_counts import count_hits
        from dssm_assets.core.evaluation.report import report_facts

        truth, window = task.truth, task.window
        scorer = self._model.of(truth.user_ids)
        history = interactions(self._workspace, self._past, scorer, is_theirs_alone=True)
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
    window, common = _common(workspace, ds, scored, past)
    inputs = digests([*scored.made_from, past])
    with workspace.tables.partitions.staging() as folder:
        tasks = [
            _Task(truth, window.users_from(start, stop), folder / part_name(number))
            for number, (start, stop, truth) in enumerate(scored.parts())
        ]
        done = list(spread_over(workspace, partial(_Counter, ds, common), tasks, inputs))
        facts = asdict(facts_together([counted for _, counted in done]))
        parts = [part for part, _ in done]
        manifest = publish(workspace, specs.HIT_COUNTS, ds, parts, inputs, report=facts)
    return StepResult(manifest, facts)


def _common(workspace: Workspace, ds: str, scored: Scored, past: list[Manifest]) -> tuple[Interactions, CommonBaselines]:
    """Returns what everybody took in the window, and what all lists have in common."""
    from dssm_assets.core.evaluation.baselines.suite import CommonBaselines

    config = workspace.config
    firsts = (window_days(ds, days)[0] for days in (config.window.days, config.evaluation.recent_days))
    window, recent = (interactions(workspace, [day for day in past if day.ds >= first], scored) for first in firsts)
    workspace.log(f"scoring {scored.truth.num_users} users x {len(scored.item_ids)} items: the model and the baselines")
    return window, CommonBaselines.fit(window, recent, config.evaluation)
