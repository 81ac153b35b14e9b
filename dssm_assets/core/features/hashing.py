"""The hash of a text, bit for bit as the reference's feature generator or TensorFlow computes it.

Belongs here: the hash of every kind of text column, the signed form. Does not belong here:
the functions themselves (`murmur_hash64a.py`, `farm_fingerprint64.py`), what a value's text is (`text_values.py`) and
what bucket a hash falls to (`buckets.py`).

A hash depends on the value's bytes alone: the same on every platform and in every process.

Of a dictionary each entry is hashed once, which is ten times cheaper than hashing every row. To encode a plain column
for that gains nothing: encoding costs what hashing does. So each column is hashed in the form it comes in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.features.byte_values import ByteValues, Words, runs
from dssm_assets.core.features.farm_fingerprint64 import farm_fingerprints
from dssm_assets.core.features.hash_function import HashFunction
from dssm_assets.core.features.lists import null_mask
from dssm_assets.core.features.murmur_hash64a import murmur_hashes

Hashes = Words

_SPREAD_ROWS: Final = 1 << 16
"""Rows of a dictionary column that get their hashes at once."""


_FUNCTIONS: Final[Mapping[HashFunction, Callable[[ByteValues], Words]]] = {
    HashFunction.MURMUR: murmur_hashes,
    HashFunction.FARM: farm_fingerprints,
}


def hash_values(column: pa.Array | pa.ChunkedArray, function: HashFunction = HashFunction.MURMUR) -> Hashes:
    """Returns the hash of each text or binary value (its UTF-8 bytes); 0 where the value is null.

    Takes strings, binaries, large ones, views, dictionaries of them and columns of nulls, sliced or chunked.

    Raises:
        TypeError: if the column is of another type.
    """
    hashes: Hashes = np.empty(len(column), np.uint64)
    start = 0
    for array in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        _hash_into(hashes[start : start + len(array)], array, function)
        start += len(array)
    return hashes


def murmur_hash64a(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """Returns the MurmurHash64A of each value, as `hash_values` does."""
    return hash_values(column, HashFunction.MURMUR)


def signed(hashes: Hashes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the hashes with the same bits as signed integers: how tables store them."""
    return hashes.view(np.int64)


def hash_texts(texts: list[str], function: HashFunction = HashFunction.MURMUR) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the signed hash of each text of a short list, such as a vocabulary."""
    return signed(hash_values(pa.array(texts, pa.string()), function))


def _hash_into(hashes: Hashes, array: pa.Array, function: HashFunction) -> None:
    if pat.is_dictionary(array.type):
        if len(array.dictionary) <= len(array):
            _spread_into(hashes, array, function)
            return
        # A few rows of a large dictionary: hash the rows, not the dictionary.
        array = array.dictionary_decode()
    array = _with_offsets(array)
    for rows, values in runs(array):
        hashes[rows] = _FUNCTIONS[function](values)
    if array.null_count:
        hashes[null_mask(array)] = 0


def _spread_into(hashes: Hashes, array: pa.DictionaryArray, function: HashFunction) -> None:
    of_entries = np.append(hash_values(array.dictionary, function), np.uint64(0))
    codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
    for start in range(0, len(codes), _SPREAD_ROWS):
        some = codes[start : start + _SPREAD_ROWS].astype(np.int64, copy=False)
        # Codes are within the dictionary; "clip" is the mode that writes to `out` without a copy in between.
        of_entries.take(some, out=hashes[start : start + _SPREAD_ROWS], mode="clip")
    if array.indices.null_count:
        hashes[null_mask(array.indices)] = 0


def _with_offsets(array: pa.Array) -> pa.Array:
    kind = array.type
    if pat.is_string(kind) or pat.is_binary(kind) or pat.is_large_string(kind) or pat.is_large_binary(kind):
        return array
    if pat.is_string_view(kind) or pat.is_null(kind):
        return array.cast(pa.large_string())
    if pat.is_binary_view(kind) or pat.is_fixed_size_binary(kind):
        return array.cast(pa.large_binary())
    raise TypeError(f"hashes are of texts and binary values, not of {kind}")
