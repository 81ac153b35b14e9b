"""The catalog under several processes, a killed one, and whole pipelines."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dssm_assets import cli
from dssm_assets.core.errors import SchemaError
from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.iceberg_catalog.tables import (
    ASSET,
    assert_read_alike,
    files,
    find_table,
    open_published,
    put,
    users,
)
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, WINDOWED

pytestmark = pytest.mark.slow

RUN = """
import os, signal, sys, time
from pathlib import Path
from pyiceberg.catalog.sql import SqlCatalog
from dssm_assets.extras.iceberg_catalog.published_tables import PublishedTables
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests.extras.iceberg_catalog.tables import ASSET, put

folder, kind, days = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
workspace = open_workspace(load_config(folder / "config.yaml", folder / "home"))
published = PublishedTables(workspace)
if kind == "killed":
    SqlCatalog.commit_table = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)
(folder / f"ready-{os.getpid()}").touch()
while kind == "raced" and len(list(folder.glob("ready-*"))) < 4:
    time.sleep(0.01)
for ds in days:
    put(workspace, ds, [int(ds[-2:])])
    published.sync(ASSET, [ds])
"""


def start(folder: Path, kind: str, days: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(folder), kind, ",".join(days)])


def test_runs_of_different_days_at_once_all_arrive(tmp_path: Path) -> None:
    _, published = open_published(tmp_path)
    runs = [start(tmp_path, "raced", DAYS[number::4]) for number in range(4)]
    assert [run.wait(120) for run in runs] == [0] * 4
    assert users(find_table(published)) == {ds: [int(ds[-2:])] for ds in DAYS}
    assert_read_alike(published, ASSET)


def test_what_a_killed_run_stored_is_registered_later(tmp_path: Path) -> None:
    workspace, published = open_published(tmp_path)
    put(workspace, DAYS[0], [70])
    put(workspace, DAYS[1], [71])
    published.sync(ASSET)
    assert start(tmp_path, "killed", DAYS[:1]).wait(120) == -signal.SIGKILL
    assert users(find_table(published)) == {DAYS[0]: [70], DAYS[1]: [71]}, "the former content, whole, while its files stay"
    published.sync(ASSET)
    assert users(find_table(published)) == {DAYS[0]: [1], DAYS[1]: [71]}
    assert_read_alike(published, ASSET)


@needs_extras("retention")
def test_all_tables_after_three_rematerializations_and_a_cleanup(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = {"iceberg": {}, "grace_hours": 0}
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world", {"storage": storage})
    published, home = PublishedTables(open_workspace(loaded)), ["--config", str(loaded.path), "--home", str(loaded.home)]
    before = files(loaded.home / "tables")
    assert cli.main(["catalog", *home]) == 0
    folder = f"file://{loaded.home}/tables/_iceberg/tiny/item_all_feature"
    assert f"tiny.item_all_feature: 12 files registered, 0 taken out; {folder}\n" in capsys.readouterr().out
    assert files(loaded.home / "tables") == before
    with pytest.raises(SchemaError, match=r"tables, training_config: expected a table of .* one day each"):
        published.sync("training_config")
    for seed in (8, 9, 10):
        changed = worlds.write_config(tmp_path / "world", {"seed": seed, "storage": storage})
        worlds.materialize(changed, ["user_all_feature", "item_all_feature"], DAYS)
        worlds.materialize(changed, WINDOWED, [EVALUATION_DAY])
    assert len(find_table(published, "item_vectors").snapshots()) == 4
    stored = len(files(loaded.home / "tables"))
    for _ in range(2):
        time.sleep(0.01)
        assert cli.main(["cleanup", *home]) == 0
    assert len(files(loaded.home / "tables")) < stored
    for asset in loaded.config.storage.iceberg.tables:
        assert len(find_table(published, asset).snapshots()) == 1
        assert_read_alike(published, asset)


def test_a_catalog_of_pyiceberg_s_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, _ = open_published(tmp_path, {"storage": {"iceberg": {"catalog": "lake", "tables": [ASSET]}}})
    put(workspace, DAYS[0], [1])
    command = [sys.executable, "-c", "from dssm_assets.cli import main; raise SystemExit(main())", "catalog"]
    command += ["--config", str(workspace.loaded.path), "--home", str(workspace.loaded.home)]

    def run(address: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", address)
        monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", str(tmp_path / "warehouse"))
        return subprocess.run(command, capture_output=True, text=True, check=False)

    failed = run("postgresql+psycopg2://me:hidden7@127.0.0.1:1/lake")
    assert failed.returncode != 0
    assert all(text in failed.stderr for text in ("got OperationalError", "the partitions are stored"))
    assert "hidden7" not in failed.stdout + failed.stderr
    done = run(f"sqlite:///{tmp_path}/lake.db")
    assert done.returncode == 0, done.stderr
    assert f"tiny.{ASSET}: 1 files registered, 0 taken out; {tmp_path}/warehouse/" in done.stdout
