"""Checks of plug-ins: seen in the definitions, passing, failing, blocking; faults of those that belong nowhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dssm_assets.cli import main
from dssm_assets.core.errors import ConfigError
from dssm_assets.definitions import build_definitions, scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.checks import CHECKS
from dssm_assets.steps.workspace import Check
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests import worlds
from dssm_assets_tests.own_project import CHANGES
from dssm_assets_tests.worlds import DAYS

TABLES = ("behavior_table", "user_table", "item_table", "behavior")
NO_JOBS = {"plugins": CHANGES["plugins"]}


def write_log(folder: Path) -> LoadedConfig:
    """Writes two days of the world's log; on the second, user b3 has as many events more as all have together."""
    worlds.write_sources(folder)
    first, second = (worlds.log_rows([day]) for day in (0, 1))
    robot = [{**row, "user_id": "b3"} for row in second]
    worlds.write_rows(folder / "source" / "behavior.parquet", [*first, *second, *robot])
    return worlds.write_config(folder, NO_JOBS)


def run_day(loaded: LoadedConfig, ds: str) -> tuple[set[str], dg.AssetCheckEvaluation]:
    """Materializes the source tables and `behavior` of a day; returns what was made, and what the check said."""
    defs = scene_definitions(Scene(loaded), Observer(), makes_upstream=False)
    keys = [dg.AssetKey(name) for name in TABLES]
    job = defs.resolve_implicit_global_asset_job_def()
    done = job.execute_in_process(asset_selection=keys, partition_key=ds, raise_on_error=False)
    made = {event.asset_key.to_user_string() for event in done.get_asset_materialization_events()}
    (found,) = (check for check in done.get_asset_check_evaluations() if check.check_name == "no_robot")
    return made, found


def test_a_check_of_a_plugin_is_declared_reported_and_blocks(own_project: Path) -> None:
    loaded = write_log(own_project)
    specs = build_definitions(loaded).resolve_assets_def("behavior_table").check_specs
    declared = {spec.name: spec for spec in specs}["no_robot"]
    assert (declared.description, declared.blocking) == ("Every user has less than half of the day's events.", True)
    made, check = run_day(loaded, DAYS[0])
    assert made == set(TABLES) and check.passed
    share = check.metadata["largest_share"].value
    assert isinstance(share, float) and 1 / 12 <= share < 0.2
    made, check = run_day(loaded, DAYS[1])
    assert made == set(TABLES) - {"behavior"} and not check.passed
    assert check.severity == dg.AssetCheckSeverity.ERROR
    assert (check.description or "").startswith(f"{DAYS[1]}: user b3 has 5")


def test_a_check_that_does_not_block_warns(own_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = write_log(own_project)
    monkeypatch.setitem(CHECKS, "no_robot", replace(CHECKS["no_robot"], is_blocking=False))
    made, check = run_day(loaded, DAYS[1])
    assert made == set(TABLES) and not check.passed
    assert check.severity == dg.AssetCheckSeverity.WARN


def test_checks_that_belong_nowhere_are_refused_together(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = write_log(own_project)
    ours = CHECKS["no_robot"]
    for name, asset in (("lost", "hit_rate"), ("has_rows", "behavior_table"), ("no robot", "behavior_table")):
        monkeypatch.setitem(CHECKS, name, replace(ours, asset=asset))
    with pytest.raises(ConfigError) as error:
        build_definitions(loaded)
    assert [(fault.where, fault.got) for fault in error.value.faults] == [
        ("CHECKS, has_rows", "'has_rows'"),
        ("CHECKS, lost", "'hit_rate'"),
        ("CHECKS, no robot", "'no robot'"),
    ]
    assert "total_hit_rate" in error.value.faults[1].expected
    assert main(["validate", "--config", "config.yaml", "--home", str(loaded.home)]) == 1
    assert "CHECKS, lost: expected an asset" in capsys.readouterr().out


@pytest.mark.parametrize("outcome", [True, Check("robots", True, "none")])
def test_a_function_that_returns_no_check_of_its_name_is_named(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, outcome: Any
) -> None:
    message = r"CHECKS, no_robot, its function: expected a Check named 'no_robot', got .*\. To fix: return Check\("
    loaded = write_log(own_project)
    monkeypatch.setitem(CHECKS, "no_robot", replace(CHECKS["no_robot"], function=lambda workspace, result: outcome))
    with pytest.raises(ConfigError, match=message):
        worlds.materialize(loaded, ["behavior_table"], DAYS[:1])
