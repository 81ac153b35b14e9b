"""A day of the log: its time zone, what callers sent back, ids of another type, parts that come late, who is forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dssm_assets.core.errors import ConfigError, SchemaError
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.run_plan import Wanted, plan_upstream
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.shown import shown_day
from dssm_assets.extras.shown.log_folder import open_log
from dssm_assets.extras.shown.rates_step import online_rates
from dssm_assets.extras.shown.shown_day import shown
from dssm_assets.installed_extras import load_extra
from dssm_assets.steps import source
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.shown import shop_log
from dssm_assets_tests.extras.shown.shop_log import answer, shown_instead, write_part
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.worlds import DAYS, start_ms


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(worlds.write_config(tmp_path, shop_log.CONFIG))


def make(workspace: Workspace, day: int = 0) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Makes a day; returns its rows and its figures."""
    (result,) = shown(workspace, [DAYS[day]])
    return workspace.tables.read(result.manifest).to_pylist(), dict(result.facts)


def test_a_day_is_that_of_the_home(workspace: Workspace) -> None:
    """In Shanghai a day has parts of two UTC days."""
    for number, time_ms in enumerate([start_ms(1) - 1, start_ms(1), start_ms(2) - 1, start_ms(2)]):
        write_part(workspace.loaded, answer(f"r{number}", "a0", ["a_00", "a_01"], time_ms))
    assert open_log(workspace.loaded).days() == DAYS[:2]
    rows, facts = make(workspace, 1)
    assert [(row["request_id"], row["position"], row["item_id"]) for row in rows] == [
        ("r1", 1, "a_00"),
        ("r1", 2, "a_01"),
        ("r2", 1, "a_00"),
        ("r2", 2, "a_01"),
    ]
    assert rows[0]["channels"] == ["vectors"]
    assert (facts["lists"], facts["users"]) == (2, 1)


def test_what_was_shown_takes_the_place_of_the_answer(workspace: Workspace) -> None:
    first, second = (answer(name, "a0", ["a_00", "a_01", "a_02"], start_ms(0) + 5) for name in ("r1", "r2"))
    write_part(workspace.loaded, [*first, *second])
    write_part(workspace.loaded, shown_instead(first, ["a_02", "a_00"]))
    rows, facts = make(workspace)
    assert [(row["request_id"], row["item_id"]) for row in rows] == [
        *(("r1", item) for item in ("a_02", "a_00")),
        *(("r2", item) for item in ("a_00", "a_01", "a_02")),
    ]
    assert {row["variant"] for row in rows} == {"control"}
    assert facts["lists_shown_otherwise"] == 1


def test_a_row_that_two_parts_hold_counts_once(workspace: Workspace) -> None:
    """As after a cleanup that was killed."""
    for _ in range(2):
        write_part(workspace.loaded, answer("r1", "a0", ["a_00"], start_ms(0)))
    assert len(make(workspace)[0]) == 1


def test_a_day_without_parts_is_empty(workspace: Workspace) -> None:
    assert make(workspace)[0] == []


