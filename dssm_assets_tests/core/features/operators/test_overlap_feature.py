"""overlap_feature: every measure by hand, against a plain loop."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.operators.overlap_feature import Method, OverlapFeature

Words = Sequence[str]


def measure(method: str, query: pa.Array, title: pa.Array, **keys: object) -> list[object]:
    definition = {"feature_name": "f", "query": "user:q", "title": "user:t", "method": method, **keys}
    return list(OverlapFeature.model_validate(definition).compute([query, title]).to_pylist())


def measure_texts(method: str, query: str, title: str) -> object:
    """Returns the measure of two texts of terms joined by commas."""
    return measure(method, pa.array([query]), pa.array([title]), separator=",")[0]


def index_of(query: Words, title: Words) -> float:
    return next((i for i in range(len(title)) if list(title[i : i + len(query)]) == list(query)), -1)


def min_cover(query: Words, title: Words) -> float:
    windows = [(i, j) for i in range(len(title)) for j in range(i + 1, len(title) + 1) if set(query) <= set(title[i:j])]
    return min((j - i for i, j in windows), default=0)


def pair_distances(query: Words, title: Words) -> list[float]:
    places = {term: [i for i, other in enumerate(title) if other == term] for term in set(query)}
    pairs = [(places[a], places[b]) for a, b in itertools.combinations(sorted(places), 2) if places[a] and places[b]]
    return [min(abs(i - j) for i in first for j in second) for first, second in pairs]


def folded(fold: Callable[[list[float]], float]) -> Callable[[Words, Words], float]:
    return lambda query, title: fold(pair_distances(query, title) or [len(title) + 1])


PLAIN: dict[str, Callable[[Words, Words], float]] = {
    "query_common_ratio": lambda query, title: sum(term in title for term in query) / len(query),
    "title_common_ratio": lambda query, title: sum(term in query for term in title) / len(title),
    "is_contain": lambda query, title: float(index_of(query, title) >= 0),
    "is_equal": lambda query, title: float(list(query) == list(title)),
    "index_of": index_of,
    "proximity_min_cover": min_cover,
    "proximity_min_dist": folded(min),
    "proximity_max_dist": folded(max),
    "proximity_avg_dist": folded(lambda distances: sum(distances) / len(distances)),
}


@pytest.mark.parametrize("method", list(Method))
@given(st.data())
def test_measures_equal_a_plain_loop(method: str, data: st.DataObject) -> None:
    query_terms = st.lists(st.sampled_from("abcd"), max_size=5)
    rows = data.draw(st.lists(st.tuples(query_terms, st.lists(st.sampled_from("abcdx"), max_size=9)), max_size=12))
    query = pa.array([row[0] for row in rows], pa.list_(pa.string()))
    title = pa.array([row[1] for row in rows], pa.list_(pa.string()))
    expected = [PLAIN[method](query, title) if query and title else 77 for query, title in rows]
    found = measure(method, query, title, default_value="77")
    assert found == pytest.approx(expected, rel=1e-6)
    # The same terms as texts give the same numbers.
    joined = [pa.array(["\x1d".join(row[side]) for row in rows], pa.string()) for side in (0, 1)]
    assert measure(method, *joined, default_value="77") == found


def test_examples_of_the_reference() -> None:
    assert measure_texts("query_common_ratio", "abc,efg", "abc,qwe,rty,uio") == 0.5
    assert measure_texts("title_common_ratio", "abc,efg", "abc,qwe,rty,uio") == 0.25
    assert measure_texts("is_contain", "abc,efg", "abc,efg,rty") == 1
    assert measure_texts("is_equal", "abc,efg", "abc,efg") == 1
    expected = {"is_equal": 0, "is_contain": 1, "index_of": 1, "query_common_ratio": 1, "title_common_ratio": 0.5,
                "proximity_min_dist": 1, "proximity_max_dist": 1, "proximity_avg_dist": 1, "proximity_min_cover": 2}  # fmt: skip
    assert {method: measure_texts(method, "b,c", "a,b,c,d") for method in expected} == expected


@pytest.mark.parametrize("method", list(Method))
def test_side_without_terms_is_missing(method: str) -> None:
    query = pa.array([None, "", "\x1d", "a", "a"])
    title = pa.array(["a", "a", "a", None, "\x1d\x1d"])
    assert measure(method, query, title) == [0] * 5
    assert measure(method, query, title, default_value="7") == [7] * 5
    assert measure(method, query, title, default_value="") == [None] * 5
