"""MurmurHash64A and FarmHash Fingerprint64 of text columns, equal bit for bit to the originals.

The reference's feature generator uses MurmurHash64A, TensorFlow uses Fingerprint64. A hash depends on the value's bytes alone, so it
is the same on every platform and in every process. Each entry of a dictionary column is hashed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.arrays.ragged import null_mask
from dssm_assets.core.config.features import HashFunction

Words = np.ndarray[Any, np.dtype[np.uint64]]
Positions = np.ndarray[Any, np.dtype[np.int64]]

SEED: Final = 0xC70F6907
_MULTIPLIER: Final = np.uint64(0xC6A4A7935BD1E995)
_SHIFT: Final = np.uint64(47)
_BYTE: Final = np.uint64(0xFF)

_WORD: Final = 8
_RUN_VALUES: Final = 1 << 15
"""Values hashed at once: few enough for the processor's cache."""


class _Values(NamedTuple):
    """N values: the position of each value's first byte, its length in bytes, and the little-endian word at every byte position.

    A word near the end of a value reaches into the next value; after the last value come zeros.
    """

    starts: Positions
    lengths: Positions
    words: Words

    def select(self, which: Any) -> _Values:
        return _Values(self.starts[which], self.lengths[which], self.words)

    def from_start(self, count: int) -> list[Words]:
        return [self.words[self.starts + _WORD * number] for number in range(count)]

    def from_end(self, skipped: int, count: int) -> list[Words]:
        """Returns `count` words of each value, from `skipped` bytes before its end on."""
        return [self.words[self.starts + self.lengths - skipped + _WORD * number] for number in range(count)]


def hash_values(column: pa.Array | pa.ChunkedArray, function: HashFunction = HashFunction.MURMUR) -> Words:
    """Returns the hash of each text or binary value (of a text's UTF-8 bytes), 0 for null.

    The column may hold strings, binaries (large or not), views, dictionaries of these, or nulls only, sliced or chunked.

    Raises:
        ArrowNotImplementedError: the column has another type.
    """
    if isinstance(column, pa.ChunkedArray):
        chunks = [hash_values(chunk, function) for chunk in column.chunks]
        return np.concatenate(chunks) if chunks else np.zeros(0, np.uint64)
    if pat.is_dictionary(column.type) and len(column.dictionary) <= len(column):
        of_entries = np.append(hash_values(column.dictionary, function), np.uint64(0))
        hashes: Words = of_entries[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
        hashes[null_mask(column.indices)] = 0
        return hashes
    if pat.is_dictionary(column.type):  # a few rows of a large dictionary
        column = column.dictionary_decode()
    hashes = np.empty(len(column), np.uint64)
    for rows, values in _runs(column):
        hashes[rows] = _FUNCTIONS[function](values)
    if column.null_count:
        hashes[null_mask(column)] = 0
    return hashes


def hash_texts(texts: list[str], function: HashFunction = HashFunction.MURMUR) -> Positions:
    """Returns the signed hash of each text of a short list, such as a vocabulary."""
    return hash_values(pa.array(texts, pa.string()), function).view(np.int64)


def _runs(array: pa.Array) -> Iterator[tuple[slice, _Values]]:
    """Yields the values run by run, with the rows of each run. The bytes of a null are arbitrary."""
    array = array.cast(pa.large_binary())
    if not len(array):
        return
    _, offset_buffer, data = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64, len(array) + 1, array.offset * _WORD)
    for start in range(0, len(array), _RUN_VALUES):
        bounds = offsets[start : start + _RUN_VALUES + 1]
        first, last = int(bounds[0]), int(bounds[-1])
        padded = np.zeros(last - first + _WORD, np.uint8)
        if last > first:
            padded[:-_WORD] = np.frombuffer(data, np.uint8, last - first, first)
        words = np.ndarray((len(padded) - _WORD + 1,), "<u8", padded, strides=(1,))
        yield slice(start, start + len(bounds) - 1), _Values(bounds[:-1] - first, np.diff(bounds), words)


