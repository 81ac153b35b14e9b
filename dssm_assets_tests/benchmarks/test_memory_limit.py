"""The limit: what exceeds it fails, what stays below goes through, and what was used is seen from outside."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks.memory_limit import run_limited


def hold(mib: int) -> int:
    """Holds so much memory for a while."""
    import time

    held = bytearray(mib * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    time.sleep(0.3)
    return len(held)


def test_what_stays_below_goes_through_and_is_seen() -> None:
    seen = run_limited(hold, 400, mib=100)
    assert seen.result == 100 * 2**20
    assert 100 <= seen.resident_mib <= seen.counted_mib <= 400


def test_what_exceeds_the_limit_fails() -> None:
    with pytest.raises(MemoryError, match=r"(?s)hold ended with 1 under 200 MiB.*MemoryError"):
        run_limited(hold, 200, mib=300)
