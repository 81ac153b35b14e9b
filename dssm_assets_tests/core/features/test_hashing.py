"""MurmurHash64A: the published goldens, a byte-wise model, and every layout Arrow gives a text column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.hashing import SEED, hash_texts, murmur_hash64a, signed

_MASK = (1 << 64) - 1
_MULTIPLIER = 0xC6A4A7935BD1E995

GOLDENS = {
    "abc": 33, "efg": 44, "hij": 66, "xyz": 13, "1": 95, "2": 70, "3": 13, "4": 56,
    "ua_ia": 37, "ua_ib": 90, "ub_ia": 5, "ub_ib": 97, "x": 35, "y": 30, "z": 54,
}  # fmt: skip


def model(data: bytes) -> int:
    """The published algorithm, one value at a time in unbounded integers."""
    state = SEED ^ (len(data) * _MULTIPLIER & _MASK)
    whole = len(data) - len(data) % 8
    for start in range(0, whole, 8):
        block = int.from_bytes(data[start : start + 8], "little") * _MULTIPLIER & _MASK
        block = (block ^ (block >> 47)) * _MULTIPLIER & _MASK
        state = (state ^ block) * _MULTIPLIER & _MASK
    if data[whole:]:
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    state = (state ^ (state >> 47)) * _MULTIPLIER & _MASK
    return state ^ (state >> 47)


@pytest.mark.parametrize(("text", "bucket"), GOLDENS.items())
def test_goldens_at_100_buckets(text: str, bucket: int) -> None:
    assert murmur_hash64a(pa.array([text]))[0] % np.uint64(100) == bucket


texts = st.one_of(st.none(), st.text(max_size=40), st.sampled_from(["", "\0", "a\0b", "é" * 9, "x" * 1000, "12345678"]))


@given(st.lists(texts, max_size=30), st.sampled_from([pa.string(), pa.large_string(), pa.string_view()]))
def test_equals_the_byte_wise_model(values: list[str | None], arrow_type: pa.DataType) -> None:
    expected = [0 if value is None else model(value.encode()) for value in values]
    assert murmur_hash64a(pa.array(values, arrow_type)).tolist() == expected


@given(st.lists(texts, min_size=1, max_size=30), st.data())
def test_slices_chunks_and_dictionaries_hash_alike(values: list[str | None], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values)))
    array = pa.array(values, pa.string())
    whole = murmur_hash64a(array).tolist()
    assert murmur_hash64a(array[start:]).tolist() == whole[start:]
    assert murmur_hash64a(pa.chunked_array([array[:start], array[start:]])).tolist() == whole
    assert murmur_hash64a(array.dictionary_encode()[start:]).tolist() == whole[start:]


def test_binary_and_nothing() -> None:
    assert murmur_hash64a(pa.array([b"\xff\x00\xfe"])).tolist() == [model(b"\xff\x00\xfe")]
    assert murmur_hash64a(pa.array([], pa.string())).tolist() == []
    assert murmur_hash64a(pa.nulls(2)).tolist() == [0, 0]


def test_a_dictionary_entry_that_is_null_is_null() -> None:
    encoded = pa.DictionaryArray.from_arrays(pa.array([1, 0], pa.int32()), pa.array(["a", None]))
    assert murmur_hash64a(encoded).tolist() == [0, model(b"a")]


def test_signed_keeps_the_bits() -> None:
    expected = [model(b"1") - (1 << 64) if model(b"1") >> 63 else model(b"1")]
    assert hash_texts(["1"]).tolist() == expected
    assert signed(np.array([(1 << 64) - 1], np.uint64)).tolist() == [-1]
