"""The as-of lookup keeps every sample and points to its own features; the leak check finds every kind of leak."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import DuplicateKeyError, SchemaError
from dssm_assets.core.samples.sample_fg import (
    FeatureRows,
    add_feature_rows,
    check_no_leak,
    combine_leak_reports,
    count_uses,
)
from dssm_assets_tests.core.samples.worlds import sample_table
from dssm_assets_tests.wide_samples import widen


def users_fg(ids: list[object], **features: list[object]) -> pa.Table:
    return pa.table({"user_id": ids, "feature_date": ["2024-05-01"] * len(ids), **features})


def items_fg(ids: list[object], **features: list[object]) -> pa.Table:
    return pa.table({"item_id": ids, "feature_date": ["2024-05-01"] * len(ids), **features})


def encoded(table: pa.Table, *names: str) -> pa.Table:
    for name in names:
        table = table.set_column(table.column_names.index(name), name, table.column(name).dictionary_encode())
    return table


def run(sample: pa.Table, users: pa.Table, items: pa.Table, **context: list[object]) -> pa.Table:
    rows = FeatureRows(users, "user_id", "table user_features_fg"), FeatureRows(items, "item_id", "table item_features_fg")
    return add_feature_rows(sample, *rows, pa.table(context) if context else sample.select([]))


@pytest.mark.parametrize("as_id", [int, str])
def test_known_and_unknown_entities(as_id: type) -> None:
    sample = sample_table([as_id(2), as_id(1), as_id(2)], [as_id(8), as_id(7), as_id(7)])
    users, items = users_fg([as_id(3), as_id(1)], age=[50.0, 30.0]), items_fg([as_id(7)], tags=[[4, 5]])
    placed = run(sample, users, items, request_hour=[5, 6, 7])
    dates = ["user_feature_date", "item_feature_date"]
    assert placed.column_names == [*sample.column_names, *dates, "user_row", "item_row", "request_hour"]
    assert placed["user_row"].to_pylist() == [None, 1, None]
    assert placed["item_row"].to_pylist() == [None, 0, 0]
    assert placed["user_feature_date"].to_pylist() == [None, "2024-05-01", None]
    assert placed["item_feature_date"].to_pylist() == [None, "2024-05-01", "2024-05-01"]
    wide = widen(placed, users, items)
    assert wide.column_names == [*sample.column_names, *dates, "request_hour", "age", "tags"]
    assert wide["age"].to_pylist() == [None, 30.0, None]
    assert wide["tags"].to_pylist() == [None, [4, 5], [4, 5]]


def test_dictionary_encoded_ids_and_dates_give_the_same() -> None:
    sample = sample_table(["u2", "u1", "u2"], ["i8", "i7", "i7"])
    dates = pa.chunked_array([["2024-04-30"], ["2024-05-01"]])
    users = pa.table({"user_id": ["u3", "u1"], "feature_date": dates})
    items = items_fg(["i7"])
    expected = run(sample, users, items)
    found = run(encoded(sample, "user_id", "item_id", "event"), encoded(users, "feature_date"), items)
    assert found.to_pylist() == expected.to_pylist()
    assert found["user_feature_date"].to_pylist() == [None, "2024-05-01", None]
    assert check_no_leak(found, "2024-05-02") == check_no_leak(expected, "2024-05-02")


def test_columns_from_two_sources_are_refused() -> None:
    with pytest.raises(SchemaError, match=r"column hour: .* from the sample and from context features"):
        run(sample_table([1], [7]), users_fg([1]), items_fg([7]), hour=[2])
    users, items = users_fg([1], city=[1]), items_fg([7], city=[1])
    with pytest.raises(SchemaError, match=r"column city: .* from the user side and from the item side"):
        widen(run(sample_table([1], [7]), users, items), users, items)


def test_a_feature_table_with_a_user_twice_is_refused() -> None:
    with pytest.raises(DuplicateKeyError, match="table user_features_fg, column user_id"):
        run(sample_table([1], [7]), users_fg([1, 1]), items_fg([7]))


@settings(max_examples=25)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8),
    users=st.sets(st.integers(0, 4)),
    items=st.sets(st.integers(0, 4)),
)
def test_every_sample_gets_its_own_features(pairs: list[tuple[int, int]], users: set[int], items: set[int]) -> None:
    sample = sample_table([user for user, _ in pairs], [item for _, item in pairs]).cast(sample_table([1], [1]).schema)
    user_fg = users_fg(list(users), u=[user * 10 for user in users]).cast(users_fg([1], u=[1]).schema)
    item_fg = items_fg(list(items), i=[item * 10 for item in items]).cast(items_fg([1], i=[1]).schema)
    wide = widen(run(sample, user_fg, item_fg), user_fg, item_fg)
    expected = [(u * 10 if u in users else None, i * 10 if i in items else None) for u, i in pairs]
    assert list(zip(wide["u"].to_pylist(), wide["i"].to_pylist(), strict=True)) == expected


def dated(user: list[str | None], item: list[str | None]) -> pa.Table:
    return pa.table({"user_feature_date": pa.array(user, pa.string()), "item_feature_date": pa.array(item, pa.string())})


DATES = st.sampled_from([None, "2024-04-30", "2024-05-01", "2024-05-02", "2024-06-01"])


@given(
    st.lists(st.tuples(DATES, DATES), max_size=6),
    st.sampled_from([pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())]),
    st.booleans(),
)
def test_leak_report_equals_a_loop_for_every_column_type(
    rows: list[tuple[str | None, str | None]], kind: pa.DataType, is_cut: bool
) -> None:
    table = dated([user for user, _ in rows], [item for _, item in rows])
    table = table.cast(pa.schema([(name, kind) for name in table.column_names]))
    parts = [table.slice(start, 2) for start in range(0, max(len(rows), 1), 2)] if is_cut else [table]
    report = combine_leak_reports(check_no_leak(part, "2024-05-02") for part in parts)
    sides = list(zip(*rows, strict=True)) if rows else [(), ()]
    newest = [max((date for date in side if date is not None), default=None) for side in sides]
    leaking = sum(any(date is not None and date > "2024-05-01" for date in row) for row in rows)
    assert [report.newest_user_feature_date, report.newest_item_feature_date] == newest
    assert (report.row_count, report.leaking_row_count, report.is_passed) == (len(rows), leaking, leaking == 0)
    assert [report.unknown_user_count, report.unknown_item_count] == [side.count(None) for side in sides]


def test_count_uses_by_hand():
    used, counts, without = count_uses(pa.chunked_array([[2, None], [0, 2]], pa.int32()))
    assert (used.tolist(), counts.tolist(), without) == ([0, 2], [1, 2], 1)
