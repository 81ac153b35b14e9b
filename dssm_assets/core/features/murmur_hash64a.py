"""MurmurHash64A with the seed of libstdc++'s `std::hash<std::string>`: the hash of the reference's feature generator.

Belongs here: the hash of many byte values. Does not belong here: Arrow columns and the choice of a hash
(`hashing.py`).

Algorithm: Austin Appleby's MurmurHash2 for 64-bit machines, which libstdc++ uses in `_Hash_bytes`. All values advance
together, one word at a time, the longest first, so that the values which still have a word are always a prefix of the
arrays.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from dssm_assets.core.features.byte_values import WORD, ByteValues, Words, longest_first

SEED: Final = 0xC70F6907
_MULTIPLIER: Final = np.uint64(0xC6A4A7935BD1E995)
_SHIFT: Final = np.uint64(47)

_REST_MASKS: Final = np.array([(1 << 8 * rest) - 1 for rest in range(WORD)], np.uint64)
"""By the number of bytes after the last whole word: which bits of the word there are the value's own."""

_REST_MULTIPLIERS: Final = np.array([1] + [int(_MULTIPLIER)] * (WORD - 1), np.uint64)
"""By the same number: the step for these bytes leaves out values that have none."""


def murmur_hashes(values: ByteValues) -> Words:
    """Returns the hash of each value."""
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
    """Takes one more word of each value into its hash, in place; the words are used up."""
    words *= _MULTIPLIER
    words ^= words >> _SHIFT
    words *= _MULTIPLIER
    hashes ^= words
    hashes *= _MULTIPLIER
