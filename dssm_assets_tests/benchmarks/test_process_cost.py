"""A process that exceeds the limit fails; one that stays below completes, and its memory is measured."""

from __future__ import annotations

import pytest

from dssm_assets_tests.benchmarks.process_cost import run_limited


def allocate(mib: int) -> int:
    """Allocates and writes this much memory, and keeps it for a while."""
    import time

    memory = bytearray(mib * 2**20)
    memory[::4096] = b"x" * len(memory[::4096])
    time.sleep(0.3)
    return len(memory)


def test_process_below_the_limit_completes_and_its_memory_is_measured() -> None:
    seen = run_limited(allocate, 400, mib=100)
    assert seen.result == 100 * 2**20
    assert 100 <= seen.resident_mib <= seen.counted_mib <= 400


def test_process_above_the_limit_fails() -> None:
    with pytest.raises(MemoryError, match=r"(?s)allocate ended with 1 under 200 MiB.*MemoryError"):
        run_limited(allocate, 200, mib=300)