def _murmur_hashes(values: _Values) -> Words:
    """Returns the MurmurHash64A of each value (Austin Appleby, 2008)."""
    hashes: Words = values.lengths.astype(np.uint64) * _MULTIPLIER ^ np.uint64(SEED)
    for number, active in _steps(values.lengths // _WORD):
        words = values.words[values.starts[active] + _WORD * number] * _MULTIPLIER
        words ^= words >> _SHIFT
        hashes[active] = (hashes[active] ^ words * _MULTIPLIER) * _MULTIPLIER
    rest = values.lengths % _WORD
    has_rest = np.flatnonzero(rest)
    rest = rest[has_rest]
    tails = values.words[(values.starts + values.lengths)[has_rest] - rest]
    tails &= (np.uint64(1) << (8 * rest).view(np.uint64)) - np.uint64(1)
    hashes[has_rest] = (hashes[has_rest] ^ tails) * _MULTIPLIER
    return _shift_mix(_shift_mix(hashes) * _MULTIPLIER)


def _steps(counts: Positions) -> Iterator[tuple[int, Any]]:
    """Yields 0, 1, ..., each with the positions of the values that have more steps than this number."""
    active = np.flatnonzero(counts)
    number = 0
    while len(active):
        yield number, active
        number += 1
        active = active[counts[active] > number]


_MASK: Final = (1 << 64) - 1
_K0: Final = np.uint64(0xC3A5C85C97CB3127)
_K1: Final = np.uint64(0xB492B66FBE98F273)
_K2: Final = np.uint64(0x9AE16A3B2F90404F)
_FARM_SEED: Final = 81
_BLOCK: Final = 64


def _farm_fingerprints(values: _Values) -> Words:
    """Returns the Fingerprint64 of each value (google/farmhash, farmhashna::Hash64)."""
    hashes: Words = np.full(len(values.lengths), _K2)
    fewest = 1
    for most, hash_of in _BY_LENGTH:
        which = np.flatnonzero((values.lengths >= fewest) & (values.lengths <= most))
        if len(which):
            hashes[which] = hash_of(values.select(which))
        fewest = most + 1
    return hashes


def _fingerprint_to_3(values: _Values) -> Words:
    (words,), bits = values.from_start(1), (values.lengths << 3).view(np.uint64)
    middle = (words >> ((bits >> np.uint64(4)) << np.uint64(3))) & _BYTE
    last = (words >> (bits - np.uint64(8))) & _BYTE
    y = (words & _BYTE) + (middle << np.uint64(8))
    z = values.lengths.astype(np.uint64) + (last << np.uint64(2))
    return _shift_mix((y * _K2) ^ (z * _K0)) * _K2


def _fingerprint_to_7(values: _Values) -> Words:
    (words,), bits, half = values.from_start(1), (values.lengths << 3).view(np.uint64), np.uint64(0xFFFFFFFF)
    last = (words >> (bits - np.uint64(32))) & half
    first = ((words & half) << np.uint64(3)) + values.lengths.astype(np.uint64)
    return _hash_16(first, last, _multiplier(values))


def _fingerprint_to_16(values: _Values) -> Words:
    mul, a, (b,) = _multiplier(values), values.from_start(1)[0] + _K2, values.from_end(8, 1)
    return _hash_16(_rotate(b, 37) * mul + a, (_rotate(a, 25) + b) * mul, mul)


def _fingerprint_to_32(values: _Values) -> Words:
    mul, (first, second), (d, c) = _multiplier(values), values.from_start(2), values.from_end(16, 2)
    return _hash_16(*_mix_four(first * _K1, second, c * mul, d * _K2), mul)


def _fingerprint_to_64(values: _Values) -> Words:
    mul, (first, second, third, f), (g, h, d, c) = _multiplier(values), values.from_start(4), values.from_end(32, 4)
    a = first * _K2
    y, z = _mix_four(a, second, c * mul, d * _K2)
    e, g, h = third * mul, (y + g) * mul, (_hash_16(y, z, mul) + h) * mul
    return _hash_16(_rotate(e + f, 43) + _rotate(g, 30) + h, e + _rotate(f + a, 18) + g, mul)


def _fingerprint_more(values: _Values) -> Words:
    """Returns the fingerprints of values longer than 64 bytes: all blocks but the last, then the last 64 bytes."""
    start_y = (_FARM_SEED * int(_K1) + 113) & _MASK
    start_z = (start_y * int(_K2) + 113) & _MASK
    state = np.zeros((7, len(values.lengths)), np.uint64)  # x, y, z and the two halves of v and w
    state[0] = values.from_start(1)[0] + np.uint64(_FARM_SEED * int(_K2) & _MASK)
    state[1], state[2] = start_y, (start_z ^ (start_z >> 47)) * int(_K2) & _MASK
    for number, active in _steps((values.lengths - 1) // _BLOCK):
        starts, part = values.starts[active] + _BLOCK * number, state[:, active]
        words = [values.words[starts + _WORD * place] for place in range(_BLOCK // _WORD)]
        state[:, active] = _advance(part, words, _K1, to_x=part[6], to_y=part[3])
    x, y, z, v0, v1, w0, w1 = state
    mul = ((z & _BYTE) << np.uint64(1)) + _K1
    w0 += ((values.lengths - 1) % _BLOCK).view(np.uint64)
    v0 += w0
    w0 += v0
    last, nine = values.from_end(_BLOCK, _BLOCK // _WORD), np.uint64(9)
    x, y, z, v0, v1, w0, w1 = _advance(state, last, mul, to_x=w1 * nine, to_y=v0 * nine)
    return _hash_16(_hash_16(v0, w0, mul) + _shift_mix(y) * _K0 + z, _hash_16(v1, w1, mul) + x, mul)


def _advance(
    state: Sequence[Words] | Words, words: list[Words], mul: np.uint64 | Words, *, to_x: Words, to_y: Words
) -> list[Words]:
    x, y, z, v0, v1, w0, w1 = state
    x = _rotate(x + y + v0 + words[1], 37) * mul ^ to_x
    y = _rotate(y + v1 + words[6], 42) * mul + to_y + words[5]
    z = _rotate(z + w0, 33) * mul
    v0, v1 = _weak_hash_32(words[:4], v1 * mul, x + w0)
    w0, w1 = _weak_hash_32(words[4:], z + w1, y + words[2])
    return [z, y, x, v0, v1, w0, w1]  # x and z change places


def _weak_hash_32(words: list[Words], a: Words, b: Words) -> tuple[Words, Words]:
    a = a + words[0]
    b = _rotate(b + a + words[3], 21)
    c = a + words[1] + words[2]
    return c + words[3], b + _rotate(c, 44) + a


def _mix_four(a: Words, b: Words, c: Words, d: Words) -> tuple[Words, Words]:
    return _rotate(a + b, 43) + _rotate(c, 30) + d, a + _rotate(b + _K2, 18) + c


def _hash_16(u: Words, v: Words, mul: Words) -> Words:
    a = _shift_mix((u ^ v) * mul)
    return _shift_mix((v ^ a) * mul) * mul


def _rotate(words: Words, bits: int) -> Words:
    return (words >> np.uint64(bits)) | (words << np.uint64(64 - bits))


def _shift_mix(words: Words) -> Words:
    return words ^ (words >> _SHIFT)


def _multiplier(values: _Values) -> Words:
    return (values.lengths << 1).view(np.uint64) + _K2


_BY_LENGTH: Final[tuple[tuple[int, Callable[[_Values], Words]], ...]] = (
    (3, _fingerprint_to_3),
    (7, _fingerprint_to_7),
    (16, _fingerprint_to_16),
    (32, _fingerprint_to_32),
    (_BLOCK, _fingerprint_to_64),
    ((1 << 63) - 1, _fingerprint_more),
)
"""Most bytes, and the function for values of at most these lengths."""

_FUNCTIONS: Final[Mapping[HashFunction, Callable[[_Values], Words]]] = {
    HashFunction.MURMUR: _murmur_hashes,
    HashFunction.FARM: _farm_fingerprints,
}
