"""Text or binary values as little-endian words of eight bytes: what both hash functions read (`hashing.py`).

Values start at any byte. Numpy gathers unaligned words seven times slower than aligned ones, so each word is assembled
from the two aligned words that it overlaps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

Words = np.ndarray[Any, np.dtype[np.uint64]]
Positions = np.ndarray[Any, np.dtype[np.int64]]

WORD: Final = 8
"""Bytes per word."""

_RUN_VALUES: Final = 1 << 15
_RUN_BYTES: Final = 1 << 22
"""Values and bytes per run: few enough for the processor's cache, enough to amortise numpy's calls.

Half as many values take 10% more time, twice as many save 5%. A single value may be longer than a run.
"""


@dataclass(frozen=True)
class ByteValues:
    """N values.

    Attributes:
        starts: position of each value's first byte in `aligned` [N].
        lengths: bytes of each value [N].
        aligned: the bytes of all values as words, zeros after the last.
    """

    starts: Positions
    lengths: Positions
    aligned: Words

    def select(self, which: Any) -> ByteValues:
        """Returns the values at these positions."""
        return ByteValues(self.starts.take(which), self.lengths.take(which), self.aligned)

    def words_at(self, positions: Positions) -> Words:
        """Returns the eight bytes that start at each position as a word; bytes after the last value are 0."""
        return next(self.words_from(positions, [len(positions)]))

    def words_from(self, positions: Positions, ends: Iterable[int]) -> Iterator[Words]:
        """Yields the words at the positions, then the words that follow them and so on, each for the first `end` positions.

        Args:
            ends: how many positions each step reads; never more than the step before.
        """
        place = positions >> 3
        shift = (positions << 3).view(np.uint64)
        shift &= np.uint64(63)
        # A shift by 64 gives 0 in numpy: an aligned word takes nothing from the word after it.
        shift_of_following = np.uint64(64) - shift
        aligned: Words = self.aligned.take(place)
        for end in ends:
            words: Words = aligned[:end] >> shift[:end]
            place = place[:end]
            place += 1
            aligned = self.aligned.take(place)
            words |= aligned << shift_of_following[:end]
            yield words


def runs(array: pa.Array) -> Iterator[tuple[slice, ByteValues]]:
    """Yields the values of a string or binary array (plain or large) run by run, with the rows of each run.

    The bytes of a null are arbitrary.
    """
    if len(array) == 0:
        return
    _, offset_buffer, data = array.buffers()
    is_large = pat.is_large_string(array.type) or pat.is_large_binary(array.type)
    offset_type = np.dtype(np.int64 if is_large else np.int32)
    offsets = np.frombuffer(offset_buffer, offset_type, len(array) + 1, array.offset * offset_type.itemsize)
    start = 0
    while start < len(array):
        stop = min(start + _RUN_VALUES, len(array))
        if int(offsets[stop]) - int(offsets[start]) > _RUN_BYTES:
            room = int(offsets[start]) + _RUN_BYTES
            stop = max(start + int(np.searchsorted(offsets[start : stop + 1], room, side="right")) - 1, start + 1)
        yield slice(start, stop), _values(offsets[start : stop + 1].astype(np.int64), data)
        start = stop


def longest_first(values: ByteValues, counts: Positions, hash_of: Callable[[ByteValues, list[int]], Words]) -> Words:
    """Returns the hash of each value, computed with the values of most steps first.

    Args:
        values: at least one.
        hash_of: called with the values in that order and how many of them have a first step, a second step and so on.
    """
    longest = int(counts.max())
    ends = (len(counts) - np.cumsum(np.bincount(counts))[:longest]).tolist()
    if not ends or ends[-1] == len(counts):
        return hash_of(values, ends)
    # Numpy sorts integers of one or two bytes by radix, in linear time.
    order = np.argsort((longest - counts).astype(np.min_scalar_type(longest)), kind="stable")
    hashes: Words = np.empty(len(order), np.uint64)
    hashes[order] = hash_of(values.select(order), ends)
    return hashes


def _values(offsets: Positions, data: pa.Buffer | None) -> ByteValues:
    first, last = int(offsets[0]), int(offsets[-1])
    # A word that starts at the last byte reaches into the next aligned word.
    aligned = np.zeros((last - first) // WORD + 2, dtype="<u8")
    if data is not None:
        aligned.view(np.uint8)[: last - first] = np.frombuffer(data, np.uint8, last - first, first)
    starts = offsets - first
    return ByteValues(starts[:-1], np.diff(starts), aligned.astype(np.uint64, copy=False))
