"""Looking ids up where they lie in order gives what the index of any order gives."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples import sorted_ids
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.core.samples.sorted_ids import SortedIds

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
    monkeypatch.setattr(sorted_ids, "_BLOCK_ROWS", 1)
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
