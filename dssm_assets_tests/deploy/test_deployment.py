"""The deployment of docker-compose.yaml, run as processes: backfills through the UI's API, tables on s3://, same digests."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pytest

from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.conftest import Site
from dssm_assets_tests.deploy.graphql import wait_for
from dssm_assets_tests.deploy.services import BUCKET

FEW_DAYS, FEW_TABLES = worlds.DAYS[:2], ["user_table", "item_table", "behavior_table", "behavior", "user_activity"]
"""A range with a state that rolls on; the slow tests make all tables of all days."""
EVALUATION_DAYS = worlds.DAYS[-2:]


@pytest.mark.heavy
@pytest.mark.timeout(420)
def test_backfill_on_the_services_gives_the_digests_of_a_local_disk(site: Site, tmp_path: Path) -> None:
    site.start("code-server", "webserver")
    site.wait_until_loaded()
    backfill = site.client.backfill(FEW_TABLES, FEW_DAYS)
    # The backfill is requested before the daemon starts: nothing is lost, and the daemon finds it at once.
    site.services.launch("daemon")
    site.wait_for_backfill(backfill, 180)
    site.services.wait_until_healthy("daemon")
    loaded = worlds.write_world(tmp_path)
    worlds.run_steps(loaded, FEW_TABLES, FEW_DAYS)
    found = worlds.every_digest(site.workspace())
    assert found == worlds.every_digest(open_workspace(loaded))
    assert len(found) == len(FEW_TABLES) * len(FEW_DAYS)
    logs = site.workspace().tables.partitions.fs.find(f"{BUCKET}/dagster-logs")
    assert logs, "what runs print is kept in the object store"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_service_may_restart_during_a_run(site: Site, tmp_path: Path) -> None:
    site.start("code-server", "webserver")
    site.wait_until_loaded()
    tables = site.client.backfill(worlds.DAILY, worlds.DAYS)
    site.start("daemon")
    stored = site.workspace().tables.partitions
    first = wait_for("a run", lambda: site.client.runs(tables, "STARTED"), 120)
    wait_for("its first table", lambda: stored.days("behavior_table"), 120)
    for name in ("object-store", "postgres", "webserver", "daemon"):
        site.restart(name)
    assert site.client.runs(tables, "STARTED") == first, "the run continues through all of this"
    wait_for("the run to go on", lambda: stored.days("user_activity"), 120)
    site.services.kill("code-server")
    assert stored.days("user_history_fg") == [], "killed in the middle"
    site.services.start("code-server")
    site.wait_for_backfill(tables, 400)
    assert site.client.runs(tables, "FAILURE") == first
    for ds in EVALUATION_DAYS:
        evaluated = site.client.backfill(worlds.WINDOWED, [ds])
        site.wait_for_backfill(evaluated, 300)
        assert len(site.client.runs(evaluated, "SUCCESS")) == 1, "one run a date"
    site.wait_for_backfill(site.client.backfill(worlds.PUBLISHED, EVALUATION_DAYS[-1:]), 200)
    site.print_figures()
    loaded = worlds.write_world(tmp_path)
    worlds.run_steps(loaded, worlds.DAILY, worlds.DAYS)
    worlds.run_steps(loaded, worlds.WINDOWED, EVALUATION_DAYS)
    worlds.run_steps(loaded, worlds.PUBLISHED, EVALUATION_DAYS[-1:])
    assert worlds.every_digest(site.workspace()) == worlds.every_digest(open_workspace(loaded))


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_backfill_over_a_day_without_truth_makes_the_other_days(site: Site) -> None:
    """Nobody buys on the second of three days: its partition says why it is empty."""
    days = worlds.DAYS[-3:]
    path = site.services.root / "world" / "source" / "behavior.parquet"
    bought = len(worlds.DAYS) - 2
    clicks = [row for row in worlds.log_rows(range(bought, bought + 1)) if row["event"] == "click"]
    worlds.write_rows(path, [*worlds.log_rows(range(bought)), *clicks, *worlds.log_rows(range(bought + 1, bought + 2))])
    fsspec.filesystem("s3").put_file(str(path), f"{BUCKET}/source/behavior.parquet")
    worlds.materialize(site.load(), worlds.DAILY, worlds.DAYS)
    site.start("code-server", "webserver", "daemon")
    site.wait_until_loaded()
    backfill = site.client.backfill(worlds.WINDOWED, days)
    site.wait_for_backfill(backfill, 900)
    assert len(site.client.runs(backfill, "SUCCESS")) == len(days), "one run a date"
    reasons = site.client.texts("total_hit_rate", "skipped")
    assert list(reasons) == [days[1]]
    assert "no positive event" in reasons[days[1]]
    assert site.workspace().tables.partitions.days("total_hit_rate") == [days[0], days[2]]
