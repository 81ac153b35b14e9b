"""What stays of the log: its days, one part of each, nobody who is forgotten."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.hidden_rows import NOBODY
from dssm_assets.extras.shown.log_folder import list_unreached, on_cleaned, open_log
from dssm_assets.extras.shown.rates_step import online_rates
from dssm_assets.extras.shown.shown_day import shown
from dssm_assets.installed_extras import load_extra
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.shown import shop_log
from dssm_assets_tests.extras.shown.shop_log import answer, write_part
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.worlds import DAYS, start_ms

MARK = "MARK-of-user"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    """Returns a shop of three days, in whose log twenty users have ids that nothing else has."""
    lists = [
        [{**row, "user_id": f"{MARK}-{number % 20}"} if number % 3 == 0 else row for row in rows]
        for number, rows in enumerate(shop_log.random_lists(range(3), seed=3))
    ]
    events = shop_log.random_events(range(3), lists, 4)
    made = shop_log.write_shop(tmp_path, lists, events, 3)
    list(shown(made, DAYS[:3]))
    list(online_rates(made, DAYS[:3]))
    return made


def read_rows(workspace: Workspace) -> list[str]:
    log = open_log(workspace.loaded)
    return sorted(map(str, pa.concat_tables(log.read(log.days(), NOBODY)).to_pylist()))


def test_a_day_that_has_ended_becomes_one_part(workspace: Workspace) -> None:
    log, before = open_log(workspace.loaded), read_rows(workspace)
    assert len(log.parts(log.days())) > 100
    on_cleaned(workspace, 0, removes=True)
    assert len(log.parts(log.days())) == len(log.days())
    assert read_rows(workspace) == before
    digest = workspace.need("shown", DAYS[1]).files
    list(shown(workspace, [DAYS[1]]))
    assert [file.sha256 for file in workspace.need("shown", DAYS[1]).files] == [file.sha256 for file in digest]
    parts = log.parts(log.days())
    on_cleaned(workspace, 0, removes=True)
    assert log.parts(log.days()) == parts, "a clean day stays as it is"


def test_parts_of_two_types_of_ids_stay_two(tmp_path: Path) -> None:
    loaded = worlds.write_config(tmp_path, shop_log.CONFIG)
    for number in range(3):
        write_part(loaded, answer(f"n{number}", number, [1], start_ms(0) + number))
        write_part(loaded, answer(f"t{number}", f"u{number}", ["1"], start_ms(0) + number))
    on_cleaned(open_workspace(loaded), 0, removes=True)
    log = open_log(loaded)
    types = [str(pq.read_schema(path).field("user_id").type) for path in log.parts(log.days())]
    assert sorted(types) == ["int64", "string"]


@needs_extras("retention")
def test_nothing_is_left_of_forgotten_users(workspace: Workspace) -> None:
    """In the log, in both assets and in what the rates are made from."""
    home, auditor = Path(workspace.loaded.home), importlib.import_module("dssm_assets_tests.extras.retention.auditor")
    assert {path.split("/")[1] for path in auditor.find_marks(home, [MARK])} >= {"serving", "shown", "behavior_table"}
    lists = {row["user_id"] for row in read_people(workspace)}
    receipt = load_extra("retention", "forget").forget(workspace, pa.array([f"{MARK}-{number}" for number in range(20)]))
    assert receipt.faults == []
    assert auditor.find_marks(home, [MARK]) == {}
    assert {row["user_id"] for row in read_people(workspace)} == {user for user in lists if MARK not in str(user)}
    before = workspace.tables.read(workspace.need("online_rates", DAYS[2])).to_pylist()
    list(shown(workspace, DAYS[:3]))
    list(online_rates(workspace, DAYS[:3]))
    assert auditor.find_marks(home, [MARK]) == {}
    after = workspace.tables.read(workspace.need("online_rates", DAYS[2])).to_pylist()
    assert sum(row["lists"] for row in after) < sum(row["lists"] for row in before)


def read_people(workspace: Workspace) -> list[dict[str, Any]]:
    return [row for ds in DAYS[:3] for row in workspace.tables.read(workspace.need("shown", ds)).to_pylist()]


@needs_extras("retention")
def test_old_days_go_from_the_log_and_the_asset(workspace: Workspace) -> None:
    """Back from the newest day of the log, of UTC."""
    clean, log = load_extra("retention", "leftovers").clean, open_log(workspace.loaded)
    days = log.days()
    settings = workspace.config.serving.shown.model_copy(update={"keep_days": 2})
    short = worlds.changed(workspace, "serving", shown=settings)
    list(clean(short, grace_hours=0, removes=False))
    assert log.days() == days
    list(clean(short, grace_hours=0))
    assert log.days() == days[-2:]
    assert workspace.tables.partitions.days("shown") == DAYS[1:3]
    assert workspace.tables.partitions.days("online_rates") == DAYS[:3]


def test_a_day_of_a_clock_that_jumped_removes_nothing(workspace: Workspace) -> None:
    days = open_log(workspace.loaded).days()
    write_part(workspace.loaded, answer("future", "a0", ["a_00"], start_ms(40_000)))
    settings = workspace.config.serving.shown.model_copy(update={"keep_days": 10})
    on_cleaned(worlds.changed(workspace, "serving", shown=settings), 0, removes=True)
    assert open_log(workspace.loaded).days()[:-1] == days


def test_a_log_that_is_no_longer_configured_is_named(workspace: Workspace) -> None:
    assert list_unreached(workspace) == []
    moved = worlds.changed(workspace, "serving", shown=workspace.config.serving.shown.model_copy(update={"folder": "/other"}))
    off = worlds.changed(workspace, "serving", shown=None)
    for other in (moved, off):
        assert list_unreached(other) == [f"log of shown items {open_log(workspace.loaded).uri}"]
    assert on_cleaned(off, 0, removes=True) == set()
