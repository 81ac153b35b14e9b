"""Values of bytes laid end to end, and the little-endian words inside them: what both hashes read.

Belongs here: from an Arrow array to words of eight bytes, the same on every platform. Does not belong here: what a
hash makes of the words (`murmur_hash64a.py`, `farm_fingerprint64.py`).

Values begin at any byte, and numpy gathers words that are not aligned seven times slower than aligned ones. So a word
is put together from the two aligned words it lies across.
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
"""Bytes of a word."""

_RUN_VALUES: Final = 1 << 15
_RUN_BYTES: Final = 1 << 22
"""Values and their bytes worked on at once: few enough for the processor's cache, enough to pay for numpy's calls.

Half as many values cost a tenth more time, twice as many gain a twentieth. One value may be longer than that.
"""


@dataclass(frozen=True)
class ByteValues:
    """N values.

    Attributes:
        starts: N positions of the first byte, counted from the first byte of `aligned`.
        lengths: N numbers of bytes.
        aligned: the bytes as words, zeros after the last.
    """

    starts: Positions
    lengths: Positions
    aligned: Words

    def select(self, which: Any) -> ByteValues:
        """Returns the values at these places."""
        return ByteValues(self.starts.take(which), self.lengths.take(which), self.aligned)

    def words_at(self, positions: Positions) -> Words:
        """Returns the word of the eight bytes from each position on; bytes after the last value are 0."""
        return next(self.words_from(positions, [len(positions)]))

    def words_from(self, positions: Positions, ends: Iterable[int]) -> Iterator[Words]:
        """Yields the word at each position, then the word after that one and so on, each for the first `end` positions.

        Args:
            positions: where the first words begin.
            ends: how many positions still have a word: never more than the number before.
        """
        place = positions >> 3
        shift = (positions << 3).view(np.uint64)
        shift &= np.uint64(63)
        # A shift by 64 leaves 0 in numpy: an aligned word has nothing of the word that follows it.
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
    """Yields the values of a string or binary array (plain or large) in runs, and which rows they are.

    A null is a value of any bytes.
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
    """Returns the hash of each value, computed with the highest counts first.

    Args:
        values: at least one.
        counts: how many steps each value takes.
        hash_of: given the values in that order, and how many of them take a first step, a second one and so on.
    """
    longest = int(counts.max())
    ends = (len(counts) - np.cumsum(np.bincount(counts))[:longest]).tolist()
    if not ends or ends[-1] == len(counts):
        return hash_of(values, ends)
    # Numpy sorts integers of one or two bytes by counting.
    order = np.argsort((longest - counts).astype(np.min_scalar_type(longest)), kind="stable")
    hashes: Words = np.empty(len(order), np.uint64)
    hashes[order] = hash_of(values.select(order), ends)
    return hashes


def _values(offsets: Positions, data: pa.Buffer | None) -> ByteValues:
    first, last = int(offsets[0]), int(offsets[-1])
    # A word from the last byte on reaches into the aligned word after the one that the byte is in.
    aligned = np.zeros((last - first) // WORD + 2, dtype="<u8")
    if data is not None:
        aligned.view(np.uint8)[: last - first] = np.frombuffer(data, np.uint8, last - first, first)
    starts = offsets - first
    return ByteValues(starts[:-1], np.diff(starts), aligned.astype(np.uint64, copy=False))
