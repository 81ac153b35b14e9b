"""Tables of SQLite, PostgreSQL and MariaDB read as files are: days, landing, errors."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import yaml

from dssm_assets.cli import main
from dssm_assets.core.config.pipeline import BehaviorTable
from dssm_assets.core.errors import InputError, PartitionMissingError, SchemaError
from dssm_assets.extras.databases.sql_source import DatabaseSource
from dssm_assets.storage.sources.landing import SourceLanding
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source import SourceMissingError
from dssm_assets.storage.sources.source_files import open_source
from dssm_assets.storage.sources.table_source import TableError
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.databases.servers import Shop
from dssm_assets_tests.programs import needs_extras

URI = "env:SHOP_DB"
SOURCES = ["user_table", "item_table", "behavior_table"]
TEXT = "VARCHAR(40)"
LOG = {"user_id": TEXT, "item_id": TEXT, "event": TEXT, "ts": "BIGINT", "price": "DOUBLE PRECISION", "page": TEXT}
NAMES = {"user": "users", "item": "items", "behavior": "clicks"}
TABLES = {side: {"uri": URI, "format": "sql", "table": name} for side, name in NAMES.items()}


def put_world(shop: Shop) -> None:
    """Makes the tables of the tiny world, the log in an order of its own."""
    log = worlds.log_rows(range(len(worlds.DAYS)))
    random.Random(5).shuffle(log)
    shop.put("clicks", LOG, log)
    shop.put("users", {"user_id": TEXT, "city": TEXT}, worlds.user_rows())
    shop.put("items", {"item_id": TEXT, "category": TEXT, "stock": "BIGINT"}, worlds.item_rows())


def behavior(**config: Any) -> BehaviorTable:
    given = {} if "query" in config else {"table": "clicks"}
    return BehaviorTable(uri=URI, format="sql", constant_event="click", **{**given, **config})


def put_times(shop: Shop, kind: str, times: list[Any]) -> None:
    """Makes the table `clicks` with an item i0, i1, ... for each time, and a column that nobody asks for."""
    rows = [{"user_id": 1, "item_id": f"i{number}", "event_time": time} for number, time in enumerate(times)]
    shop.put("clicks", {"user_id": "BIGINT", "item_id": TEXT, "event_time": kind, "page": TEXT}, rows)


def items_of_day(table: BehaviorTable, day: str, timezone: str = "UTC") -> list[str]:
    ((_, rows),) = read_days(open_source(table, "behavior_table"), [day], timezone=timezone)
    return sorted(rows.column("item_id").to_pylist())


def test_tables_of_a_database_give_the_bytes_of_files(shop: Shop, tmp_path: Path) -> None:
    put_world(shop)
    found = []
    for name, tables in (("files", {}), ("database", TABLES)):
        loaded = worlds.write_world(tmp_path / name, {"tables": tables})
        worlds.run_steps(loaded, SOURCES, worlds.DAYS)
        workspace = worlds.open_workspace(loaded)
        found.append({f"{source}/{ds}": workspace.need(source, ds).digest for source in SOURCES for ds in worlds.DAYS})
    assert found[0] == found[1]
    assert len(found[0]) == 3 * len(worlds.DAYS)


MIDNIGHT = dt.datetime(2026, 3, 2, tzinfo=ZoneInfo("Asia/Shanghai"))
AROUND = [MIDNIGHT + dt.timedelta(seconds=seconds) for seconds in (-1, 0, 86_399, 86_400)]
SECONDS = [round(moment.timestamp()) for moment in AROUND]
WALL = [moment.strftime("%Y-%m-%d %H:%M:%S") for moment in AROUND]
KINDS = {
    "s": ("BIGINT", SECONDS),
    "ms": ("BIGINT", [1000 * second for second in SECONDS]),
    "wall": ("TIMESTAMP", [dt.datetime.fromisoformat(text) for text in WALL]),
    "zone": ("TIMESTAMPTZ", [moment.astimezone(dt.UTC) for moment in AROUND]),
    "date": ("DATE", [moment.date() for moment in AROUND]),
    "text": (TEXT, WALL),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_query", [False, True], ids=["table", "query"])
def test_a_day_reads_its_rows_and_the_wanted_columns_alone(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, kind: str, is_query: bool
) -> None:
    """Of four rows around a day in Shanghai, i1 and i2 are of the day; texts are the only times that are compared here."""
    declared, times = KINDS[kind]
    is_text = kind == "text" or (shop.kind == "sqlite" and kind in ("wall", "zone", "date"))  # SQLite has no type of times
    if is_text:
        declared, times = TEXT, list(map(str, times))
    if shop.kind == "mariadb" and kind == "wall":
        declared = "DATETIME"
    if shop.kind == "mariadb" and kind == "zone":  # the server's zone is +09:00
        declared, times = "TIMESTAMP NULL", [moment.astimezone(ZoneInfo("Asia/Tokyo")).replace(tzinfo=None) for moment in times]
    put_times(shop, declared, times)
    read, found = DatabaseSource.read, list[Any]()

    def keep(self: DatabaseSource, *args: Any) -> Iterator[Any]:
        for block in read(self, *args):
            found.append(block)
            yield block

    monkeypatch.setattr(DatabaseSource, "read", keep)
    table = behavior(query="SELECT * FROM clicks WHERE user_id = 1 -- ours") if is_query else behavior()
    assert items_of_day(table, "2026-03-02", "Asia/Shanghai") == ["i1", "i2"]
    assert sum(block.num_rows for block in found) == (4 if is_text else 2)
    assert {tuple(sorted(block.column_names)) for block in found} == {("event_time", "item_id", "user_id")}


def test_a_row_without_a_time_is_not_passed_over(shop: Shop) -> None:
    put_times(shop, "BIGINT", [*SECONDS, None])
    with pytest.raises(SchemaError, match="a timestamp in every row, got 1 rows without a timestamp"):
        items_of_day(behavior(), "2026-03-02")


@pytest.mark.parametrize("kind", ["DATE", TEXT, "BIGINT"])
def test_the_column_ds_divides_a_table_into_days(shop: Shop, kind: str) -> None:
    days = {
        "DATE": [dt.date(2026, 3, 1), dt.date(2026, 3, 2)],
        TEXT: ["2026-03-01", "20260302", "monday"],
        "BIGINT": [20260301, 20260302],
    }[kind]
    if shop.kind == "sqlite" and kind == "DATE":
        days = list(map(str, days))
    rows = [{"user_id": 1, "item_id": f"i{day}", "event_time": 1_772_400_000, "ds": ds} for day, ds in enumerate(days)]
    shop.put("clicks", {"user_id": "BIGINT", "item_id": TEXT, "event_time": "BIGINT", "ds": kind}, rows)
    table = behavior(layout="ds_folders")
    assert list(open_source(table, "behavior_table").days()) == ["2026-03-01", "2026-03-02"]
    assert items_of_day(table, "2026-03-02") == ["i1"]
    with pytest.raises(PartitionMissingError, match=r"2 from 2026-03-01 to 2026-03-02"):
        items_of_day(table, "2026-03-03")
    landed = SourceLanding(table, name="behavior_table", timezone="UTC")
    assert [landed.landing_of_day(f"2026-03-0{day}").has_landed for day in (1, 2, 3)] == [True, True, False]
    source = open_source(table, "behavior_table")
    (piece,) = source.days()["2026-03-02"]
    before = source.state(piece)
    shop.run("INSERT INTO clicks SELECT * FROM clicks WHERE item_id = 'i1'")
    assert source.state(piece) != before


def test_a_day_has_landed_once_the_log_has_later_rows(shop: Shop) -> None:
    put_times(shop, "BIGINT", SECONDS[:2])
    table = behavior()
    first = SourceLanding(table, name="behavior_table", timezone="Asia/Shanghai")
    assert [first.landing_of_day(day).has_landed for day in ("2026-03-01", "2026-03-02")] == [True, False]
    put_times(shop, "BIGINT", SECONDS)
    later = SourceLanding(table, name="behavior_table", timezone="Asia/Shanghai", before=asdict(first.state))
    assert later.landing_of_day("2026-03-02").has_landed
    assert later.state != first.state


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"table": "click"}, SourceMissingError, r"table behavior_table, env:SHOP_DB, click: .*there are: .*clicks$"),
        ({"query": "SELECT * FROM click"}, SourceMissingError, r"env:SHOP_DB, query: .*there are: .*clicks$"),
        ({"query": "SELEC 1"}, TableError, r"correct tables\.behavior\.table, tables\.behavior\.query"),
    ],
)
def test_a_table_or_query_that_is_wrong_is_one_error(shop: Shop, config: Any, error: type[InputError], message: str) -> None:
    put_times(shop, "BIGINT", [])
    with pytest.raises(error, match=message):
        open_source(behavior(**config), "behavior_table").pieces()


@needs_extras("starter")
def test_init_and_validate_take_tables_of_a_database(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put_world(shop)
    monkeypatch.chdir(tmp_path)
    schema = "public." if shop.kind == "postgres" else ""
    tables = [part for side, name in NAMES.items() for part in (f"--{side}", f"{URI}#{schema}{name}")]
    assert main(["init", *tables, "--timezone", worlds.TIMEZONE, "--out", "out"]) == 0
    written = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text(encoding="utf-8"))["tables"]["behavior"]
    expected = {"uri": URI, "format": "sql", "table": f"{schema}clicks", "layout": "time_column"}
    assert {key: written[key] for key in expected} == expected
    shop.run("DROP TABLE items")
    assert main(["validate", "--config", "out/config.yaml"]) == 1
    shown = capsys.readouterr().out
    assert "720 rows from 2024-01-01 to 2024-01-12" in shown
    assert f"{URI}, {schema}items: expected a table or query that can be read" in shown
