"""MurmurHash64A: the buckets of the reference, the hashes of libstdc++, and a byte-wise model."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.features.hashing import murmur_hash64a
from dssm_assets_tests.core.features.hash_goldens import Golden, goldens

_MASK = (1 << 64) - 1
_MULTIPLIER = 0xC6A4A7935BD1E995

AT_100_BUCKETS = {
    "abc": 33, "efg": 44, "hij": 66, "xyz": 13, "1": 95, "2": 70, "3": 13, "4": 56,
    "ua_ia": 37, "ua_ib": 90, "ub_ia": 5, "ub_ib": 97, "x": 35, "y": 30, "z": 54,
}  # fmt: skip


def model(data: bytes) -> int:
    """The published algorithm, one value at a time in unbounded integers."""
    state = 0xC70F6907 ^ (len(data) * _MULTIPLIER & _MASK)
    whole = len(data) - len(data) % 8
    for start in range(0, whole, 8):
        block = int.from_bytes(data[start : start + 8], "little") * _MULTIPLIER & _MASK
        block = (block ^ (block >> 47)) * _MULTIPLIER & _MASK
        state = (state ^ block) * _MULTIPLIER & _MASK
    if data[whole:]:
        state = (state ^ int.from_bytes(data[whole:], "little")) * _MULTIPLIER & _MASK
    state = (state ^ (state >> 47)) * _MULTIPLIER & _MASK
    return state ^ (state >> 47)


@pytest.mark.parametrize(("text", "bucket"), AT_100_BUCKETS.items())
def test_buckets_of_the_reference(text: str, bucket: int) -> None:
    assert int(murmur_hash64a(pa.array([text]))[0]) % 100 == bucket


@pytest.mark.parametrize("golden", goldens(), ids=lambda golden: len(golden.value))
def test_hashes_of_libstdcxx(golden: Golden) -> None:
    assert murmur_hash64a(pa.array([golden.value])).tolist() == [golden.murmur]


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_equals_the_byte_wise_model(values: list[bytes]) -> None:
    assert murmur_hash64a(pa.array(values, pa.binary())).tolist() == [model(value) for value in values]
