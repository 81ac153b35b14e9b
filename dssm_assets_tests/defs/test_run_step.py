"""A step whose inputs another run replaces while it reads them: its remaining days are done again, from the newer inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from dssm_assets.core.errors import PartitionReplacedError
from dssm_assets.defs.asset_factory import run_step
from dssm_assets.steps.workspace import StepResult, Workspace, digests
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore
from dssm_assets_tests.storage.stores import NOTES, notes

DAYS = ("2024-01-01", "2024-01-02", "2024-01-03")


class _Copying:
    """A step that reads each day of `notes`, of which another run writes the second one again before it is read."""

    def __init__(self, tables: TableStore, times: int) -> None:
        self.tables, self.times = tables, times
        self.asked: list[list[str]] = []
        self.read: dict[str, list[str]] = {}

    def __call__(self, workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
        self.asked.append(list(days))
        for ds in days:
            manifest = self.tables.partitions.need("notes", ds)
            if ds == DAYS[1] and self.times:
                self.times -= 1
                self.tables.write(NOTES, ds, notes((f"newer {self.times}", 1, None)))
            self.read[ds] = self.tables.read(manifest).column("user_id").to_pylist()
            partitions = self.tables.partitions
            yield StepResult(partitions.publish(asset="copy", ds=ds, staged=[], inputs=digests([manifest])), {})


def _step(folder: Path, times: int) -> tuple[_Copying, Workspace, list[str]]:
    tables = TableStore(PartitionStore(str(folder), grace_seconds=0))
    for ds in DAYS:
        tables.write(NOTES, ds, notes((ds, 1, None)))
    reported: list[str] = []
    workspace: Any = SimpleNamespace(log=reported.append)
    return _Copying(tables, times), cast(Workspace, workspace), reported


def test_remaining_days_are_done_again_from_the_newer_input(tmp_path: Path) -> None:
    step, workspace, reported = _step(tmp_path, times=2)
    done = [result for result, _ in run_step(step, workspace, DAYS)]
    assert [result.manifest.ds for result in done] == list(DAYS)
    assert step.asked == [list(DAYS), list(DAYS[1:]), list(DAYS[1:])]
    assert step.read[DAYS[1]] == ["newer 0"]
    newest = step.tables.partitions.need("notes", DAYS[1])
    assert done[1].manifest.inputs == {newest.key: newest.digest}, "the manifest names what was read"
    assert len(reported) == 2 and "written again meanwhile" in reported[0]


def test_input_that_is_replaced_in_every_try_is_an_error(tmp_path: Path) -> None:
    step, workspace, _ = _step(tmp_path, times=3)
    with pytest.raises(PartitionReplacedError, match=r"partition notes/2024-01-02: expected its files.*To fix: read it again"):
        list(run_step(step, workspace, DAYS))
