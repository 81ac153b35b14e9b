"""The health of a run as the default launcher reports it to run monitoring; more about processes: `test_run_owner.py`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dagster import DagsterInstance, DagsterRun

from dssm_assets.deployment.run_owner import RunOwner
from dssm_assets.deployment.watched_launcher import WatchedRunLauncher

HERE = RunOwner.from_this_process()


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (None, "RUNNING: 'its process is not known to be dead'"),
        (HERE, "RUNNING: 'its process is not known to be dead'"),
        (replace(HERE, pid=2**22 + 1, host="shop"), "NOT_FOUND: 'process 4194305 on shop, which ran it, has ended'"),
    ],
    ids=["without an owner", "alive", "dead"],
)
def test_run_is_judged_by_its_process(owner: RunOwner | None, expected: str) -> None:
    run_id = "11111111-2222-3333-4444-555555555555"
    launcher = WatchedRunLauncher()
    assert launcher.supports_check_run_worker_health
    with DagsterInstance.ephemeral() as instance:
        launcher.register_instance(instance)
        run = DagsterRun("daily_tables", run_id, tags={} if owner is None else owner.to_tags(run_id))
        assert str(launcher.check_run_worker_health(run)) == expected
