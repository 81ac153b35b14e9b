"""Positions of ids among values that are asked for again and again."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.evaluation.ids import IdPlaces, positions


def test_by_hand_in_the_order_of_the_values():
    places = IdPlaces(pa.array(["c", "a", "b"]))
    assert places.of(pa.array(["b", "x"])).tolist() == [2, -1]  # fewer than there are values
    assert places.of(pa.array(["a", "x", "c", "a"])).tolist() == [1, -1, 0, 1]  # more
    assert places.of(pa.array([], pa.string())).tolist() == []


def test_among_no_values_there_is_nothing():
    assert IdPlaces(pa.array([], pa.int64())).of(pa.array([3], pa.int64())).tolist() == [-1]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
@given(
    values=st.lists(st.integers(-500, 500), unique=True, max_size=40),
    ids=st.lists(st.integers(-500, 500), max_size=60),
)
def test_few_ids_and_many_are_found_alike(kind, values, ids):
    known, asked = (pa.array(given, pa.int64()).cast(kind) for given in (values, ids))
    places = IdPlaces(pa.chunked_array([known.slice(0, len(known) // 2), known.slice(len(known) // 2)]))
    expected = positions(asked, known).tolist()
    assert places.of(asked).tolist() == expected
    one_by_one = [places.of(asked.slice(place, 1)).tolist() for place in range(len(asked))]
    assert [place for (place,) in one_by_one] == expected
