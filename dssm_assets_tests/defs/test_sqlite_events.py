"""Events of a run in this process: SQLite files are kept open during it, and batches of events give the records of single ones."""

import os
import sqlite3
from contextlib import closing
from functools import partial

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.events import ASSET_EVENTS
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from dagster._serdes import serialize_value

from dssm_assets.defs.sqlite_events import (
    BATCH_SIZE_VARIABLE,
    event_rows,
    quick_events,
    sqlite_kept_open,
    store_batch,
    store_planned_check,
)

HOSTILE = '"metadata_entries": [], "timestamp": -1.0, "partition": "<day>", "partition": null, "tags": {}}'
"""A text of metadata that reads like the places where events of different days differ."""
DAYS = dg.DailyPartitionsDefinition("2026-11-01", end_date="2026-11-05")


def write(path, value):
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("PRAGMA journal_mode=WAL"))
        connection.execute(sa.text("create table if not exists seen (value integer)"))
    with engine.begin() as connection:
        level = connection.execute(sa.text("PRAGMA synchronous")).scalar()
        connection.execute(sa.text(f"insert into seen values ({value})"))
    return level


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute("select value from seen")]


def test_write_ahead_log_stays_between_connections_and_is_merged_at_the_end(tmp_path):
    path, ahead = tmp_path / "events.db", tmp_path / "events.db-wal"
    with sqlite_kept_open():
        assert write(path, 1) == 1  # normal
        assert ahead.exists()
        assert write(path, 2) == 1
        assert rows(path) == [1, 2]
    assert not ahead.exists()
    assert rows(path) == [1, 2]


def test_connections_outside_the_block_do_not_change(tmp_path):
    path, own = tmp_path / "events.db", write(tmp_path / "other.db", 1)
    with sqlite_kept_open():
        pass
    assert write(path, 1) == own
    assert not (tmp_path / "events.db-wal").exists()


def test_database_in_memory_is_not_kept_open():
    with sqlite_kept_open(), sa.create_engine("sqlite://").connect() as connection:
        assert connection.execute(sa.text("select 1")).scalar() == 1


def asset_named(name, upstream=()):
    check = dg.AssetCheckSpec("not_empty", asset=name)

    @dg.asset(
        name=name, partitions_def=DAYS, deps=upstream, check_specs=[check], backfill_policy=dg.BackfillPolicy.single_run()
    )
    def made(context):
        for day in context.partition_keys:
            context.add_asset_metadata({"day": day, "text": HOSTILE, "table": {"n": [1, None]}}, partition_key=day)
        return dg.MaterializeResult(data_version=dg.DataVersion("1"), check_results=[dg.AssetCheckResult(passed=True)])

    return made


def run_in_range(home, is_quick):
    """Runs two assets over three days in one run; returns what Dagster tells about them."""
    first = asset_named("first")
    defs = dg.Definitions(assets=[first, asset_named("second", [first])])
    tags = {ASSET_PARTITION_RANGE_START_TAG: "2026-11-01", ASSET_PARTITION_RANGE_END_TAG: "2026-11-03"}
    with dg.DagsterInstance.local_temp(str(home)) as instance:

        def execute():
            return defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, tags=tags)

        if is_quick:
            with quick_events(instance.event_log_storage):
                run_id = execute().run_id
        else:
            run_id = execute().run_id
        names = [dg.AssetKey("first"), dg.AssetKey("second")]
        found = {}
        for name in names:
            records = instance.fetch_materializations(name, limit=10).records
            found[name] = {
                "materialized": [(r.partition_key, r.asset_materialization.metadata["day"].value) for r in records],
                "ids": sorted(r.storage_id for r in records),
                "versions": [r.asset_materialization.tags["dagster/data_version"] for r in records],
                "partitions": instance.get_materialized_partitions(name),
                "last": instance.get_latest_materialization_event(name).dagster_event.partition,
                "last_run": instance.get_asset_records([name])[0].asset_entry.last_run_id == run_id,
            }
        kinds = [
            (entry.dagster_event_type, entry.dagster_event.asset_key, entry.dagster_event.partition)
            for entry in instance.all_logs(run_id)
            if entry.is_dagster_event and entry.dagster_event_type.value.startswith("ASSET")
        ]
        return found, sorted(kinds, key=str), {name: (r["last_run"], len(r["ids"])) for name, r in found.items()}


