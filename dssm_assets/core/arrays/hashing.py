"""MurmurHash64A and FarmHash Fingerprint64 of text columns, bit for bit as the reference and TensorFlow compute them.

MurmurHash64A is what the reference's feature generator uses, Fingerprint64 what TensorFlow uses. A hash depends on the
value's bytes alone: it is the same on every platform and in every process.

Each entry of a dictionary column is hashed once, which is ten times cheaper than hashing every row. A plain column is
not encoded first, because encoding costs as much as hashing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.arrays.byte_values import WORD, ByteValues, Words, longest_first, runs
from dssm_assets.core.arrays.ragged import null_mask
from dssm_assets.core.config.features import HashFunction

SEED: Final = 0xC70F6907
_MULTIPLIER: Final = np.uint64(0xC6A4A7935BD1E995)
_SHIFT: Final = np.uint64(47)

_REST_MASKS: Final = np.array([(1 << 8 * rest) - 1 for rest in range(WORD)], np.uint64)
"""By the number of bytes after the last whole word: the bits of that word which belong to the value."""

_REST_MULTIPLIERS: Final = np.array([1] + [int(_MULTIPLIER)] * (WORD - 1), np.uint64)
"""By the same number: 1 where there is no such byte, so that the step changes nothing."""


def murmur_hashes(values: ByteValues) -> Words:
    """Returns the MurmurHash64A of each value (Austin Appleby, 2008)."""
    return longest_first(values, values.lengths >> 3, _hashes)


def _hashes(values: ByteValues, ends: list[int]) -> Words:
    hashes: Words = values.lengths.astype(np.uint64)
    hashes *= _MULTIPLIER
    hashes ^= np.uint64(SEED)
    for end, words in zip(ends, values.words_from(values.starts, ends), strict=True):
        _advance(hashes[:end], words)
    rest = values.lengths & (WORD - 1)
    if rest.any():
        tails = values.words_at(values.starts + (values.lengths - rest))
        tails &= _REST_MASKS.take(rest)
        hashes ^= tails
        hashes *= _REST_MULTIPLIERS.take(rest)
    hashes ^= hashes >> _SHIFT
    hashes *= _MULTIPLIER
    hashes ^= hashes >> _SHIFT
    return hashes


def _advance(hashes: Words, words: Words) -> None:
    """Mixes one more word of each value into its hash. Overwrites both arrays."""
    words *= _MULTIPLIER
    words ^= words >> _SHIFT
    words *= _MULTIPLIER
    hashes ^= words
    hashes *= _MULTIPLIER


_State = tuple[Words, ...]
"""x, y, z and the two halves of v and w in FarmHash: the state of values longer than 64 bytes."""

_MASK: Final = (1 << 64) - 1
_K0: Final = np.uint64(0xC3A5C85C97CB3127)
_K1: Final = np.uint64(0xB492B66FBE98F273)
_K2: Final = np.uint64(0x9AE16A3B2F90404F)

_SEED: Final = 81
_BLOCK: Final = 64
_BYTE: Final = np.uint64(0xFF)
_HALF: Final = np.uint64(0xFFFFFFFF)
"""Bits of four bytes."""


def farm_fingerprints(values: ByteValues) -> Words:
    """Returns the Fingerprint64 of each value (google/farmhash, farmhashna::Hash64)."""
    shortest, longest = int(values.lengths.min()), int(values.lengths.max())
    hashes: Words = np.empty(len(values.lengths), np.uint64)
    for fewest, most, hash_of in _BY_LENGTH:
        if fewest <= shortest and longest <= most:
            return hash_of(values)
        if fewest <= longest and shortest <= most:
            which = np.flatnonzero((values.lengths >= fewest) & (values.lengths <= most))
            if len(which):
                hashes[which] = hash_of(values.select(which))
    return hashes


def _fingerprint_0(values: ByteValues) -> Words:
    return np.full(len(values.lengths), _K2)


def _fingerprint_1_to_3(values: ByteValues) -> Words:
    words, bits = values.words_at(values.starts), _bits(values)
    middle = (words >> ((bits >> np.uint64(4)) << np.uint64(3))) & _BYTE
    last = (words >> (bits - np.uint64(8))) & _BYTE
    y = (words & _BYTE) + (middle << np.uint64(8))
    z = values.lengths.astype(np.uint64) + (last << np.uint64(2))
    return _shift_mix((y * _K2) ^ (z * _K0)) * _K2


def _fingerprint_4_to_7(values: ByteValues) -> Words:
    words = values.words_at(values.starts)
    last = (words >> (_bits(values) - np.uint64(32))) & _HALF
    first = ((words & _HALF) << np.uint64(3)) + values.lengths.astype(np.uint64)
    return _hash_16(first, last, _multiplier(values))


def _fingerprint_8_to_16(values: ByteValues) -> Words:
    mul = _multiplier(values)
    a = values.words_at(values.starts)
    a += _K2
    b = _from_end(values, 8, 1)[0]
    c = _rotate(b, 37)
    c *= mul
    c += a
    d = _rotate(a, 25)
    d += b
    d *= mul
    return _hash_16(c, d, mul)


def _fingerprint_17_to_32(values: ByteValues) -> Words:
    mul = _multiplier(values)
    first, second = _from_start(values, 2)
    d, c = _from_end(values, 16, 2)
    return _hash_16(*_mixed(first * _K1, second, c * mul, d * _K2), mul)


def _fingerprint_33_to_64(values: ByteValues) -> Words:
    mul = _multiplier(values)
    first, second, third, f = _from_start(values, 4)
    g, h, d, c = _from_end(values, 32, 4)
    a = first * _K2
    y, z = _mixed(a, second, c * mul, d * _K2)
    z = _hash_16(y, z, mul)
    e = third * mul
    g = (y + g) * mul
    h = (z + h) * mul
    return _hash_16(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, mul)


def _mixed(a: Words, b: Words, c: Words, d: Words) -> tuple[Words, Words]:
    return _rotate(a + b, 43) + _rotate(c, 30) + d, a + _rotate(b + _K2, 18) + c


def _fingerprint_more(values: ByteValues) -> Words:
    return longest_first(values, (values.lengths - 1) // _BLOCK, _fingerprint_blocks)


def _fingerprint_blocks(values: ByteValues, ends: list[int]) -> Words:
    """Returns the fingerprints of values longer than 64 bytes: all blocks but the last, then the last 64 bytes."""
    state = _first_state(values)
    for number, end in enumerate(ends):
        words = list(values.words_from(values.starts[:end] + _BLOCK * number, [end] * (_BLOCK // WORD)))
        part = tuple(each[:end] for each in state)
        for old, new in zip(part, _advanced(part, words, _K1, to_x=part[6], to_y=part[3]), strict=True):
            old[:] = new
    x, y, z, v0, v1, w0, w1 = state
    mul = ((z & _BYTE) << np.uint64(1)) + _K1
    w0 += ((values.lengths - 1) & (_BLOCK - 1)).view(np.uint64)
    v0 += w0
    w0 += v0
    last = _from_end(values, _BLOCK, _BLOCK // WORD)
    x, y, z, v0, v1, w0, w1 = _advanced(state, last, mul, to_x=w1 * np.uint64(9), to_y=v0 * np.uint64(9))
    return _hash_16(_hash_16(v0, w0, mul) + _shift_mix(y) * _K0 + z, _hash_16(v1, w1, mul) + x, mul)


def _first_state(values: ByteValues) -> _State:
    x = _SEED * int(_K2) & _MASK
    y = (_SEED * int(_K1) + 113) & _MASK
    z = (y * int(_K2) + 113) & _MASK
    z = (z ^ (z >> 47)) * int(_K2) & _MASK
    count = len(values.starts)
    others = [np.full(count, start, np.uint64) for start in (y, z, 0, 0, 0, 0)]
    return (values.words_at(values.starts) + np.uint64(x), *others)


def _advanced(state: _State, words: list[Words], mul: np.uint64 | Words, *, to_x: Words, to_y: Words) -> _State:
    """Returns the state after eight more words of each value."""
    x, y, z, v0, v1, w0, w1 = state
    x = _rotate(x + y + v0 + words[1], 37) * mul
    y = _rotate(y + v1 + words[6], 42) * mul
    x ^= to_x
    y += to_y + words[5]
    z = _rotate(z + w0, 33) * mul
    v0, v1 = _weak_hash_32(words[:4], v1 * mul, x + w0)
    w0, w1 = _weak_hash_32(words[4:], z + w1, y + words[2])
    # x and z change places.
    return z, y, x, v0, v1, w0, w1


def _weak_hash_32(words: list[Words], a: Words, b: Words) -> tuple[Words, Words]:
    a = a + words[0]
    b = _rotate(b + a + words[3], 21)
    c = a + words[1] + words[2]
    return c + words[3], b + _rotate(c, 44) + a


def _hash_16(u: Words, v: Words, mul: Words) -> Words:
    a = u ^ v
    a *= mul
    a ^= a >> np.uint64(47)
    a ^= v
    a *= mul
    a ^= a >> np.uint64(47)
    a *= mul
    return a


def _rotate(words: Words, bits: int) -> Words:
    """Returns the words rotated right."""
    rotated: Words = words >> np.uint64(bits)
    rotated |= words << np.uint64(64 - bits)
    return rotated


def _shift_mix(words: Words) -> Words:
    return words ^ (words >> np.uint64(47))


def _multiplier(values: ByteValues) -> Words:
    mul: Words = (values.lengths << 1).view(np.uint64)
    mul += _K2
    return mul


def _bits(values: ByteValues) -> Words:
    bits: Words = (values.lengths << 3).view(np.uint64)
    return bits


def _from_start(values: ByteValues, count: int) -> list[Words]:
    """Returns the first `count` words of each value."""
    return list(values.words_from(values.starts, [len(values.starts)] * count))


def _from_end(values: ByteValues, skipped: int, count: int) -> list[Words]:
    """Returns `count` words of each value, the first of them `skipped` bytes before its end."""
    return list(values.words_from(values.starts + (values.lengths - skipped), [len(values.starts)] * count))


_BY_LENGTH: Final[tuple[tuple[int, int, Callable[[ByteValues], Words]], ...]] = (
    (0, 0, _fingerprint_0),
    (1, 3, _fingerprint_1_to_3),
    (4, 7, _fingerprint_4_to_7),
    (8, 16, _fingerprint_8_to_16),
    (17, 32, _fingerprint_17_to_32),
    (33, _BLOCK, _fingerprint_33_to_64),
    (_BLOCK + 1, (1 << 63) - 1, _fingerprint_more),
)
"""Fewest and most bytes, and the function for values of these lengths."""


Hashes = Words

_GATHER_ROWS: Final = 1 << 16
"""Rows of a dictionary column whose hashes are gathered at once."""


_FUNCTIONS: Final[Mapping[HashFunction, Callable[[ByteValues], Words]]] = {
    HashFunction.MURMUR: murmur_hashes,
    HashFunction.FARM: farm_fingerprints,
}


def hash_values(column: pa.Array | pa.ChunkedArray, function: HashFunction = HashFunction.MURMUR) -> Hashes:
    """Returns the hash of each text or binary value (its UTF-8 bytes); 0 where the value is null.

    The column may hold strings, binaries, large ones, views, dictionaries of these, or nulls only, sliced or chunked.

    Raises:
        TypeError: if the column is of another type.
    """
    hashes: Hashes = np.empty(len(column), np.uint64)
    start = 0
    for array in column.chunks if isinstance(column, pa.ChunkedArray) else [column]:
        _hash_into(hashes[start : start + len(array)], array, function)
        start += len(array)
    return hashes


def signed(hashes: Hashes) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the hashes as signed integers of the same bits, as tables store them."""
    return hashes.view(np.int64)


