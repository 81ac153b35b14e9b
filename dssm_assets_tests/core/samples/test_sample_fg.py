"""The as-of join keeps every row once and the leak check sees every kind of leak."""

from __future__ import annotations

import ibis
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.errors import DuplicateKeyError, SchemaError
from dssm_assets.core.samples.sample_fg import LeakReport, check_join_rows, check_no_leak, join_features


def sample_table(users: list[object], items: list[object]) -> pa.Table:
    count = len(users)
    return pa.table(
        {
            "request_id": pa.nulls(count, pa.string()),
            "user_id": users,
            "item_id": items,
            "event": ["buy"] * count,
            "event_time_ms": list(range(count)),
            "label": pa.array([1] * count, pa.int8()),
            "hour": pa.array([0] * count, pa.int32()),
            "weekday": pa.array([0] * count, pa.int32()),
        }
    )


def users_fg(ids: list[object], **features: list[object]) -> pa.Table:
    return pa.table({"user_id": ids, "feature_date": ["2024-05-01"] * len(ids), **features})


def items_fg(ids: list[object], **features: list[object]) -> pa.Table:
    return pa.table({"item_id": ids, "feature_date": ["2024-05-01"] * len(ids), **features})


def run(sample: pa.Table, users: pa.Table, items: pa.Table) -> pa.Table:
    return ibis.duckdb.connect().to_pyarrow(join_features(*(ibis.memtable(table) for table in (sample, users, items))))


@pytest.mark.parametrize("as_id", [int, str])
def test_known_and_unknown_entities(as_id: type) -> None:
    sample = sample_table([as_id(2), as_id(1), as_id(2)], [as_id(8), as_id(7), as_id(7)])
    joined = run(sample, users_fg([as_id(1), as_id(3)], age=[30.0, 50.0]), items_fg([as_id(7)], tags=[[4, 5]]))
    assert joined.column_names == [*sample.column_names, "user_feature_date", "item_feature_date", "age", "tags"]
    assert joined["event_time_ms"].to_pylist() == [0, 1, 2]
    assert joined["age"].to_pylist() == [None, 30.0, None]
    assert joined["tags"].to_pylist() == [None, [4, 5], [4, 5]]
    assert joined["user_feature_date"].to_pylist() == [None, "2024-05-01", None]
    assert joined["item_feature_date"].to_pylist() == [None, "2024-05-01", "2024-05-01"]


def test_rows_are_in_the_order_of_the_sample_table_whatever_order_they_came_in() -> None:
    sample = sample_table([2, 1, 2], [8, 7, 7])
    sides = (users_fg([2, 1], age=[20.0, 10.0]), items_fg([8, 7]))
    shuffled = run(sample.take([2, 0, 1]), *sides)
    assert shuffled["event_time_ms"].to_pylist() == [0, 1, 2]
    assert shuffled["age"].to_pylist() == [20.0, 10.0, 20.0]
    assert shuffled.equals(run(sample, *sides))


def test_a_feature_of_both_sides_and_one_named_like_a_sample_column_are_refused_together() -> None:
    with pytest.raises(
        SchemaError, match=r"(?s)2 faults.*column city: .* from the user side and from the item side.*column hour"
    ):
        run(sample_table([1], [7]), users_fg([1], city=[1], hour=[2]), items_fg([7], city=[1]))


def test_ids_of_different_types_are_refused_rather_than_cast() -> None:
    with pytest.raises(SchemaError, match="column item_id: expected ids of one type"):
        run(sample_table([1], [7]), users_fg([1]), items_fg(["7"]))


def test_a_feature_table_without_its_date_is_refused() -> None:
    with pytest.raises(SchemaError, match="table item_features_fg, column feature_date"):
        run(sample_table([1], [7]), users_fg([1]), items_fg([7]).drop_columns(["feature_date"]))


