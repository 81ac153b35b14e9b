"""`dssm-assets rollback` on a store of small bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from dssm_assets.cli import build_parser
from dssm_assets.core.errors import PartitionMissingError
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests import worlds


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LoadedConfig:
    loaded = worlds.write_config(tmp_path)
    monkeypatch.setenv("DSSM_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("DSSM_HOME", str(loaded.home))
    return loaded


@pytest.fixture
def ids(loaded: LoadedConfig) -> list[str]:
    store = open_bundles(loaded)
    made = []
    for day in (1, 2, 3):
        with store.staging() as folder:
            (folder / "file").write_text(str(day))
            made.append(store.publish(folder, {"ds": f"2024-01-0{day}"}, keep=9).bundle_id)
    return made


def run(*arguments: str) -> int:
    parsed = build_parser().parse_args(["rollback", *arguments])
    return int(parsed.command(parsed))


def test_rollback_serves_the_previous_bundle(ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"{ids[1]} is served (before: {ids[2]}; previous: {ids[0]})"]
    assert run("--to", ids[2]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [f"{ids[2]} is served (before: {ids[1]}; previous: {ids[1]})"]


def test_list_changes_nothing(ids: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list") == run("--list") == 0
    assert capsys.readouterr().out.splitlines()[:3] == [ids[0], f"{ids[1]}  previous", f"{ids[2]}  served"]


def test_unknown_bundle_is_refused(ids: list[str]) -> None:
    with pytest.raises(PartitionMissingError, match="that is stored, got nothing-of-the-kind"):
        run("--to", "nothing-of-the-kind")


def test_list_without_any_published_bundle_is_refused(loaded: LoadedConfig) -> None:
    for arguments in ((), ("--list",)):
        with pytest.raises(PartitionMissingError, match="a published bundle, got none"):
            run(*arguments)
