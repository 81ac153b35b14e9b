"""Ids to row numbers, for both kinds of id."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays import ids as ids_module
from dssm_assets.core.arrays.ids import IdCounts, IdIndex
from dssm_assets.core.errors import DuplicateKeyError, SchemaError

ANY_IDS = st.one_of(
    st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, min_size=1), st.lists(st.text(max_size=4), unique=True, min_size=1)
)


@given(ids=ANY_IDS, data=st.data())
def test_id_index_equals_a_dict(ids: list[int] | list[str], data: st.DataObject) -> None:
    known: list[object] = data.draw(st.lists(st.sampled_from(ids)))
    strange = ["no such id"] if isinstance(ids[0], str) else [2**62 + 12345]
    wanted = [*known, *strange]
    kind = pa.string() if isinstance(ids[0], str) else pa.int64()
    column, rows = pa.array(wanted, kind), {value: row for row, value in enumerate(ids)}
    cut = data.draw(st.integers(0, len(wanted)))
    parts = [column[:cut].dictionary_encode(), column[cut:].dictionary_encode()]
    for queries in (column, column.dictionary_encode(), pa.chunked_array(parts)):
        found = IdIndex(pa.array(ids, kind)).lookup(queries)
        assert found.dtype == np.int32
        assert found.tolist() == [rows.get(value, -1) for value in wanted]  # type: ignore[call-overload]


def test_id_index_ignores_integer_width_and_chunks() -> None:
    numbers = IdIndex(pa.chunked_array([pa.array([5], pa.int32()), pa.array([], pa.int32()), pa.array([6], pa.int32())]))
    assert numbers.lookup(pa.chunked_array([[6], [5]], pa.int64())).tolist() == [1, 0]
    texts = IdIndex(pa.array(["a", "b"], pa.large_string()))
    assert texts.lookup(pa.array(["b", ""], pa.string())).tolist() == [1, -1]


@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_id_index_with_no_ids_or_no_queries(kind: pa.DataType) -> None:
    value = pa.array([1]).cast(kind)
    assert IdIndex(pa.chunked_array([], type=kind)).lookup(value).tolist() == [-1]
    found = IdIndex(value).lookup(pa.chunked_array([], type=kind))
    assert (found.tolist(), found.dtype) == ([], np.int32)


def test_id_index_names_duplicates() -> None:
    with pytest.raises(DuplicateKeyError, match="2 ids more than once: a, c"):
        IdIndex(pa.array(["c", "a", "c", "b", "a"]))


def test_id_counts_do_not_depend_on_when_they_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids_module, "_COMPACT_ROWS", 1)
    counts = IdCounts("ids")
    assert not counts
    for number in range(9):
        counts.update(pa.array([number % 3, number]))
    counts.update(pa.array([2, 7]), np.array([10, 0]))
    # 0, 1 and 2 occur three times as number % 3, and once as number.
    ids, found = counts.total()
    assert (ids.to_pylist(), found.tolist()) == (list(range(9)), [4, 4, 14, *[1] * 6])


@pytest.mark.parametrize("ids", [["a"], ["a", "b", "c"]], ids=["few", "many"])
def test_null_in_a_dictionary_is_refused_only_if_it_is_used_or_present(ids: list[str]) -> None:
    nulls = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], pa.int32()), pa.array(["a", None]))
    with pytest.raises(SchemaError, match="column item_id: expected no null ids, got 1 nulls in 3 rows"):
        IdIndex(pa.array(ids)).lookup(nulls, where="table sample, column item_id")
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["a", None]))
    assert IdIndex(pa.array(ids)).lookup(unused, where="w").tolist() == [0, 0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array(["a", None]), "column item_id: expected no null ids, got 1 nulls in 2 rows"),
        (pa.array([1]), "column item_id: expected string, the type of ids, got int64"),
        (pa.array([1.5]), "column item_id: expected an integer or a string, got double"),
        (pa.array([2**63], pa.uint64()), "column item_id: expected ids that fit int64"),
    ],
)
def test_id_index_refuses_bad_queries_plain_and_encoded(ids: Any, message: str) -> None:
    for column in (ids, ids.dictionary_encode()):
        for index in (IdIndex(pa.array(["a"])), IdIndex(pa.array(["a", "b", "c"]))):
            with pytest.raises(SchemaError, match=message):
                index.lookup(column, where="table sample, column item_id")
