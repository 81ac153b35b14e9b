"""Words at any byte, runs of bounded size, the order by count."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays import byte_values
from dssm_assets.core.arrays.byte_values import ByteValues, longest_first, runs


def values_of(*values: bytes) -> ByteValues:
    """Returns the one run of the values."""
    [(_, run)] = runs(pa.array(values, pa.binary()))
    return run


def bounds(array: pa.Array) -> list[tuple[int, int]]:
    """Returns the first row of each run and the row after its last."""
    return [(rows.start, rows.stop) for rows, _ in runs(array)]


@given(st.binary(min_size=1, max_size=40))
def test_words_at_reads_eight_bytes_in_little_endian_order(data: bytes) -> None:
    expected = [int.from_bytes(data[start : start + 8], "little") for start in range(len(data))]
    assert values_of(data).words_at(np.arange(len(data))).tolist() == expected


def test_words_from_reads_consecutive_words_for_shrinking_positions() -> None:
    values = values_of(bytes(range(1, 25)))
    words = list(values.words_from(np.array([3, 0]), [2, 1, 0]))
    # 04 05 .. 0b from the byte 3, 01 02 .. 08 from the byte 0, then 0c .. 13: the lowest byte comes first.
    assert [[f"{word:016x}" for word in part.tolist()] for part in words] == [
        ["0b0a090807060504", "0807060504030201"],
        ["131211100f0e0d0c"],
        [],
    ]


def test_run_positions_start_at_its_first_byte() -> None:
    [(rows, values)] = runs(pa.array(["skipped", "ab", None, "", "c"])[1:])
    assert (rows, values.starts.tolist(), values.lengths.tolist()) == (slice(0, 4), [0, 2, 2, 2], [2, 0, 0, 1])
    assert values.words_at(values.starts).tolist()[0] == int.from_bytes(b"abc", "little")


def test_run_ends_at_its_limit_of_values_or_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_values, "_RUN_VALUES", 3)
    monkeypatch.setattr(byte_values, "_RUN_BYTES", 4)
    assert bounds(pa.array(["a", "b", "c", "d"])) == [(0, 3), (3, 4)]
    # ab and cd fill the four bytes; a value above them has a run of its own.
    assert bounds(pa.array(["ab", "cd", "e", "12345", "", "f"])) == [(0, 2), (2, 3), (3, 4), (4, 6)]
    assert bounds(pa.array([], pa.string())) == []


def test_longest_first_returns_hashes_in_the_order_of_values() -> None:
    seen = []

    def hash_of(values: ByteValues, ends: list[int]) -> byte_values.Words:
        seen.append((values.lengths.tolist(), ends))
        return values.lengths.astype(np.uint64)

    values = values_of(b"a", b"ccc", b"", b"bb", b"C..")
    assert longest_first(values, values.lengths, hash_of).tolist() == [1, 3, 0, 2, 3]
    assert longest_first(values_of(b"xy", b"zw"), np.array([1, 1]), hash_of).tolist() == [2, 2]
    assert longest_first(values_of(b"x", b""), np.array([0, 0]), hash_of).tolist() == [1, 0]
    # Four values have a first step, three a second one, two a third one.
    assert seen == [([3, 3, 2, 1, 0], [4, 3, 2]), ([2, 2], [2]), ([1, 0], [])]


@pytest.mark.parametrize("longest", [255, 256, 65_535, 65_536])
def test_longest_first_orders_step_counts_of_any_size(longest: int) -> None:
    values = values_of(*[bytes([i]) for i in range(4)])
    counts = np.array([1, longest, 0, 2])

    def hash_of(ordered: ByteValues, ends: list[int]) -> byte_values.Words:
        assert (len(ends), ends[:3], ends[-1]) == (longest, [3, 2, 1], 1)
        return ordered.words_at(ordered.starts) & np.uint64(255)

    assert longest_first(values, counts, hash_of).tolist() == [0, 1, 2, 3]
    order: list[list[int]] = []
    longest_first(values, counts, lambda ordered, _: order.append(ordered.starts.tolist()) or np.zeros(4, np.uint64))
    assert order == [[1, 3, 0, 2]]
