"""What Dagster does not publish and this project uses: the same on the lowest and the newest version of pyproject.toml."""

import sqlite3
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dssm_assets.defs import runs
from dssm_assets.deployment.run_owner import tag_run
from dssm_assets.storage.config_choice import UI_LOCATION

DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-03-01")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def table(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    tag_run(context.instance, context.run)
    for ds in context.partition_keys:
        context.add_asset_metadata({"day": ds}, partition_key=ds)
    return dg.MaterializeResult()


def _make(home: Path, days: int) -> dg.DagsterRun:
    """Makes a run over the first days; returns it as it is stored."""
    with runs.open_instance(home) as instance:
        run_id = runs.run_days(dg.Definitions(assets=[table]), instance, ["table"], DAYS.get_partition_keys()[:days])
        found = instance.get_run_by_id(run_id)
    assert found is not None
    return found


def test_run_of_a_command_has_the_code_location_of_the_ui_and_its_events(tmp_path: Path) -> None:
    run = _make(tmp_path, 3)
    assert run.status is dg.DagsterRunStatus.SUCCESS
    assert run.remote_job_origin is not None
    assert (run.remote_job_origin.location_name, run.remote_job_origin.job_name) == (UI_LOCATION, run.job_name)
    with runs.open_instance(tmp_path) as instance:
        assert instance.get_materialized_partitions(table.key) == {"2024-01-01", "2024-01-02", "2024-01-03"}


def test_connections_to_sqlite_do_not_grow_with_the_days(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    connect = sqlite3.dbapi2.connect

    def note(file: str, *arguments: Any, **options: Any) -> sqlite3.Connection:
        opened.append(str(file))
        return connect(file, *arguments, **options)

    monkeypatch.setattr(sqlite3.dbapi2, "connect", note)
    _make(tmp_path, 1)  # makes the instance
    counts = []
    for days in (2, 40):
        opened.clear()
        _make(tmp_path, days)
        counts.append(sum("history/runs/" in file and not file.endswith("/runs.db") for file in opened))
    assert 0 < counts[1] <= counts[0], "Dagster alone opens three more for a day"
