"""`init` and `validate` with Delta and Iceberg tables; runs in several processes; tables on an S3 server."""

import os
import subprocess
import sys

import pyarrow as pa
import pytest
import yaml
from deltalake import write_deltalake
from pyiceberg.catalog import load_catalog

from dssm_assets.core.config.pipeline import BehaviorTable, SourceTable
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.lakehouses.delta_source import S3_NAMES as DELTA_NAMES
from dssm_assets.installed_extras import load_extra
from dssm_assets.materialize import plan_runs, run_plan
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.locations import PYICEBERG_S3_OPTIONS, rename_s3_options
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source import SourceMissingError
from dssm_assets.storage.sources.source_files import open_source
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.services import BUCKET, object_store
from dssm_assets_tests.extras.lakehouses.lakes import log_of, open_lake
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.worlds import DAYS


def run_command(lake, *arguments):
    """Returns the exit status of a command; pyiceberg reads its configuration when it is imported."""
    variables = {f"PYICEBERG_CATALOG__TESTS__{key.upper()}": value for key, value in lake.options.items()}
    command = [sys.executable, "-c", "import sys; from dssm_assets.cli import main; sys.exit(main())", *arguments]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    print(done.stdout, done.stderr)
    return done.returncode


@pytest.mark.slow
@needs_extras("starter")
def test_init_writes_a_configuration_that_validates(lake, tmp_path):
    worlds.write_sources(tmp_path)
    users = open_lake(lake.format, tmp_path, "users")
    for ds in DAYS:
        rows = pa.Table.from_pylist(worlds.user_rows())
        users.append(rows.append_column("ds", pa.array([ds] * len(rows))), "ds")
    lake.append(log_of(range(12)))
    out, items = tmp_path / "out", tmp_path / "source" / "items.parquet"
    tables = ["--behavior", lake.uri, "--user", users.uri, "--item", str(items), "--timezone", worlds.TIMEZONE]
    assert run_command(lake, "init", *tables, "--out", str(out)) == 0
    assert run_command(lake, "validate", "--config", str(out / "config.yaml")) == 0
    written = yaml.safe_load((out / "config.yaml").read_text())["tables"]
    for side, table, layout in (("user", users, "ds_folders"), ("behavior", lake, "time_column")):
        expected = {"table": None, **table.source, "layout": layout, "storage_options": None}
        assert {key: written[side].get(key) for key in expected} == expected
    assert '"user:ds"' not in (out / "fg.json").read_text()


@pytest.mark.slow
def test_a_plan_in_two_processes_reads_a_table_that_this_one_has_read(lake, tmp_path):
    """Arrow's and the libraries' threads do not survive a fork: workers are forked from a process that has read nothing."""
    worlds.write_sources(tmp_path)
    lake.append(log_of(range(12)))
    changes = {"calendar": {"end": "2024-01-17"}, "tables": {"behavior": {**lake.source, "allow_empty_days": True}}}
    loaded = worlds.write_config(tmp_path, changes)
    worlds.run_steps(loaded, ["behavior_table"], DAYS[:1])
    plan = plan_runs(Scene(loaded), "behavior_table", DAYS[0], "2024-01-17")
    run_plan(plan, Observer(), tmp_path / "instance", processes=2)
    workspace = open_workspace(loaded)
    found = [workspace.need("behavior_table", ds).rows for ds in (*DAYS, "2024-01-17")]
    assert found == [*(len(worlds.log_rows([day])) for day in range(12)), 0]


@needs_extras("starter")
@pytest.mark.slow
def test_tables_on_an_s3_server(tmp_path, monkeypatch):
    with object_store() as options:
        given = {"uri": f"s3://{BUCKET}/clicks", "format": "delta", "storage_options": options}
        delta = BehaviorTable(**given, columns={"event_time": "ts"})
        stored = {**rename_s3_options(options, DELTA_NAMES), "AWS_ALLOW_HTTP": "true"}
        write_deltalake(delta.uri, log_of([0, 1]), storage_options=stored)
        assert count_users(delta) == 12
        before = open_source(delta, "x").state().fingerprint
        write_deltalake(delta.uri, log_of([0]), mode="append", storage_options=stored)
        assert open_source(delta, "x").first_change(before, "ts").timestamp() * 1000 == worlds.start_ms(0)
        catalog = {"type": "sql", "uri": f"sqlite:///{tmp_path}/catalog.db", "warehouse": f"s3://{BUCKET}/warehouse"}
        lake = load_catalog("tests", **catalog, **rename_s3_options(options, PYICEBERG_S3_OPTIONS))
        lake.create_namespace("shop")
        lake.create_table("shop.clicks", log_of([0]).schema).append(log_of([0, 1]))
        named = {"uri": "tests", "format": "iceberg", "table": "shop.clicks", "storage_options": {**catalog, **options}}
        assert count_users(BehaviorTable(**named, columns={"event_time": "ts"})) == 12
        for option, name in zip(("endpoint_url", "key", "secret"), DELTA_NAMES, strict=False):
            monkeypatch.setenv(name, options[option])
        assert load_extra("starter", "table_survey").survey_uri(delta.uri, "x") == SourceTable(uri=delta.uri, format="delta")
        with pytest.raises(SourceMissingError):
            open_source(delta.model_copy(update={"uri": f"s3://{BUCKET}/none", "storage_options": {}}), "x")


def count_users(table):
    """Returns the number of users of the second day."""
    ((_, found),) = read_days(open_source(table, "behavior_table"), [DAYS[1]], timezone=worlds.TIMEZONE)
    return len(set(found.column("user_id").to_pylist()))
