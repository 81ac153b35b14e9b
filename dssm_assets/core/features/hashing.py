"""MurmurHash64A with the seed of libstdc++'s `std::hash<std::string>`: the reference's hash, bit for bit.

Belongs here: the hash and its signed form. Does not belong here: what a value's text is (`text_values.py`) and what
bucket a hash falls to (`bucketizer.py`).

Algorithm: Austin Appleby's MurmurHash2 for 64-bit machines, which libstdc++ uses in `_Hash_bytes`. All values advance
together, one 8-byte block at a time, the longest first, so that the values which still have a block are always a
prefix of the arrays.

A dictionary is hashed once per entry, a plain column as it is. Which is cheaper depends on the column (a million
values, median CPU time): 1000 distinct ones of 60 bytes 84 ms plain, 16 ms encoded first; all distinct 39 ms plain,
142 ms encoded first. So the caller decides: feature generation passes dictionaries, which its text rules need anyway.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.features.lists import null_mask, one_array

SEED = 0xC70F6907
_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)
_SHIFT = np.uint64(47)
_BLOCK = 8

Hashes = np.ndarray[Any, np.dtype[np.uint64]]


def murmur_hash64a(column: pa.Array | pa.ChunkedArray) -> Hashes:
    """Returns the hash of each text or binary value (its UTF-8 bytes); 0 where the value is null.

    Takes strings, large strings, binaries, string views and dictionaries of them, sliced or chunked.
    """
    array = one_array(column)
    if pat.is_dictionary(array.type):
        distinct = np.append(murmur_hash64a(array.dictionary), np.uint64(0))
        codes = array.indices.cast(pa.int64()).fill_null(len(distinct) - 1).to_numpy(zero_copy_only=False)
        spread: Hashes = distinct[codes]
        return spread
    if pat.is_string_view(array.type) or pat.is_null(array.type):
        array = array.cast(pa.string())
    hashes = _hash_all(array)
    if array.null_count:
        hashes[null_mask(array)] = 0
    return hashes


def signed(hashes: Hashes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the hashes with the same bits as signed integers: how tables store them."""
    return hashes.view(np.int64)


def hash_texts(texts: list[str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the signed hash of each text of a short list, such as a vocabulary."""
    return signed(murmur_hash64a(pa.array(texts, pa.string())))


def _hash_all(values: pa.Array) -> Hashes:
    starts, lengths, words = _layout(values)
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    hashes = np.uint64(SEED) ^ (lengths.astype(np.uint64) * _MULTIPLIER)
    blocks = lengths // _BLOCK
    longest = int(blocks[0]) if len(blocks) else 0
    # ends[b]: how many values have a block number b.
    ends = np.searchsorted(-blocks, -np.arange(longest), side="left")
    for block in range(longest):
        end = ends[block]
        mixed = words[starts[:end] + _BLOCK * block] * _MULTIPLIER
        mixed ^= mixed >> _SHIFT
        mixed *= _MULTIPLIER
        hashes[:end] = (hashes[:end] ^ mixed) * _MULTIPLIER
    rest = lengths % _BLOCK
    has_rest = np.flatnonzero(rest)
    bits = (8 * rest[has_rest]).astype(np.uint64)
    tails = words[starts[has_rest] + _BLOCK * blocks[has_rest]] & ((np.uint64(1) << bits) - np.uint64(1))
    hashes[has_rest] = (hashes[has_rest] ^ tails) * _MULTIPLIER
    hashes ^= hashes >> _SHIFT
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _SHIFT
    result: Hashes = np.empty_like(hashes)
    result[order] = hashes
    return result


def _layout(values: pa.Array) -> tuple[Any, Any, Any]:
    """Returns each value's first byte, its length, and the little-endian word that starts at every byte."""
    if len(values) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(1, np.uint64)
    is_large = pat.is_large_string(values.type) or pat.is_large_binary(values.type)
    _, offset_buffer, data = values.buffers()
    offset_type = np.dtype(np.int64 if is_large else np.int32)
    offsets = np.frombuffer(offset_buffer, offset_type, len(values) + 1, values.offset * offset_type.itemsize).astype(np.int64)
    first, last = int(offsets[0]), int(offsets[-1])
    # Eight spare bytes: the word that starts in the last value may reach beyond the data.
    padded = np.zeros(last - first + _BLOCK, dtype=np.uint8)
    if last > first:
        padded[: last - first] = np.frombuffer(data, np.uint8, last - first, first)
    words = np.ndarray((last - first + 1,), dtype="<u8", buffer=padded.data, strides=(1,))
    return offsets[:-1] - first, np.diff(offsets), words
