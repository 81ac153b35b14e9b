"""Value counts: what is counted, and that merging days equals counting all samples at once."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.statistics import value_counts as module
from dssm_assets.core.statistics.value_counts import (
    CATEGORY_COUNTS,
    ONCE,
    CodedValues,
    Uses,
    cast_counts,
    code_columns,
    count_values,
    merge_value_counts,
    sort_by_frequency,
)
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers

SPEC = parse_fg(
    {
        "features": [
            {"feature_type": "raw_feature", "feature_name": "n", "expression": "user:n"},
            {"feature_type": "raw_feature", "feature_name": "m", "expression": "item:m"},
            {"feature_type": "id_feature", "feature_name": "c", "expression": "user:c", "value_dim": 1, "embedding_name": "e"},
            {"feature_type": "id_feature", "feature_name": "t", "expression": "item:t", "value_dim": 0, "embedding_name": "e"},
        ]
    }
)
SCHEMA = pa.schema([("n", pa.float32()), ("m", pa.float32()), ("c", pa.int64()), ("t", pa.list_(pa.int64()))])
numbers = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, float("nan"), -3.0]))
hashes = st.one_of(st.none(), st.sampled_from([-(2**63), -1, 0, 5, 2**63 - 1]))
samples = st.lists(
    st.fixed_dictionaries({"n": numbers, "m": numbers, "c": hashes, "t": st.one_of(st.none(), st.lists(hashes, max_size=3))}),
    max_size=12,
).map(lambda rows: pa.Table.from_pylist(rows, schema=SCHEMA))


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


def test_numbers_by_hand() -> None:
    table = pa.Table.from_pylist(
        [{"n": 1.5}, {"n": None, "m": -0.0}, {"n": float("nan"), "m": 0.0}, {"n": 1.5, "m": -1.0}], schema=SCHEMA
    )
    assert rows(count_numbers(table, SPEC.features)) == [
        ("m", -1, 1),
        ("m", 0, 2),
        ("m", None, 1),
        ("n", 1.5, 2),
        ("n", None, 2),
    ]


def test_categories_by_hand() -> None:
    table = pa.Table.from_pylist(
        [{"c": 9, "t": [1, 1, 2]}, {"c": None, "t": []}, {"c": 9, "t": None}, {"c": -9, "t": [None]}], schema=SCHEMA
    )
    found = rows(count_categories(table, SPEC.features))
    assert found == [("c", -9, 1), ("c", 9, 2), ("c", None, 1), ("t", 1, 2), ("t", 2, 1), ("t", None, 3)]


@given(st.lists(samples, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_merged_days_equal_counting_from_scratch(days: list[pa.Table], random: Any) -> None:
    for count in (count_numbers, count_categories):
        parts = [count(day, SPEC.features) for day in days]
        scratch = count(pa.concat_tables(days), SPEC.features)
        assert merge_value_counts(parts).equals(scratch)
        random.shuffle(parts)
        assert merge_value_counts([merge_value_counts(parts[:1]), *parts[1:]]).equals(scratch)


def encoded(counts: pa.Table) -> pa.Table:
    return counts.set_column(0, "feature", counts.column("feature").dictionary_encode())


@given(st.lists(st.tuples(samples, st.booleans()), min_size=1, max_size=5))
def test_dictionary_encoded_features_merge_to_the_same_counts(days: list[tuple[pa.Table, bool]]) -> None:
    for count in (count_numbers, count_categories):
        plain = [count(day, SPEC.features) for day, _ in days]
        mixed = [encoded(part) if is_encoded else part for part, (_, is_encoded) in zip(plain, days, strict=True)]
        assert merge_value_counts(mixed).equals(merge_value_counts(plain))
        assert cast_counts(encoded(plain[0]), [plain[0].schema]).equals(plain[0])


def test_days_of_different_features_merge() -> None:
    days = [["b", "a"], ["c", "b"], []]
    parts = [pa.table([names, [5] * len(names), [1] * len(names)], schema=CATEGORY_COUNTS) for names in days]
    assert rows(merge_value_counts(map(encoded, parts))) == [("a", 5, 1), ("b", 5, 2), ("c", 5, 1)]


def test_merging_in_passes_gives_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [pa.table([["a", "b"], [day, 7], [1, day]], schema=CATEGORY_COUNTS) for day in range(1, 9)]
    whole = merge_value_counts(parts)
    monkeypatch.setattr(module, "_COMPACT_ROWS", 1)
    assert merge_value_counts(iter(parts)).equals(whole)
    assert rows(whole) == [*[("a", day, 1) for day in range(1, 9)], ("b", 7, 36)]


def test_frequency_order_breaks_ties_by_hash_with_missing_last() -> None:
    counts = pa.table([["a"] * 4, [5, -5, 1, None], [2, 2, 9, 2]], schema=CATEGORY_COUNTS)
    assert rows(sort_by_frequency(counts)) == [("a", 1, 9), ("a", -5, 2), ("a", 5, 2), ("a", None, 2)]


def test_wrong_columns_are_all_named() -> None:
    table = pa.table({"n": [1.0], "c": pa.array([1], pa.int64()), "t": pa.array([1], pa.int64())})
    with pytest.raises(
        SchemaError, match=r"feature m: expected float, got no such column[\s\S]*feature n: expected float, got double"
    ):
        count_numbers(table, SPEC.features)
    with pytest.raises(SchemaError, match="feature t: expected list of int64"):
        count_categories(table, SPEC.features)


def test_merging_no_tables_or_mixed_kinds_is_refused() -> None:
    with pytest.raises(SchemaError, match="at least one table"):
        merge_value_counts([])
    empty = SCHEMA.empty_table()
    with pytest.raises(SchemaError, match="one kind"):
        merge_value_counts([count_numbers(empty, SPEC.features), count_categories(empty, SPEC.features)])


@given(
    st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.lists(st.integers(0, 2), max_size=2))), max_size=6),
    st.integers(0, 3),
)
def test_counting_rows_as_often_as_they_are_used_equals_counting_copies(
    entities: list[tuple[int, list[int] | None]], without: int
) -> None:
    """Rows that samples point to, against samples that carry copies of them, and empty rows for unknown ones."""
    uses = np.array([count for count, _ in entities], np.int64)
    bags = [bag for _, bag in entities]
    table = pa.table({"n": pa.array(range(len(bags)), pa.float32()), "m": pa.array([1.0] * len(bags), pa.float32()),
                      "c": pa.array([len(bag or []) for bag in bags], pa.int64()), "t": pa.array(bags, pa.list_(pa.int64()))})  # fmt: skip
    copies = table.take(pa.array(np.repeat(np.arange(len(bags)), uses)))
    missing_rows = pa.Table.from_pylist([{}] * without, schema=table.schema)
    copies = pa.concat_tables([copies, missing_rows])
    for kind, count in ((Kind.NUMERIC, count_numbers), (Kind.CATEGORICAL, count_categories)):
        expected = count(copies, SPEC.features)
        assert count(table, SPEC.features, Uses(uses, without)).equals(expected)
        chosen = [feature for feature in SPEC.features if feature.kind is kind]
        assert count_values(kind, [(code_columns(table, chosen), chosen, Uses(uses, without))]).equals(expected)


uses_of_days = st.lists(st.tuples(samples, st.data(), st.integers(0, 2)), min_size=1, max_size=4)


@given(uses_of_days)
def test_days_counted_together_equal_days_counted_alone(days: list[tuple[pa.Table, Any, int]]) -> None:
    """Of each day the users' columns are used once a row, the items' as often as is drawn, and some samples have no item."""
    users, items = [SPEC.features[0], SPEC.features[2]], [SPEC.features[1], SPEC.features[3]]
    groups = []
    for table, data, without in days:
        counts = data.draw(st.lists(st.integers(0, 3), min_size=table.num_rows, max_size=table.num_rows))
        uses = Uses(np.array(counts, np.int64), without)
        groups.append([(table.select(["n", "c"]), users, ONCE), (table.select(["m", "t"]), items, uses)])
    for kind in (Kind.NUMERIC, Kind.CATEGORICAL):
        together = module.count_days(kind, groups)
        alone = [count_values(kind, group) for group in groups]
        assert [rows(table) for table in together] == [rows(table) for table in alone]
        assert all(table.schema == other.schema for table, other in zip(together, alone, strict=True))


def test_days_counted_together_by_hand() -> None:
    first = pa.Table.from_pylist([{"n": 2.0}, {"n": 1.0}, {"n": 2.0}], schema=SCHEMA)
    second = pa.Table.from_pylist([{"n": 1.0}], schema=SCHEMA)
    one = [SPEC.features[0]]
    days = [[(first, one, ONCE)], [(second, one, Uses(np.array([0]), 2))], [(second, one, Uses(np.array([4]), 0))]]
    counted = module.count_days(Kind.NUMERIC, days)
    assert [rows(table) for table in counted] == [[("n", 1.0, 1), ("n", 2.0, 2)], [("n", None, 2)], [("n", 1.0, 4)]]


def test_columns_that_cannot_be_counted_are_not_coded() -> None:
    with pytest.raises(SchemaError, match=r"feature n: expected float, got double"):
        code_columns(pa.table({"n": [1.0]}), SPEC.features[:1])


INF, NAN = float("inf"), float("nan")
numbers_coded_values = st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, NAN, -3.0, INF, -INF]))
bags = st.one_of(st.none(), st.lists(hashes, max_size=3))
columns = st.one_of(
    st.lists(hashes, max_size=8).map(lambda rows: pa.array(rows, pa.int64())),
    st.lists(numbers_coded_values, max_size=8).map(lambda rows: pa.array(rows, pa.float32())),
    st.lists(bags, max_size=8).map(lambda rows: pa.array(rows, pa.list_(pa.int64()))),
    st.lists(st.one_of(st.none(), st.lists(bags, max_size=3)), max_size=6).map(
        lambda rows: pa.array(rows, pa.list_(pa.list_(pa.int64())))
    ),
)


def count_column(column: Any, uses: Uses = ONCE) -> list[tuple[Any, int]]:
    values, counts = CodedValues.from_column(column).count(uses)
    return list(zip(values.to_pylist(), counts.tolist(), strict=True))


def values_of(row: Any, depth: int) -> list[Any]:
    """Returns the values of one row, the slow way: an innermost list without any is one missing value."""
    if depth == 0:
        return [None if row is None or math.isnan(row) else row + 0]
    if depth == 1:
        return [value for item in row or [None] for value in values_of(item, 0)]
    return [value for item in row or [] for value in values_of(item, depth - 1)]


def depth_of(kind: pa.DataType) -> int:
    return 1 + depth_of(kind.value_type) if pa.types.is_list(kind) else 0


def test_coded_values_by_hand() -> None:
    assert count_column(pa.array([7, None, -2, 7], pa.int64())) == [(-2, 1), (7, 2), (None, 1)]
    assert count_column(pa.array([0.5, NAN, -0.0, 0.0, None], pa.float32())) == [(0.0, 2), (0.5, 1), (None, 2)]
    assert count_column(pa.array([[3, 3], [], None, [None, 1]], pa.list_(pa.int64()))) == [(1, 1), (3, 2), (None, 3)]


def test_rows_count_as_often_as_they_are_used() -> None:
    uses = Uses(np.array([2, 0, 5]), without=4)
    assert count_column(pa.array([9, 8, None], pa.int64()), uses) == [(9, 2), (None, 9)]
    # Row 0 has 1 and 2, row 1 is not used, row 2 has nothing.
    assert count_column(pa.array([[1, 2], [3], []], pa.list_(pa.int64())), uses) == [(1, 2), (2, 2), (None, 9)]
    assert Uses(np.array([0, 3, 0, 1])).used[0].tolist() == [1, 3]  # type: ignore[index]


def test_counts_of_no_used_rows_and_of_no_rows() -> None:
    assert count_column(pa.array([9], pa.int64()), Uses(np.array([0]))) == []
    assert count_column(pa.array([], pa.list_(pa.int64())), Uses(np.zeros(0, np.int64), without=2)) == [(None, 2)]
    assert count_column(pa.chunked_array([], pa.float32())) == []


@pytest.mark.parametrize("count", [255, 256, 257, 65_536])
def test_codes_have_the_narrowest_type_for_the_number_of_values(count: int) -> None:
    coded = CodedValues.from_column(pa.array([*range(count), None], pa.int64()))
    assert coded.codes.dtype == (np.uint8 if count == 255 else np.uint16 if count < 65_536 else np.uint32)
    assert coded.codes.tolist() == list(range(count + 1))


@given(columns, st.data())
def test_coded_counts_equal_counting_row_by_row(column: pa.Array, data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(0, 3), min_size=len(column), max_size=len(column)))
    without = data.draw(st.integers(0, 2))
    expected: Counter[Any] = Counter({None: without})
    for row, count in zip(column.to_pylist(), counts, strict=True):
        expected.update(values_of(row, depth_of(column.type)) * count)
    found = count_column(column, Uses(np.array(counts, np.int64), without))
    assert dict(found) == {value: count for value, count in expected.items() if count}
    present = [value for value, _ in found if value is not None]
    assert present == sorted(present)
    assert None not in [value for value, _ in found[:-1]]
