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
from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.statistics import value_counts as module
from dssm_assets.core.statistics.value_counts import count_missing, merge_value_counts, sort_by_frequency
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


def test_days_of_different_features_merge() -> None:
    days = [["b", "a"], ["c", "b"], []]
    parts = [pa.table([names, [5] * len(names), [1] * len(names)], schema=CATEGORY_VALUE_COUNTS.schema) for names in days]
    assert rows(merge_value_counts(map(encoded, parts))) == [("a", 5, 1), ("b", 5, 2), ("c", 5, 1)]


def test_merging_in_passes_gives_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [pa.table([["a", "b"], [day, 7], [1, day]], schema=CATEGORY_VALUE_COUNTS.schema) for day in range(1, 9)]
    whole = merge_value_counts(parts)
    monkeypatch.setattr(module, "_COMPACT_ROWS", 1)
    assert merge_value_counts(iter(parts)).equals(whole)
    assert rows(whole) == [*[("a", day, 1) for day in range(1, 9)], ("b", 7, 36)]


def test_frequency_order_breaks_ties_by_hash_with_missing_last() -> None:
    counts = pa.table([["a"] * 4, [5, -5, 1, None], [2, 2, 9, 2]], schema=CATEGORY_VALUE_COUNTS.schema)
    assert rows(sort_by_frequency(counts)) == [("a", 1, 9), ("a", -5, 2), ("a", 5, 2), ("a", None, 2)]


def test_wrong_columns_are_all_named() -> None:
    table = pa.table({"n": [1.0], "c": pa.array([1], pa.int64()), "t": pa.array([1], pa.int64())})
    with pytest.raises(
        SchemaError, match=r"feature m: expected float, got no such column[\s\S]*feature n: expected float, got double"
    ):
        count_numbers(table, SPEC.features)
    with pytest.raises(SchemaError, match="feature t: expected list of int64"):
        count_categories(table, SPEC.features)


INF, NAN = float("inf"), float("nan")
bags = st.one_of(st.none(), st.lists(hashes, max_size=3))
columns = st.one_of(
    st.lists(hashes, max_size=8).map(lambda rows: pa.array(rows, pa.int64())),
    st.lists(st.one_of(st.none(), st.sampled_from([0.0, -0.0, 1.5, NAN, -3.0, INF, -INF])), max_size=8).map(
        lambda rows: pa.array(rows, pa.float32())
    ),
    st.lists(bags, max_size=8).map(lambda rows: pa.array(rows, pa.list_(pa.int64()))),
    st.lists(st.one_of(st.none(), st.lists(bags, max_size=3)), max_size=6).map(
        lambda rows: pa.array(rows, pa.list_(pa.list_(pa.int64())))
    ),
)


def depth_of(kind: pa.DataType) -> int:
    return 1 + depth_of(kind.value_type) if pa.types.is_list(kind) else 0


def values_of(row: Any, depth: int) -> list[Any]:
    """Returns the values of one row, the slow way: an innermost list without any is one missing value."""
    if depth == 0:
        return [None if row is None or math.isnan(row) else row + 0]
    if depth == 1:
        return [value for item in row or [None] for value in values_of(item, 0)]
    return [value for item in row or [] for value in values_of(item, depth - 1)]


@given(columns, st.data())
def test_rows_count_as_often_as_they_are_used(column: pa.Array, data: st.DataObject) -> None:
    uses = data.draw(st.lists(st.integers(1, 3), min_size=len(column), max_size=len(column)))
    depth, is_number = depth_of(column.type), pa.types.is_float32(column.type)
    expression = {"feature_name": "x", "expression": "user:x"}
    kind = {"feature_type": "raw_feature"} if is_number else {"feature_type": "id_feature", "value_dim": 1 if depth == 0 else 0}
    feature = parse_fg({"features": [expression | kind]}).features[0]
    if depth == 2:
        feature = _Nested()  # type: ignore[assignment]
    expected: Counter[Any] = Counter()
    for row, count in zip(column.to_pylist(), uses, strict=True):
        expected.update(values_of(row, depth) * count)
    count_kind = count_numbers if is_number else count_categories
    found = count_kind(pa.table({"x": column}), [feature], np.array(uses, np.int64))
    assert {value: count for _, value, count in rows(found)} == dict(expected)


class _Nested:
    """A feature with a list of lists of categories."""

    name, kind, depth = "x", Kind.CATEGORICAL, 2


def test_samples_without_a_row_have_a_missing_value_of_each_feature() -> None:
    assert rows(count_missing(Kind.NUMERIC, SPEC.features, 3)) == [("n", None, 3), ("m", None, 3)]
    assert rows(count_missing(Kind.CATEGORICAL, SPEC.features, 0)) == []
