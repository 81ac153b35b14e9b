"""The catalog in Dagster's runs: whose partitions are registered, and what a run without it imports."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest

from dssm_assets import cli
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.schema import TableSpec
from dssm_assets.extras.iceberg_catalog import hooks, published_tables
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.iceberg_catalog.tables import (
    ASSET,
    ROOT,
    files,
    find_table,
    open_published,
    put,
    users,
)
from dssm_assets_tests.worlds import DAYS


def materialized(workspace, *, is_regular=True, ds="2024-01-01"):
    manifest = workspace.tables.partitions.need(ASSET, ds)
    hooks.on_materialized(None, SimpleNamespace(is_regular=is_regular), workspace, [SimpleNamespace(manifest=manifest)])


def test_runs_of_experiments_register_nothing(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, "2024-01-01", [1])
    materialized(workspace, is_regular=False)
    assert published.find_listed(ASSET) == set()
    materialized(workspace)
    assert users(find_table(published)) == {"2024-01-01": [1]}


def test_a_cleanup_registers_what_a_killed_run_did_not_unless_it_is_a_dry_run(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, "2024-01-01", [1])
    assert hooks.on_cleaned(workspace, 0.0, removes=False) == set()
    assert hooks.on_cleaned(workspace, 0.0, removes=True) == set(files(tmp_path))
    assert users(find_table(published)) == {"2024-01-01": [1]}
    other, _ = open_published(tmp_path, {"storage": {"iceberg": {"tables": ["user_vectors"]}}})
    assert hooks.on_cleaned(other, 0.0, removes=True) == set(files(tmp_path)), "also of a table that is no longer chosen"
    named, _ = open_published(tmp_path, {"name": "prefix"})
    put(workspace, "2024-01-01", [2])
    kept = set(files(tmp_path))
    assert hooks.on_cleaned(named, 0.0, removes=True) == kept, "also in the namespace of another name of the scene"


def test_a_table_that_does_not_fit_does_not_stop_cleanups(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, "2024-01-01", [1])
    published.sync(ASSET)
    put(workspace, "2024-01-01", ["text"])
    assert hooks.on_cleaned(workspace, 0.0, removes=True) == published.find_listed(ASSET)
    assert users(find_table(published)) == {"2024-01-01": [1]}


def test_a_catalog_that_is_away_fails_no_run_and_is_brought_up_to_date_later(tmp_path: Path) -> None:
    lines: list[str] = []
    workspace, published = open_published(tmp_path)
    put(workspace, "2024-01-01", [1])
    database = workspace.loaded.home / "iceberg.db"
    database.parent.mkdir(exist_ok=True)
    database.write_bytes(b"no database" * 1000)
    materialized(open_workspace(workspace.loaded, lines.append))
    assert "stored, but not registered in the catalog: key storage.iceberg, table" in lines[0]
    database.unlink()
    assert hooks.on_cleaned(workspace, 0.0, removes=True) == set(files(tmp_path))
    assert users(find_table(published)) == {"2024-01-01": [1]}


def test_what_a_cleanup_does_not_reach_is_named(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    assert hooks.list_unreached(workspace) == []
    put(workspace, "2024-01-01", [1])
    published.sync(ASSET)
    assert hooks.list_unreached(workspace) == []
    catalog = f"Iceberg catalog {workspace.loaded.home / 'iceberg.db'}"
    other, _ = open_published(tmp_path, {"storage": {"iceberg": {"tables": ["user_vectors"]}}})
    assert hooks.list_unreached(other) == [f"{catalog}, table tiny.{ASSET}"]
    without = open_workspace(worlds.write_config(tmp_path))
    assert hooks.list_unreached(without) == [catalog]


def test_without_the_key_nothing_is_imported_and_the_command_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = open_workspace(worlds.write_config(tmp_path))
    assert not workspace.tables.partitions.leaves_files
    put(workspace, "2024-01-01", [1])
    monkeypatch.setitem(sys.modules, published_tables.__name__, None)  # an import would fail
    hooks.on_run_start(workspace)
    materialized(workspace)
    assert hooks.on_cleaned(workspace, 0.0, removes=True) == set()
    assert not (tmp_path / ROOT / "_iceberg").exists()
    assert cli.main(["catalog", "--config", str(workspace.loaded.path), "--home", str(tmp_path)]) != 0
    assert "add `iceberg: {}` to storage" in capsys.readouterr().err


def test_the_command_lists_what_it_leaves_out_and_why_and_registers_what_fits(
    world: worlds.BuiltWorld, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = ["item_table", ASSET, "sample", "training_config"]
    loaded = world.copy(tmp_path / "world", {"storage": {"iceberg": {"tables": tables}}})
    workspace, published = open_workspace(loaded), published_tables.PublishedTables(open_workspace(loaded))
    workspace.tables.write(TableSpec("sample", "", ("user_id",), ()), DAYS[3], pa.table({"user_id": pa.array([], pa.string())}))
    assert cli.main(["catalog", "--config", str(loaded.path), "--home", str(loaded.home)]) == 1
    printed = capsys.readouterr()
    found = dict(
        line.removeprefix("left out, ").split(": ") for line in printed.out.splitlines() if line.startswith("left out")
    )
    named = {reason: set(assets.split(", ")) for reason, assets in found.items()}
    assert named["no rows"] == {f"sample of {DAYS[3]}"}
    assert {"dssm_model", "serving_bundle", "train_samples"} & set(workspace.tables.partitions.assets()) <= named[
        "files and no table"
    ]
    assert named["files that many days share"] == {"user_table"}
    assert "user_vectors" in named["storage.iceberg.tables does not name them"]
    left_out = set().union(*(assets for reason, assets in named.items() if reason != "no rows"))
    assert left_out == set(workspace.tables.partitions.assets()) - set(tables)
    assert "item_table: expected a table of parquet files of one day each" in printed.err
    assert "training_config: expected a table of parquet files of one day each" in printed.err
    assert set(users(find_table(published))) == set(DAYS), "the others are registered all the same"


def test_faults_are_told_before_a_run_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = open_workspace(worlds.write_config(tmp_path, {"storage": {"iceberg": {"tables": ["user_vector"]}}}))
    monkeypatch.setattr(hooks, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as raised:
        hooks.on_run_start(workspace)
    assert "pip install 'dssm-assets[iceberg]'" in str(raised.value)
    assert "key storage.iceberg.tables: expected some of: user_table, item_table" in str(raised.value)
    assert "got user_vector. To fix: correct the names" in str(raised.value)


@pytest.mark.parametrize("change", [shutil.move, shutil.copytree])
def test_runs_of_a_home_that_was_moved_or_copied_go_on_and_say_how_its_catalog_is_repaired(
    tmp_path: Path, change: Callable[[Path, Path], object], capsys: pytest.CaptureFixture[str]
) -> None:
    before, now, again = tmp_path / "before", tmp_path / "now", tmp_path / "link"
    file = now / "home" / "iceberg.db"
    workspace, published = open_published(before)
    put(workspace, "2024-01-01", [1])
    put(workspace, "2024-01-02", [2])
    published.sync(ASSET)
    again.symlink_to(before)
    hooks.on_run_start(open_published(again)[0])  # another name of the same place
    change(before, now)
    workspace, published = open_published(now)
    lines: list[str] = []
    logged, content = open_workspace(workspace.loaded, lines.append), file.read_bytes()
    hooks.on_run_start(logged)
    materialized(logged)
    assert len(lines) == 1
    said = rf"nothing is registered.*catalog {file}: .*got {before}/home/tables/.* To fix: remove {file} "
    assert re.match(said, lines[0])
    assert hooks.on_cleaned(logged, 0.0, removes=True) == set()
    assert hooks.list_unreached(logged) == [f"Iceberg catalog {file}"], "so a request to forget names it"
    assert file.read_bytes() == content
    command = ["catalog", "--config", str(workspace.loaded.path), "--home", str(now / "home")]
    assert cli.main(command) == 1
    assert "then run dssm-assets catalog: it registers all days again" in capsys.readouterr().err
    file.unlink()
    assert cli.main(command) == 0
    hooks.on_run_start(logged)
    assert len(lines) == 1
    assert users(find_table(published)) == {"2024-01-01": [1], "2024-01-02": [2]}
    assert published.find_listed(ASSET) == set(files(now))


def test_what_cannot_be_registered_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = worlds.write_world(tmp_path, {"storage": {"iceberg": {"tables": ["user_table"]}}})
    with pytest.raises(Exception, match=r"tables, user_table: expected a table of .* one day each, got the file _shared/"):
        worlds.materialize(loaded, ["user_table"], DAYS[:2])
    assert open_workspace(loaded).tables.partitions.days("user_table") == DAYS[:2]
