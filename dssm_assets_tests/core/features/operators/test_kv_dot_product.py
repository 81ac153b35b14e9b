"""kv_dot_product: examples of the reference, keys without weights, entries left out, empty sides."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.operators.kv_dot_product import KvDotProduct

MAP = pa.map_(pa.string(), pa.float64())
ENTRIES = st.lists(st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.integers(-9, 9))), max_size=5)


def values(query: pa.Array, document: pa.Array, **keys: object) -> list[object]:
    feature = KvDotProduct.model_validate({"feature_name": "f", "query": "user:q", "document": "user:d", **keys})
    return list(feature.compute([query, document]).to_pylist())


@given(st.lists(st.tuples(ENTRIES, ENTRIES), max_size=8), st.booleans())
def test_products_equal_a_plain_loop(rows: list[tuple[list[tuple[str, int | None]], ...]], is_text: bool) -> None:
    def column(side: int) -> pa.Array:
        texts = [[key if weight is None else f"{key}:{weight}" for key, weight in row[side]] for row in rows]
        return pa.array(["|".join(row) for row in texts], pa.string()) if is_text else pa.array(texts, pa.list_(pa.string()))

    expected = [
        sum((1 if a is None else a) * (1 if b is None else b) for key, a in query for other, b in document if key == other)
        if query and document
        else 100
        for query, document in rows
    ]
    assert values(column(0), column(1), separator="|", default_value="100") == expected


def test_examples_of_the_reference() -> None:
    assert values(pa.array(["a:0.5|b:0.5"]), pa.array(["d:0.5|b:0.5"]), separator="|") == [0.25]
    assert values(pa.array([["a", "b", "c"]]), pa.array([["a", "b", "d"]])) == [2]
    assert values(pa.array([["a", "b", "c"]]), pa.array([[("a", 0.5), ("b", 0.5)]], MAP)) == [1]


def test_empty_side_is_missing_and_no_common_key_is_zero() -> None:
    query = pa.array([["a:2"], ["a:2"], [], None, ["a:x"], ["a:2"]])
    document = pa.array([["a:3"], ["b:3"], ["a:3"], ["a:3"], ["a:3"], [":3"]])
    assert values(query, document, default_value="7") == [6, 0, 7, 7, 7, 7]
    assert values(query, document, default_value="") == [6, 0, None, None, None, None]


def test_product_beyond_float32_is_missing() -> None:
    assert values(pa.array(["a:1e300"]), pa.array(["a:1e300"]), default_value="7") == [7]
    both = pa.array([["a:1e308", "a:1e308", "a:-1e308", "a:-1e308"]])
    assert values(both, pa.array(["a:10"]), default_value="7") == [7]
