"""lookup_feature: hits, combiners, misses, and the categorical form."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.operators.lookup_feature import LookupFeature
from dssm_assets.testing import check_rows
from dssm_assets_tests.core.features import strategies as cases

MAP = pa.array([["a:1", "b:3", "a:2"], ["b:x", "c"], [], None])
KEYS = pa.array([["a", "b"], ["b"], ["a"], ["a"]])
VARIANTS: list[dict[str, object]] = [
    *(
        {"combiner": combiner, "default_value": default}
        for combiner in ("sum", "mean", "min", "max", "count")
        for default in ("", "7")
    ),
    {"need_discrete": True},
    {"need_discrete": True, "value_dim": 1},
    {"combiner": ""},
    {"combiner": "", "default_value": "", "normalizer": "method=log10"},
    {"need_discrete": True, "need_key": True, "default_value": ""},
    {"need_discrete": True, "value_dim": 0},
    {"need_discrete": True, "value_dim": 0, "default_value": ""},
    {"normalizer": "method=log10"},
]


def feature(**keys: object) -> LookupFeature:
    return LookupFeature.model_validate({"feature_name": "f", "map": "user:m", "key": "user:k", **keys})


def values(entries: pa.Array, keys: pa.Array, **options: object) -> list[object]:
    return list(feature(**options).compute([entries, keys]).to_pylist())


@given(
    st.lists(st.tuples(st.one_of(st.none(), st.lists(cases.texts, max_size=5)), cases.texts), max_size=10),
    st.sampled_from(VARIANTS),
)
def test_batch_equals_its_rows(rows: list[tuple[list[str | None] | None, str | None]], options: dict[str, object]) -> None:
    entries = pa.array([row[0] for row in rows], pa.list_(pa.string()))
    keys = pa.array([row[1] for row in rows], pa.string())
    check_rows(feature(**options), entries, keys)


@given(
    st.lists(st.lists(st.tuples(st.sampled_from("abc"), st.integers(-9, 9)), max_size=6), max_size=8), st.sampled_from("abcd")
)
def test_sum_equals_a_plain_loop(rows: list[list[tuple[str, int]]], key: str) -> None:
    entries = pa.array([[f"{name}:{number}" for name, number in row] for row in rows], pa.list_(pa.string()))
    hits = [[number for name, number in row if name == key] for row in rows]
    found = values(entries, pa.array([key] * len(rows), pa.string()), default_value="100")
    assert found == [sum(row) if row else 100 for row in hits]


@pytest.mark.parametrize(("combiner", "expected"), [("sum", 6), ("mean", 2), ("min", 1), ("max", 3), ("count", 3)])
def test_combiners_by_hand(combiner: str, expected: float) -> None:
    assert values(MAP, KEYS, combiner=combiner) == [expected, 0, 0, 0]
    assert values(MAP, KEYS, combiner=combiner, default_value="") == [expected, None, None, None]


def test_category_is_the_texts_of_its_hits() -> None:
    assert values(MAP, KEYS, need_discrete=True) == [["1", "2", "3"], ["x"], ["0"], ["0"]]
    assert values(MAP, KEYS, need_discrete=True, default_value="") == [["1", "2", "3"], ["x"], [], []]
    assert values(MAP, KEYS, need_key=True) == [["a_1", "a_2", "b_3"], ["b_x"], ["0"], ["0"]]
    assert values(MAP, KEYS, hash_bucket_size=9) == values(MAP, KEYS, need_discrete=True)


def test_without_a_combiner_every_hit_keeps_its_number() -> None:
    assert values(MAP, KEYS, combiner="", default_value="7") == [[1, 2, 3], [7], [7], [7]]
    assert values(MAP, KEYS, combiner="", default_value="", normalizer="method=minmax,min=1,max=3") == [[0, 0.5, 1], [], [], []]
