"""Both hashes over every layout Arrow gives a text column: a value's hash depends on its bytes alone."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.hashing import hash_texts, hash_values
from dssm_assets.core.config.features import HashFunction
from dssm_assets_tests.core.features.hash_goldens import goldens

each_function = pytest.mark.parametrize("function", HashFunction)
functions = st.sampled_from(list(HashFunction))
texts = st.one_of(st.none(), st.text(max_size=40), st.sampled_from(["", "\0", "a\0b", "é" * 9, "x" * 1000, "12345678"]))
columns = st.lists(texts, max_size=30)


@each_function
@pytest.mark.parametrize("arrow_type", [pa.binary(), pa.large_binary(), pa.binary_view()], ids=str)
def test_golden_hashes_of_all_lengths_in_one_column(function: HashFunction, arrow_type: pa.DataType) -> None:
    mixed = np.random.default_rng(0).permutation(np.array(goldens(), object))
    expected = [golden.murmur if function is HashFunction.MURMUR else golden.farm for golden in mixed]
    assert hash_values(pa.array([golden.value for golden in mixed], arrow_type), function).tolist() == expected


@given(columns, functions, st.data())
def test_slices_chunks_and_dictionaries_have_equal_hashes(
    values: list[str | None], function: HashFunction, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    array = pa.array(values, pa.string())
    encoded = array.dictionary_encode()
    whole = hash_values(array, function).tolist()
    assert hash_values(array[start:stop], function).tolist() == whole[start:stop]
    assert hash_values(encoded[start:stop], function).tolist() == whole[start:stop]
    for chunks in ([array[:start], array[start:]], [encoded[:start], encoded[start:], encoded[:0]]):
        assert hash_values(pa.chunked_array(chunks), function).tolist() == whole


@each_function
@pytest.mark.parametrize("index_type", [pa.int8(), pa.uint8(), pa.int32(), pa.int64(), pa.uint64()], ids=str)
@pytest.mark.parametrize("row_count", [2, 70_000])
def test_dictionary_larger_or_smaller_than_its_column(function: HashFunction, index_type: pa.DataType, row_count: int) -> None:
    # Entry 3 is null, the last row is null; two rows are fewer than the entries, 70000 more than get hashes at once.
    codes = [i % 4 for i in range(1, row_count)]
    entries = pa.array(["a", "bb", "é" * 30, None], pa.string())
    column = pa.DictionaryArray.from_arrays(pa.array([*codes, None], index_type), entries)
    a, bb, long = (int(value) for value in hash_values(entries[:3], function))
    assert hash_values(column, function).tolist() == [[a, bb, long, 0][code] for code in codes] + [0]


@each_function
def test_null_hashes_to_0_whatever_its_bytes(function: HashFunction) -> None:
    validity = pa.py_buffer(bytes([0b101]))
    offsets, data = pa.py_buffer(np.array([0, 1, 3, 4], np.int32)), pa.py_buffer(b"aXXb")
    column = pa.Array.from_buffers(pa.string(), 3, [validity, offsets, data])
    assert column.to_pylist() == ["a", None, "b"]
    (a,), (b,) = (hash_values(pa.array([text]), function).tolist() for text in "ab")
    assert hash_values(column, function).tolist() == [a, 0, b]
    assert hash_values(pa.nulls(2), function).tolist() == [0, 0]
    assert 0 not in hash_values(pa.array(["", "a"]), function)


@each_function
def test_empty_and_null_columns(function: HashFunction) -> None:
    nothing = [pa.array([], pa.string()), pa.nulls(0), pa.chunked_array([], pa.string()), pa.array([], pa.string_view())]
    assert [hash_values(column, function).tolist() for column in nothing] == [[]] * 4
    all_null = pa.DictionaryArray.from_arrays(pa.array([None], pa.int32()), pa.array([], pa.string()))
    assert hash_values(all_null, function).tolist() == [0]


@pytest.mark.parametrize("column", [pa.array([1]), pa.array([["a"]]), pa.array([1.5]).dictionary_encode()])
def test_columns_without_text_are_refused(column: pa.Array) -> None:
    with pytest.raises(pa.ArrowNotImplementedError, match="large_binary"):
        hash_values(column)


SIGNED = {
    # FARM_FINGERPRINT in the reference of BigQuery.
    "1footrue": -1541654101129638711, "2applefalse": 2794438866806483259, "3true": -4880158226897771312,
    # farmFingerprint64 in the reference of Redshift.
    "Amazon Redshift": 8085098817162212970,
    # farmHashFingerprint64 of Guava.
    "alphabet": -2427165924636348523,
}  # fmt: skip


def test_fingerprints_equal_published_ones() -> None:
    assert hash_texts(list(SIGNED), HashFunction.FARM).tolist() == list(SIGNED.values())