def hash_texts(texts: list[str], function: HashFunction = HashFunction.MURMUR) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Returns the signed hash of each text of a short list, such as a vocabulary."""
    return signed(hash_values(pa.array(texts, pa.string()), function))


def _hash_into(hashes: Hashes, array: pa.Array, function: HashFunction) -> None:
    if pat.is_dictionary(array.type):
        if len(array.dictionary) <= len(array):
            _gather_into(hashes, array, function)
            return
        # A few rows of a large dictionary: hash the rows, not the dictionary.
        array = array.dictionary_decode()
    array = _with_offsets(array)
    for rows, values in runs(array):
        hashes[rows] = _FUNCTIONS[function](values)
    if array.null_count:
        hashes[null_mask(array)] = 0


def _gather_into(hashes: Hashes, array: pa.DictionaryArray, function: HashFunction) -> None:
    entry_hashes = np.append(hash_values(array.dictionary, function), np.uint64(0))
    codes = array.indices.fill_null(0).to_numpy(zero_copy_only=False)
    for start in range(0, len(codes), _GATHER_ROWS):
        some = codes[start : start + _GATHER_ROWS].astype(np.int64, copy=False)
        # Codes are within the dictionary; "clip" is the mode that writes to `out` without a copy in between.
        entry_hashes.take(some, out=hashes[start : start + _GATHER_ROWS], mode="clip")
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
    raise TypeError(f"only text and binary values can be hashed, not {kind}")
