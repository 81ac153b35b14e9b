"""`dssm-assets cleanup`, and the search for leftovers by the first run of a day."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from dssm_assets import cli
from dssm_assets.extras.retention.leftovers import clean_when_due
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets_tests import worlds
from dssm_assets_tests.storage.races import publish_mark
from dssm_assets_tests.storage.stores import verify

DAYS = 24 * 3600


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    """Returns a configuration in whose store a partition and two leftovers of three days ago are, one replaced file among them."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    loaded = worlds.write_config(tmp_path)
    store = PartitionStore(loaded.root)
    former = publish_mark(store, "x")
    publish_mark(store, "y")
    left = [Path(store.file_path(former, former.files[0])), Path(loaded.root) / "_staging" / "killed"]
    left[1].mkdir(parents=True)
    for path in left:
        os.utime(path, (time.time() - 3 * DAYS,) * 2)
    return loaded


def _files(loaded: LoadedConfig) -> set[str]:
    return {path.relative_to(loaded.root).as_posix() for path in Path(loaded.root).rglob("*")}


def test_leftovers_older_than_asked_are_removed(loaded: LoadedConfig, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["cleanup", "--config", str(loaded.path), "--home", str(loaded.home)]
    before = _files(loaded)
    assert cli.main([*arguments, "--dry-run"]) == 0
    assert _files(loaded) == before
    assert capsys.readouterr().out.splitlines()[1:] == [
        f"{loaded.root}/_staging/killed",
        "temporary folders: 1, 0.0 MB",
        "partition files: 0, 0.0 MB",
        "bundles: 0, 0.0 MB",
        "expired partitions: 0, 0.0 MB",
        "nothing was removed",
    ], "the replaced file is old, but was replaced just now"
    assert cli.main(arguments) == 0
    assert before - _files(loaded) == {"_staging/killed"}
    assert cli.main([*arguments, "--grace-hours", "0"]) == 0
    assert capsys.readouterr().out.splitlines()[-5:] == [
        "temporary folders: 0, 0.0 MB",
        "partition files: 3, 0.0 MB",
        "bundles: 0, 0.0 MB",
        "expired partitions: 0, 0.0 MB",
        "3 removed",
    ]
    store = PartitionStore(loaded.root)
    verify(store, store.need("notes", "2024-01-02"))


def test_grace_hours_that_are_no_time_are_refused(loaded: LoadedConfig, capsys: pytest.CaptureFixture[str]) -> None:
    for hours in ("-1", "nan"):
        assert cli.main(["cleanup", "--config", str(loaded.path), f"--grace-hours={hours}"]) == 1
        assert "expected a number that is not negative" in capsys.readouterr().err


def test_users_and_old_days_are_requests_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["forget", "--user-ids", "ids.txt", "--older-than", "365"])
    assert "argument --older-than: not allowed with argument --user-ids" in capsys.readouterr().err


def test_first_run_of_a_day_removes_leftovers(loaded: LoadedConfig) -> None:
    told: list[str] = []
    workspace = open_workspace(loaded, told.append)
    clean_when_due(workspace)
    assert told == ["removed leftovers: 1, 0.0 MiB"]
    (Path(loaded.root) / "_staging" / "killed").mkdir()
    os.utime(Path(loaded.root) / "_staging" / "killed", (1, 1))
    clean_when_due(workspace)
    assert len(told) == 1, "done already on this day"
    for days in (-2, 2000):
        os.utime(Path(loaded.root) / "_cleaned", (time.time() + days * DAYS,) * 2)
        clean_when_due(workspace)
        assert told[1:] == ["removed leftovers: 1, 0.0 MiB"], "a mark of the future does not count"
        del told[1:]
        (Path(loaded.root) / "_staging" / "killed").mkdir()
        os.utime(Path(loaded.root) / "_staging" / "killed", (1, 1))


def test_failing_search_does_not_stop_a_run(loaded: LoadedConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, content: bytes) -> None:
        raise OSError("read-only")

    told: list[str] = []
    workspace = open_workspace(loaded, told.append)
    monkeypatch.setattr(workspace.tables.partitions.fs, "pipe_file", refuse)
    clean_when_due(workspace)
    assert told == ["leftovers were not removed: OSError: read-only"]