def test_a_key_that_comes_twice_shows_in_the_row_count() -> None:
    sample = sample_table([1], [7])
    joined = run(sample, users_fg([1, 1], age=[1.0, 2.0]), items_fg([7]))
    with pytest.raises(DuplicateKeyError, match="expected the 1 rows of sample, got 2 rows"):
        check_join_rows(sample.num_rows, joined.num_rows)
    with pytest.raises(SchemaError, match="got 0 rows"):
        check_join_rows(1, 0)
    check_join_rows(1, 1)


@settings(max_examples=25, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=8),
    users=st.sets(st.integers(0, 4)),
    items=st.sets(st.integers(0, 4)),
)
def test_every_row_comes_once_with_its_own_features(pairs: list[tuple[int, int]], users: set[int], items: set[int]) -> None:
    sample = sample_table([user for user, _ in pairs], [item for _, item in pairs]).cast(sample_table([1], [1]).schema)
    user_fg = users_fg(list(users), u=[user * 10 for user in users]).cast(users_fg([1], u=[1]).schema)
    item_fg = items_fg(list(items), i=[item * 10 for item in items]).cast(items_fg([1], i=[1]).schema)
    joined = run(sample, user_fg, item_fg)
    expected = [(u * 10 if u in users else None, i * 10 if i in items else None) for u, i in pairs]
    assert list(zip(joined["u"].to_pylist(), joined["i"].to_pylist(), strict=True)) == expected


def dated(user: list[str | None], item: list[str | None]) -> pa.Table:
    return pa.table({"user_feature_date": pa.array(user, pa.string()), "item_feature_date": pa.array(item, pa.string())})


CLEAN = dated(["2024-05-01", None, "2024-04-30"], [None, None, "2024-05-01"])


def test_features_of_the_day_before_pass() -> None:
    assert check_no_leak(CLEAN, "2024-05-02") == LeakReport(
        passed=True,
        newest_user_feature_date="2024-05-01",
        newest_item_feature_date="2024-05-01",
        row_count=3,
        leaking_row_count=0,
        unknown_user_count=1,
        unknown_item_count=2,
    )


@pytest.mark.parametrize(
    ("user", "item"), [("2024-05-02", None), (None, "2024-05-02"), ("2024-05-02", "2024-05-03"), ("2024-05-01", "20240502")]
)
def test_one_row_with_features_of_the_day_itself_or_later_fails(user: str | None, item: str | None) -> None:
    report = check_no_leak([CLEAN, dated([user], [item])], "2024-05-02")
    assert (report.passed, report.leaking_row_count, report.row_count) == (False, 1, 4)


def test_batches_give_the_report_of_the_whole_table() -> None:
    table = pa.concat_tables([CLEAN, dated(["2024-06-01"], [None])])
    assert check_no_leak(table.to_batches(max_chunksize=1), "2024-05-02") == check_no_leak(table, "2024-05-02")


def test_an_empty_day_has_no_newest_date() -> None:
    report = check_no_leak(CLEAN.slice(0, 0), "2024-05-02")
    assert (report.passed, report.newest_user_feature_date, report.row_count) == (True, None, 0)


def test_the_day_before_crosses_months_and_leap_days() -> None:
    assert check_no_leak(dated(["2024-02-29"], [None]), "2024-03-01").passed
    assert not check_no_leak(dated(["2023-03-01"], [None]), "2023-03-01").passed


@pytest.mark.parametrize("ds", ["20240502", "2024-5-2", "yesterday"])
def test_a_day_in_another_form_is_refused(ds: str) -> None:
    with pytest.raises(SchemaError, match="expected a day as YYYY-MM-DD"):
        check_no_leak(CLEAN, ds)


def test_dates_that_are_not_text_are_refused() -> None:
    table = pa.table({"user_feature_date": [20240501], "item_feature_date": ["2024-05-01"]})
    with pytest.raises(SchemaError, match="column user_feature_date: expected text, got int64"):
        check_no_leak(table, "2024-05-02")
