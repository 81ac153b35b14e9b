"""Ids to row numbers, for both kinds of id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays import ids as ids_module
from dssm_assets.core.arrays.ids import IdIndex, SortedIds, comparable_ids, find_positions
from dssm_assets.core.errors import DuplicateKeyError, SchemaError

ANY_IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1), st.lists(st.text(max_size=4), unique=True, min_size=1)
)


def test_rows_are_in_the_order_given() -> None:
    index = IdIndex(pa.array([30, 10, 20]))
    assert index.lookup(pa.array([10, 99, 30, 10])).tolist() == [1, -1, 0, 1]
    assert (len(index), index.ids.to_pylist()) == (3, [30, 10, 20])


@given(ids=ANY_IDS, data=st.data())
def test_equals_a_dictionary(ids: list[int] | list[str], data: st.DataObject) -> None:
    known: list[object] = data.draw(st.lists(st.sampled_from(ids)))
    strange = ["no such id"] if isinstance(ids[0], str) else [2**62 + 12345]
    wanted = [*known, *strange]
    kind = pa.string() if isinstance(ids[0], str) else pa.int64()
    found = IdIndex(pa.array(ids, kind)).lookup(pa.array(wanted, kind))
    rows = {value: row for row, value in enumerate(ids)}
    assert found.dtype == np.int32
    assert found.tolist() == [rows.get(value, -1) for value in wanted]  # type: ignore[call-overload]


def test_widths_and_chunks_do_not_matter() -> None:
    numbers = IdIndex(pa.chunked_array([pa.array([5], pa.int32()), pa.array([], pa.int32()), pa.array([6], pa.int32())]))
    assert numbers.lookup(pa.chunked_array([[6], [5]], pa.int64())).tolist() == [1, 0]
    texts = IdIndex(pa.array(["a", "b"], pa.large_string()))
    assert texts.lookup(pa.array(["b", ""], pa.string())).tolist() == [1, -1]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_empty_on_either_side(kind: pa.DataType) -> None:
    value = pa.array([1]).cast(kind)
    assert IdIndex(pa.chunked_array([], type=kind)).lookup(value).tolist() == [-1]
    found = IdIndex(value).lookup(pa.chunked_array([], type=kind))
    assert (found.tolist(), found.dtype) == ([], np.int32)


def test_text_among_integers_is_refused() -> None:
    with pytest.raises(SchemaError, match="expected int64, the type of corpus, got string"):
        IdIndex(pa.array([1]), where="corpus").lookup(pa.array(["1"]))


def test_duplicates_are_named() -> None:
    with pytest.raises(DuplicateKeyError, match="2 ids more than once: a, c"):
        IdIndex(pa.array(["c", "a", "c", "b", "a"]))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array([1.0]), "expected an integer or a string, got double"),
        (pa.array([1, None]), "1 nulls in 2 rows"),
        (pa.array([2**63], pa.uint64()), "expected ids that fit int64"),
    ],
)
def test_what_is_no_id_is_refused(ids: pa.Array, message: str) -> None:
    with pytest.raises(SchemaError, match=message):
        comparable_ids(ids, "table t, column user_id")


@given(
    st.lists(st.one_of(st.integers(-9, 9), st.integers(-(2**63), 2**63 - 1), st.integers(2**40, 2**40 + 99)), unique=True),
    st.lists(st.one_of(st.integers(-12, 12), st.integers(-(2**63), 2**63 - 1), st.integers(2**40 - 3, 2**40 + 105))),
)
def test_integers_near_and_far_apart_are_found_by_the_same_rule(ids: list[int], wanted: list[int]) -> None:
    found = IdIndex(pa.array(ids, pa.int64())).lookup(pa.array(wanted, pa.int64()))
    assert found.dtype == np.int32
    assert found.tolist() == [ids.index(number) if number in ids else -1 for number in wanted]


IDS = st.one_of(st.lists(st.integers(-50, 50), unique=True), st.lists(st.text("abé", max_size=3), unique=True))


@given(IDS, st.data())
def test_it_finds_what_the_index_of_any_order_finds(ids: list[int] | list[str], data: st.DataObject) -> None:
    kind = pa.int64() if not ids or isinstance(ids[0], int) else pa.string()
    ascending = sorted(ids, key=lambda one: one.encode() if isinstance(one, str) else one)
    other = st.integers(-60, 60) if kind == pa.int64() else st.text("abcé", max_size=3)
    wanted = pa.array(data.draw(st.lists(other)), kind)
    found = SortedIds(pa.array(ascending, kind)).lookup(wanted)
    assert found.tolist() == IdIndex(pa.array(ascending, kind)).lookup(wanted).tolist()


@pytest.mark.parametrize("ids", [[1, 3, 2], [1, 1], ["b", "a"]])
def test_ids_that_do_not_ascend_are_refused(ids: list[int] | list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids_module, "_BLOCK_ROWS", 1)
    with pytest.raises(SchemaError, match=r"users, .*ids each above the one before it"):
        SortedIds(pa.array(ids), where="users, column user_id")


def test_numbers_among_text_are_refused() -> None:
    with pytest.raises(SchemaError, match="string, the type of users"):
        SortedIds(pa.array(["a"]), where="users").lookup(pa.array([1]))


def test_a_memory_map_is_not_copied() -> None:
    held = np.arange(5, dtype=np.int64)
    ids = SortedIds(pa.chunked_array([pa.Array.from_buffers(pa.int64(), 5, [None, pa.py_buffer(held)])]))
    held[4] = 9  # seen through the index: it looks where the ids lie
    assert ids.lookup(pa.array([9, 4])).tolist() == [4, -1]


texts = st.sampled_from(["", "a", "b", "ab", "é", "x" * 40, "c", "d"])


@given(st.lists(texts, unique=True), st.lists(st.lists(texts, max_size=6), max_size=4))
def test_equals_looking_every_id_up(ids: list[str], chunks: list[list[str]]) -> None:
    index = IdIndex(pa.array(ids, pa.string()))
    plain = pa.chunked_array(chunks, pa.string())
    encoded = pa.chunked_array(
        [pa.array(chunk, pa.string()).dictionary_encode() for chunk in chunks], pa.dictionary(pa.int32(), pa.string())
    )
    found = index.lookup(encoded, where="w")
    assert found.dtype == np.int32
    assert found.tolist() == index.lookup(plain).tolist()
    assert index.lookup(plain, where="w").tolist() == found.tolist()
    for chunk in encoded.chunks:
        assert index.lookup(chunk, where="w").tolist() == index.lookup(chunk.cast(pa.string())).tolist()


def test_few_ids_are_searched_among_many_and_many_among_few() -> None:
    many, few = [f"i{number}" for number in range(50)], ["i7", "none", "i3"]
    encoded = pa.array([*few, "i7"]).dictionary_encode()
    assert IdIndex(pa.array(many)).lookup(encoded, where="w").tolist() == [7, -1, 3, 7]
    found = IdIndex(pa.array(few)).lookup(pa.array(many).dictionary_encode(), where="w")
    assert [(row, place) for place, row in enumerate(found.tolist()) if row >= 0] == [(2, 3), (0, 7)]


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"]], ids=["few", "many"])
def test_a_null_of_the_dictionary_is_as_good_as_a_null_index(ids: list[str]) -> None:
    nulls = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array(["a", None]))
    with pytest.raises(SchemaError, match="column item_id: expected no null ids, got 1 nulls in 3 rows"):
        IdIndex(pa.array(ids)).lookup(nulls, where="table sample, column item_id")
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["a", None]))
    assert IdIndex(pa.array(ids)).lookup(unused, where="w").tolist() == [0, 0]


def test_integers_are_looked_up_as_ever() -> None:
    index = IdIndex(pa.array([30, 10]))
    assert index.lookup(pa.chunked_array([[10], [5, 30]]), where="w").tolist() == [1, -1, 0]
    assert index.lookup(pa.array([10, 10, 30]).dictionary_encode(), where="w").tolist() == [1, 1, 0]


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
                index.lookup(column, where="table sample, column item_id")


def test_by_hand_in_the_order_of_the_values():
    places = IdIndex(pa.array(["c", "a", "b"]))
    assert places.lookup(pa.array(["b", "x"])).tolist() == [2, -1]  # fewer than there are values
    assert places.lookup(pa.array(["a", "x", "c", "a"])).tolist() == [1, -1, 0, 1]  # more
    assert places.lookup(pa.array([], pa.string())).tolist() == []


def test_among_no_values_there_is_nothing():
    assert IdIndex(pa.array([], pa.int64())).lookup(pa.array([3], pa.int64())).tolist() == [-1]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
@given(
    values=st.lists(st.integers(-500, 500), unique=True, max_size=40),
    ids=st.lists(st.integers(-500, 500), max_size=60),
)
def test_few_ids_and_many_are_found_alike(kind, values, ids):
    known, asked = (pa.array(given, pa.int64()).cast(kind) for given in (values, ids))
    places = IdIndex(pa.chunked_array([known.slice(0, len(known) // 2), known.slice(len(known) // 2)]))
    expected = find_positions(asked, known).tolist()
    assert places.lookup(asked).tolist() == expected
    one_by_one = [places.lookup(asked.slice(place, 1)).tolist() for place in range(len(asked))]
    assert [place for (place,) in one_by_one] == expected
