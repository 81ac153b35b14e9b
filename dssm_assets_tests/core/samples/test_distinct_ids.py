"""Ids that are looked up by their distinct values are found where each of them would be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.distinct_ids import rows_of
from dssm_assets.core.samples.id_index import IdIndex

texts = st.sampled_from(["", "a", "b", "ab", "é", "x" * 40, "c", "d"])


@given(st.lists(texts, unique=True), st.lists(st.lists(texts, max_size=6), max_size=4))
def test_equals_looking_every_id_up(ids: list[str], chunks: list[list[str]]) -> None:
    index = IdIndex(pa.array(ids, pa.string()))
    plain = pa.chunked_array(chunks, pa.string())
    encoded = pa.chunked_array(
        [pa.array(chunk, pa.string()).dictionary_encode() for chunk in chunks], pa.dictionary(pa.int32(), pa.string())
    )
    found = rows_of(index, encoded, where="w")
    assert found.dtype == np.int32
    assert found.tolist() == index.lookup(plain).tolist()
    assert rows_of(index, plain, where="w").tolist() == found.tolist()
    for chunk in encoded.chunks:
        assert rows_of(index, chunk, where="w").tolist() == index.lookup(chunk.cast(pa.string())).tolist()


def test_few_ids_are_searched_among_many_and_many_among_few() -> None:
    many, few = [f"i{number}" for number in range(50)], ["i7", "none", "i3"]
    encoded = pa.array([*few, "i7"]).dictionary_encode()
    assert rows_of(IdIndex(pa.array(many)), encoded, where="w").tolist() == [7, -1, 3, 7]
    found = rows_of(IdIndex(pa.array(few)), pa.array(many).dictionary_encode(), where="w")
    assert [(row, place) for place, row in enumerate(found.tolist()) if row >= 0] == [(2, 3), (0, 7)]


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"]], ids=["few", "many"])
def test_a_null_of_the_dictionary_is_as_good_as_a_null_index(ids: list[str]) -> None:
    nulls = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array(["a", None]))
    with pytest.raises(SchemaError, match="column item_id: expected no null ids, got 1 nulls in 3 rows"):
        rows_of(IdIndex(pa.array(ids)), nulls, where="table sample, column item_id")
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["a", None]))
    assert rows_of(IdIndex(pa.array(ids)), unused, where="w").tolist() == [0, 0]


def test_integers_are_looked_up_as_ever() -> None:
    index = IdIndex(pa.array([30, 10]))
    assert rows_of(index, pa.chunked_array([[10], [5, 30]]), where="w").tolist() == [1, -1, 0]
    assert rows_of(index, pa.array([10, 10, 30]).dictionary_encode(), where="w").tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array(["a", None]), "column item_id: expected no null ids, got 1 nulls in 2 rows"),
        (pa.array([1]), "column item_id: expected string, the type of ids, got int64"),
        (pa.array([1.5]), "column item_id: expected an integer or a string, got double"),
    ],
)
def test_what_is_no_id_of_the_index_is_refused(ids: Any, message: str) -> None:
    for column in (ids, ids.dictionary_encode()):
        for index in (IdIndex(pa.array(["a"])), IdIndex(pa.array(["a", "b", "c"]))):
            with pytest.raises(SchemaError, match=message):
                rows_of(index, column, where="table sample, column item_id")