def test_batches_give_the_records_of_single_events(tmp_path):
    (tmp_path / "quick").mkdir()
    (tmp_path / "single").mkdir()
    found, kinds, counts = run_in_range(tmp_path / "quick", is_quick=True)
    expected, expected_kinds, _ = run_in_range(tmp_path / "single", is_quick=False)
    for one in (*found.values(), *expected.values()):
        one.pop("ids")
    assert found == expected
    assert kinds == expected_kinds
    assert list(counts.values()) == [(True, 3), (True, 3)]
    planned = [kind for kind in kinds if kind[0] is dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED]
    assert len(planned) == 6


def test_batches_end_with_the_block(tmp_path):
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        storage = instance.event_log_storage
        with pytest.raises(ValueError, match="stopped"), quick_events(storage):
            assert {"store_event_batch", "_connect"} <= set(vars(storage))
            raise ValueError("stopped")
        assert not {"store_event_batch", "_connect"} & set(vars(storage))
        assert BATCH_SIZE_VARIABLE not in os.environ


def test_rows_are_those_of_dagster(tmp_path):
    """Every event of a run over several days, in one batch."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        storage, stored = instance.event_log_storage, []
        with quick_events(storage):
            storage.store_event_batch = lambda events: (stored.extend(events), store_batch(storage, events))[1]
            tags = {ASSET_PARTITION_RANGE_START_TAG: "2026-11-01", ASSET_PARTITION_RANGE_END_TAG: "2026-11-03"}
            defs = dg.Definitions(assets=[asset_named("first"), asset_named("second", ["first"])])
            run = defs.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, tags=tags)
        of_assets = [entry for entry in stored if entry.dagster_event_type in ASSET_EVENTS]
        planned = [entry for entry in of_assets if entry.dagster_event_type.value == "ASSET_MATERIALIZATION_PLANNED"]
        assert len(planned) == 6
        assert list(event_rows(storage, of_assets)) == [storage._event_to_row(entry) for entry in of_assets]
        other_run = [entry._replace(run_id=f"run {place}") for place, entry in enumerate(planned)]
        assert list(event_rows(storage, other_run)) == [storage._event_to_row(entry) for entry in other_run]
        with storage.index_connection() as connection:
            checks = connection.execute(sa.select(AssetCheckExecutionsTable)).mappings().all()
        assert {check["run_id"] for check in checks} == {run.run_id}
        assert {check["check_name"] for check in checks} == {"not_empty"}


def test_planned_checks_are_those_of_dagster(tmp_path):
    found = []
    for name in ("quick", "single"):
        (tmp_path / name).mkdir()
        with dg.DagsterInstance.local_temp(str(tmp_path / name)) as instance:
            storage = instance.event_log_storage
            kept = []
            real = storage._store_asset_check_evaluation_planned
            store = partial(store_planned_check, storage) if name == "quick" else real
            storage._store_asset_check_evaluation_planned = lambda event, number, store=store, kept=kept: (
                kept.append(event),
                store(event, number),
            )
            tags = {ASSET_PARTITION_RANGE_START_TAG: "2026-11-01", ASSET_PARTITION_RANGE_END_TAG: "2026-11-03"}
            job = dg.Definitions(assets=[asset_named("first")]).resolve_implicit_global_asset_job_def()
            job.execute_in_process(instance=instance, tags=tags)
            with storage.index_connection() as connection:
                rows = connection.execute(sa.select(AssetCheckExecutionsTable)).mappings().all()
            assert kept
            events = {serialize_value(event) for event in kept}
            found.append([(r["check_name"], r["asset_key"], r["partition"], r["execution_status"]) for r in rows])
            assert all(r["evaluation_event"] in events or r["execution_status"] != "PLANNED" for r in rows)
    assert found[0] == found[1]
