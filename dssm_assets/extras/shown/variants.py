"""Assigns people to variants by GrowthBook's published rule; a shop with GrowthBook gets the same groups.

Source: GrowthBook's SDK specification, https://docs.growthbook.io/lib/build-your-own: `hash`, `getBucketRanges`, `chooseVariation`.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

Range = tuple[float, float]
"""From the first number up to, without, the second."""

_FNV_OFFSET: Final = 0x811C9DC5
_FNV_PRIME: Final = 0x01000193


def fnv1a(text: str) -> int:
    """Returns the FNV-1a hash of a text's code points, of 32 bits."""
    found = _FNV_OFFSET
    for character in text:
        found = ((found ^ ord(character)) * _FNV_PRIME) & 0xFFFFFFFF
    return found


def hash_person(seed: str, value: str, version: int = 2) -> float | None:
    """Returns a number from 0 to 1, without 1, for an id; None for an unknown version of the rule (1: the earlier rule)."""
    if version == 2:
        return fnv1a(str(fnv1a(seed + value))) % 10_000 / 10_000
    return fnv1a(value + seed) % 1000 / 1000 if version == 1 else None


def bucket_ranges(count: int, coverage: float = 1.0, weights: Sequence[float] | None = None) -> list[Range]:
    """Returns the range of each variant.

    It begins where it would under full coverage: when coverage rises, people join, and nobody changes variant.

    Args:
        coverage: fraction of the people in the experiment, clipped to 0 to 1.
        weights: share of each variant under full coverage; replaced by equal weights if their number is wrong or their sum is off 1 by .01.
    """
    coverage = min(max(coverage, 0.0), 1.0)
    if weights is None or len(weights) != count or not 0.99 <= sum(weights) <= 1.01:
        weights = [1 / count] * count
    starts = itertools.accumulate(weights, initial=0.0)
    return [(start, start + coverage * weight) for start, weight in zip(starts, weights, strict=False)]


def ranges_of_shares(shares: Sequence[float]) -> list[Range]:
    """Returns the ranges of variants by their shares of all people. If they sum to less than 1, the others are in no variant."""
    total = sum(shares)
    return bucket_ranges(len(shares), total, [share / total for share in shares])


def choose_variation(number: float | None, ranges: Sequence[Range]) -> int:
    """Returns the first variant whose range has the number; -1 if there is none."""
    if number is None:
        return -1
    return next((position for position, (start, end) in enumerate(ranges) if start <= number < end), -1)
