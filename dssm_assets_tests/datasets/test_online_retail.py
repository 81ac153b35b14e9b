"""Online Retail without postage, the slice that tests run on, and the slice's way through reader and normalisation."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

import dssm_assets_tests.fixtures.online_retail as fixture
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.config.pipeline import BehaviorTable, Events
from dssm_assets.core.sources.canonical_tables import ITEM_TABLE, USER_TABLE
from dssm_assets.core.sources.normalise import count_unknown_ids, normalise_behavior, normalise_entities
from dssm_assets.datasets.complete_journey import SourceTables, write_tables
from dssm_assets.storage.sources.reader import read_days
from dssm_assets.storage.sources.source import open_source
from dssm_assets_tests.datasets.online_retail import load
from dssm_assets_tests.fixtures.online_retail.cut import cut

SLICE = Path(fixture.__file__).parent


def full(folder: Path) -> Path:
    """A full copy in small: user 1 acts on one day of the slice, user 2 on none, item 9 is postage."""
    day = int(dt.datetime(2011, 11, 1, 12, tzinfo=dt.UTC).timestamp())
    behavior = {
        "user_id": [1, 1, 2],
        "item_id": [5, 9, 6],
        "event": ["buy", "buy", "cancel"],
        "event_time": [day, day, day - 90 * 86_400],
        "quantity": [2, 1, 1],
        "unit_price": [0.5, 3.0, 1.0],
    }
    items = {
        "item_id": [9, 6, 5],
        "stock_code": ["POST", "b", "a"],
        "description": ["POSTAGE", "BOX", "BAG"],
        "unit_price": [3.0, 1.0, 0.5],
        "is_product": [False, True, True],
    }
    users = {"user_id": [2, 1], "country": ["France", "Spain"], "first_event_time": [0, 0]}
    write_tables(SourceTables(pa.table(users), pa.table(items), pa.table(behavior)), folder)
    return folder


def test_load_drops_non_products_and_their_events(tmp_path: Path) -> None:
    tables = load(full(tmp_path))
    assert tables.items.column("item_id").to_pylist() == [5, 6]
    assert "is_product" not in tables.items.column_names
    assert tables.behavior.column("item_id").to_pylist() == [6, 5]
    assert tables.users.column("user_id").to_pylist() == [1, 2]


def test_the_cut_keeps_active_users_and_their_products(tmp_path: Path) -> None:
    cut(full(tmp_path / "full"), tmp_path / "slice")
    users, items, behavior = (pq.read_table(tmp_path / "slice" / f"{name}.parquet") for name in ("users", "items", "behavior"))
    assert users.to_pydict() == {"user_id": [1], "country": ["Spain"]}
    assert items.column("description").to_pylist() == ["BAG"]
    assert behavior.select(["user_id", "item_id", "event", "quantity"]).to_pylist() == [
        {"user_id": 1, "item_id": 5, "event": "buy", "quantity": 2}
    ]


def test_the_committed_slice_is_a_source() -> None:
    config = BehaviorTable(uri=str(SLICE / "behavior.parquet"), value_columns=["quantity", "unit_price"], allow_empty_days=True)
    events = Events(funnel=["buy", "cancel"], positive=["buy"])
    users = normalise_entities(pq.read_table(SLICE / "users.parquet"), USER_TABLE).table
    items = normalise_entities(pq.read_table(SLICE / "items.parquet"), ITEM_TABLE).table
    days = [(dt.date(2011, 10, 25) + dt.timedelta(days=number)).isoformat() for number in range(45)]
    known = IdIndex(users.column("user_id")), IdIndex(items.column("item_id"))
    counts = {}
    for day, raw in read_days(open_source(config, "behavior_table"), days):
        table, found = normalise_behavior(raw, config, events, timezone="UTC", day=day)
        assert found["rows_on_other_days"] == 0
        assert sum(count_unknown_ids(table, *known).values()) == 0
        counts[day] = (found["buy_rows"], found["cancel_rows"])
    assert (users.num_rows, items.num_rows) == (250, 2_447)
    assert (sum(buy for buy, _ in counts.values()), sum(cancel for _, cancel in counts.values())) == (30_129, 598)
    closed = [day for day, (buy, _) in counts.items() if buy == 0]
    assert [dt.date.fromisoformat(day).weekday() for day in closed] == [5] * 6
    assert pc.max(items.column("item_id")).as_py() <= 3_684
