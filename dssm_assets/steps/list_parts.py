"""Lists of the model, with what was right in them, by ranges of users.

Belongs here: what a range reads to be listed. Does not belong here: the ranges (`user_parts.py`), the rows
(`core/evaluation/detail`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dssm_assets.steps.segments import read_cuts
from dssm_assets.steps.spread import spread_over
from dssm_assets.steps.user_parts import PartModel, WrittenPart, alone, publish, read_scored, write_part
from dssm_assets.steps.workspace import Workspace, digests
from dssm_assets.storage.layout import part_name
from dssm_assets.storage.manifest import Manifest

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.segments import Cuts
    from dssm_assets.core.evaluation.truth import Truth


@dataclass(frozen=True)
class _Task:
    """A range of users: their truth, the segments that they are in, and where their lists are written."""

    truth: Truth
    cuts: Cuts
    path: Path


class _Lister:
    """Lists ranges of users."""

    def __init__(self, ds: str, workspace: Workspace) -> None:
        self._workspace, self._model = workspace, PartModel(workspace, ds)
        self.inputs = digests(self._model.made_from)

    def do(self, task: _Task) -> WrittenPart:
        """Writes a file."""
        from dssm_assets.core.evaluation import specs
        from dssm_assets.core.evaluation.detail import hit_rate_detail

        k = self._workspace.config.evaluation.k[-1]
        table = hit_rate_detail(self._model.of(task.truth.user_ids), task.truth, task.cuts, k=k)
        return write_part(self._workspace, task.path, specs.HIT_RATE_DETAIL, table)


def listed(workspace: Workspace, ds: str) -> Manifest:
    """Writes down each evaluated user's list of a day, hits and misses."""
    from dssm_assets.core.evaluation import specs

    scored = read_scored(workspace, ds)
    cuts, cut_from = read_cuts(workspace, ds, scored)
    with workspace.tables.partitions.staging() as folder:
        tasks = [
            _Task(truth, _alone(cuts.users_from(start, stop)), folder / part_name(number))
            for number, (start, stop, truth) in enumerate(scored.parts())
        ]
        parts = list(spread_over(workspace, partial(_Lister, ds), tasks, digests(scored.made_from)))
        return publish(workspace, specs.HIT_RATE_DETAIL, ds, parts, digests([*scored.made_from, *cut_from]))


def _alone(cuts: Cuts) -> Cuts:
    return replace(cuts, users={name: alone(labels) for name, labels in cuts.users.items()})