def test_ids_of_another_type_are_counted(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The home has numbers; parts of an older bundle have texts, and 007 is not 7."""
    monkeypatch.setattr(shown_day, "_find_id_types", lambda _: {"user_id": pa.int64(), "item_id": pa.int64()})
    write_part(workspace.loaded, answer("r1", 7, [1, 2], start_ms(0)))
    write_part(workspace.loaded, answer("r2", "007", ["1"], start_ms(0) + 1))
    write_part(workspace.loaded, answer("r3", "8", ["2", "x"], start_ms(0) + 2))
    rows, facts = make(workspace)
    assert [(row["user_id"], row["item_id"]) for row in rows] == [(7, 1), (7, 2), (None, 1), (8, 2)]
    assert (facts["users_of_another_type"], facts["items_of_another_type"]) == (1, 1)


def test_a_file_that_is_no_part_is_named(workspace: Workspace) -> None:
    path = write_part(workspace.loaded, answer("r1", "a0", ["a_00"], start_ms(0)))
    path.with_name("other.parquet").write_bytes(b"PAR1")
    with pytest.raises(SchemaError, match=r"log of shown items, .*other\.parquet"):
        make(workspace)


@needs_extras("retention")
def test_forgotten_users_are_not_read(workspace: Workspace) -> None:
    for user in ("a0", "a1"):
        write_part(workspace.loaded, answer(f"of {user}", user, ["a_00"], start_ms(0)))
    change_list, hidden = load_extra("retention", "forgotten").change_list, workspace.tables.partitions.hidden
    change_list(hidden, lambda known: type(known)(salt=known.salt, hashes=known.adding(pa.array(["a1"])), state="x"))
    assert [row["user_id"] for row in make(workspace)[0]] == ["a0"]


def test_without_the_section_there_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"serving\.shown"):
        open_log(worlds.write_config(tmp_path))


def requested(workspace: Workspace) -> list[str]:
    """Returns the days that the sensor starts."""
    sensor = scene_definitions(Scene(workspace.loaded), Observer()).resolve_sensor_def("shown_sensor")
    with dg.DagsterInstance.ephemeral() as instance, dg.build_sensor_context(instance=instance) as context:
        result = sensor(context)
    assert isinstance(result, dg.SensorResult)
    return [str(run.partition_key) for run in result.run_requests or []]


def test_days_are_made_when_something_is_new(tmp_path: Path) -> None:
    lists = list(shop_log.random_lists([0, 1], seed=1))
    workspace = shop_log.write_shop(tmp_path, lists, shop_log.random_events(range(3), lists, 2), 1)
    assert requested(workspace) == [DAYS[0]], "the second day has no events yet"
    first = make(workspace)[0]
    assert requested(workspace) == [DAYS[0]], "its rates are missing"
    list(online_rates(workspace, [DAYS[0]]))
    assert requested(workspace) == []
    list(source.behavior_table(workspace, [DAYS[1]]))
    assert requested(workspace) == DAYS[:2], "takes may have followed on the second day"
    make(workspace, 1)
    list(online_rates(workspace, DAYS[:2]))
    assert requested(workspace) == []
    write_part(workspace.loaded, answer("late", "a0", ["a_00"], start_ms(0) + 1))
    assert requested(workspace) == [DAYS[0]]
    assert len(make(workspace)[0]) == len(first) + 1
    assert requested(workspace) == DAYS[:2], "the second day's rates count the first one's lists"
    list(online_rates(workspace, DAYS[:2]))
    assert requested(workspace) == []


def test_other_settings_make_the_rates_again(tmp_path: Path) -> None:
    lists = list(shop_log.random_lists([0], seed=1))
    workspace = shop_log.write_shop(tmp_path, lists, shop_log.random_events([0], lists, 2), 1)
    make(workspace)
    list(online_rates(workspace, [DAYS[0]]))
    hours = {"shown": workspace.config.evaluation.shown.model_copy(update={"hours": 1.0})}
    other = worlds.changed(workspace, "evaluation", **hours)
    assert requested(other) == [DAYS[0]]
    for one, expected in ((workspace, []), (other, ["2024-01-01: online_rates"])):
        plan = plan_upstream(Scene(one.loaded), [Wanted(("online_rates",), (DAYS[0],))], is_remaking=False)
        assert [str(run) for run in plan.runs] == expected


def test_equal_rows_have_equal_bytes(workspace: Workspace) -> None:
    paths = [write_part(workspace.loaded, answer(f"r{number}", "a0", ["a_00", "a_01"], start_ms(0))) for number in range(3)]
    (before,) = shown(workspace, [DAYS[0]])
    paths[0].rename(paths[0].with_name("zz.parquet"))
    (after,) = shown(workspace, [DAYS[0]])
    assert [file.sha256 for file in after.manifest.files] == [file.sha256 for file in before.manifest.files]


def test_jobs_make_both_assets(tmp_path: Path) -> None:
    lists = list(shop_log.random_lists([0], seed=1))
    workspace = shop_log.write_shop(tmp_path, lists, shop_log.random_events([0], lists, 2), 1)
    definitions = scene_definitions(Scene(workspace.loaded), Observer(), makes_upstream=False)
    with dg.DagsterInstance.ephemeral() as instance:
        run = definitions.resolve_job_def("online").execute_in_process(partition_key=DAYS[0], instance=instance)
    assert run.success
    metadata = run.asset_materializations_for_node("online_rates")[0].metadata
    assert "takes" in str(metadata["1 day"].value)
    assert workspace.find("online_rates", DAYS[0]) is not None
