"""Ids to row numbers, for both kinds of id."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import DuplicateKeyError, SchemaError
from dssm_assets.core.samples.id_index import IdIndex, comparable_ids

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
    with pytest.raises(DuplicateKeyError, match="2 ids more than once, first 'a', 'c'"):
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
