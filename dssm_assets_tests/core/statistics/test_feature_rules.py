"""Shares of values in shared buckets, by hand; texts of one 64-bit hash, by running the hash backwards."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.arrays.hashing import hash_texts, hash_values
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.statistics.feature_rules import collision_frac, expected_collision_frac, texts_of_one_hash

_MASK = (1 << 64) - 1
_MULTIPLIER = 0xC6A4A7935BD1E995


def test_values_that_share_a_bucket() -> None:
    # Buckets of 10: 0, 1, 1, 2, 2, 2, 9: two and three of seven share.
    hashes = np.array([10, 1, 21, 2, 12, 52, 9], np.uint64)
    assert collision_frac(hashes, 10) == 5 / 7
    assert collision_frac(hashes, 1) == 1.0
    assert collision_frac(hashes, 1000) == 0.0
    assert collision_frac(hashes[:1], 1) == 0.0
    assert collision_frac(hashes[:0], 10) == 0.0


def test_signed_hashes_have_the_buckets_of_the_unsigned() -> None:
    # 2^64 - 1 and 5 are both 0 modulo 5; as an integer of its own, -1 would be 4 with 9.
    assert collision_frac(np.array([-1, 5, 9]), 5) == 2 / 3


def test_expected_collision_frac_by_hand() -> None:
    # Three values in two buckets: a given one is alone if both others are in the other bucket, 1/4.
    assert expected_collision_frac(3, 2) == pytest.approx(0.75, rel=1e-12)
    assert expected_collision_frac(2, 10) == pytest.approx(0.1, rel=1e-12)
    assert [expected_collision_frac(count, 10) for count in (0, 1)] == [0.0, 0.0]
    assert [expected_collision_frac(count, 1) for count in (0, 1, 2, 9)] == [0.0, 0.0, 1.0, 1.0]
    assert expected_collision_frac(1_000_001, 1_000_000) == pytest.approx(1 - 1 / math.e, rel=1e-6)
    # A million texts and 64 bits: each has 999999 others in 2^64 buckets.
    assert expected_collision_frac(1_000_000, 1 << 64) == pytest.approx(999_999 / 2**64, rel=1e-9)


@pytest.mark.parametrize("function", HashFunction)
@pytest.mark.parametrize("bucket_count", [100_000, 500_000, 1_000_003])
def test_hashes_fill_their_buckets_uniformly(function: HashFunction, bucket_count: int) -> None:
    hashes = hash_values(pa.array([f"item_{number}" for number in range(100_000)]), function)
    # Five standard deviations: a share of 100000 values, whose collisions come mostly in pairs.
    expected = expected_collision_frac(len(hashes), bucket_count)
    assert abs(collision_frac(hashes, bucket_count) - expected) < 5 * math.sqrt(2 * expected * (1 - expected) / len(hashes))


def test_bucket_count_below_1_is_refused() -> None:
    for bucket_count in (0, -1):
        with pytest.raises(ValueError, match=f"1 bucket or more, got {bucket_count}"):
            collision_frac(np.array([1]), bucket_count)
        with pytest.raises(ValueError, match=f"1 bucket or more, got {bucket_count}"):
            expected_collision_frac(1, bucket_count)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        expected_collision_frac(-1, 10)


@given(st.lists(st.integers(0, 2**64 - 1), unique=True, max_size=50), st.integers(1, 60))
def test_collision_frac_counts_every_value_with_a_neighbour(hashes: list[int], bucket_count: int) -> None:
    buckets = [value % bucket_count for value in hashes]
    shared = sum(buckets.count(bucket) > 1 for bucket in buckets)
    assert collision_frac(np.array(hashes, np.uint64), bucket_count) == (shared / len(hashes) if hashes else 0.0)


def same_hash_text(text: bytes) -> bytes:
    """Returns other 16 bytes of ASCII whose MurmurHash64A is that of the given 16.

    Every step can be undone: for another first word there is one second word that leads to the same state.
    """
    inverse = pow(_MULTIPLIER, -1, 1 << 64)

    def mixed(word: int) -> int:
        word = word * _MULTIPLIER & _MASK
        return (word ^ (word >> 47)) * _MULTIPLIER & _MASK

    def unmixed(word: int) -> int:
        word = word * inverse & _MASK
        return (word ^ (word >> 47)) * inverse & _MASK

    def after_first(data: bytes) -> int:
        start = 0xC70F6907 ^ (16 * _MULTIPLIER & _MASK)
        return (start ^ mixed(int.from_bytes(data, "little"))) * _MULTIPLIER & _MASK

    second = mixed(int.from_bytes(text[8:], "little")) ^ after_first(text[:8])
    for number in range(100_000):
        first = b"%08d" % number
        found = first + unmixed(second ^ after_first(first)).to_bytes(8, "little")
        if found.isascii() and found != text:
            return found
    raise AssertionError("no text with the same hash among 100000 first words, where one in 256 is expected")


def test_texts_of_one_hash() -> None:
    first, second = "user_id=12345678", "category=garden!"
    twins = [same_hash_text(text.encode()).decode() for text in (first, second)]
    assert hash_texts([first, second]).tolist() == hash_texts(twins).tolist()
    # Twice the same text is no collision, nor are nulls.
    column = pa.array([second, first, None, "alone", twins[0], first, None, twins[1]])
    expected = sorted(tuple(sorted(pair)) for pair in zip((first, second), twins, strict=True))
    assert texts_of_one_hash(column) == expected
    assert texts_of_one_hash(pa.chunked_array([column[:4], column[4:]])) == expected
    assert texts_of_one_hash(column.dictionary_encode()) == expected
    assert texts_of_one_hash(column.dictionary_encode().dictionary) == expected
    # They were made for the one function, the other tells them apart.
    assert texts_of_one_hash(column, HashFunction.FARM) == []
    assert texts_of_one_hash(pa.array(["", "\0", "\0\0"])) == []
    assert texts_of_one_hash(pa.array([], pa.string())) == []
