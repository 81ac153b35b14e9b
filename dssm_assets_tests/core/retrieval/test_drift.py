"""Drift: a rotation is not one, a scramble is, and few ids are never turned onto noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.retrieval.drift import (
    Drift,
    compute_drift,
    find_common_ids,
    judge_drift,
)


def ids(*values: Any) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(list(values))])


def random(rows: int, dims: int, seed: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(size=(rows, dims)).astype(np.float32)


def test_common_ids_are_ascending() -> None:
    common, count = find_common_ids(ids("d", "b", "a"), ids("a", "b", "c", "e"), limit=10, seed=1)
    assert (common.to_pylist(), count) == (["a", "b"], 2)


def test_common_ids_beyond_the_limit_are_sampled_by_seed() -> None:
    many = ids(*range(100))
    first, again, other = (find_common_ids(many, many, limit=10, seed=seed)[0].to_pylist() for seed in (1, 1, 2))
    assert first == again == sorted(set(first))
    assert len(first) == 10
    assert first != other
    assert find_common_ids(many, many, limit=10, seed=1)[1] == 100


def test_text_and_integer_ids_have_no_id_in_common() -> None:
    assert find_common_ids(ids("1"), ids(1), limit=10, seed=1) == (pa.array([], pa.string()), 0)
    assert find_common_ids(pa.chunked_array([pa.array([1], pa.int32())]), ids(1), limit=10, seed=1)[1] == 1


def test_drift_cosines_by_hand() -> None:
    # Cosines 1, 0, -1 and 3/5, whatever the lengths: mean 0.15.
    found = compute_drift(np.array([[2, 0], [0, 5], [-1, 0], [3, 4]]), np.array([[1, 0], [7, 0], [1, 0], [1, 0]]), seed=0)
    assert found.raw == pytest.approx(0.15)


@settings(max_examples=25, deadline=None)
@given(dims=st.integers(2, 6), seed=st.integers(0, 1000), scale=st.floats(0.1, 10))
def test_aligned_cosine_ignores_rotation_mirroring_and_scale(dims: int, seed: int, scale: float) -> None:
    before = random(60, dims, seed)
    turn = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(dims, dims)))[0]
    found = compute_drift(before @ turn * scale, before, seed=3)
    assert found.aligned == pytest.approx(1, abs=1e-4)


def test_alignment_does_not_fit_noise() -> None:
    # Fitted and measured on the same 16 ids, 8 dimensions of noise would reach a mean cosine of about 0.57.
    found = [compute_drift(random(16, 8, seed), random(16, 8, seed + 100), seed=seed).aligned for seed in range(40)]
    means = [cosine for cosine in found if cosine is not None]
    assert len(means) == 40
    assert abs(np.mean(means)) < 0.1


def test_alignment_needs_enough_ids() -> None:
    assert compute_drift(random(15, 8, 1), random(15, 8, 2), seed=1).aligned is None
    assert compute_drift(random(16, 8, 1), random(16, 8, 2), seed=1).aligned is not None


def test_drift_skips_vectors_without_direction() -> None:
    before = np.array([[1, 0], [0, 0], [np.nan, 1], [np.inf, 1], [0, 1]])
    found = compute_drift(np.array([[1, 0], [1, 0], [1, 0], [1, 0], [0, 0]]), before, seed=0)
    assert found == Drift(1, 1.0, None)


def test_drift_of_different_widths_compares_nothing() -> None:
    assert compute_drift(random(9, 3, 1), random(9, 2, 1), seed=1) == Drift(0, None, None)


def verdict(found: Drift, *, before_count: int = 100) -> tuple[bool, str, dict[str, Any]]:
    return judge_drift(found, day="2024-01-01", common_count=2, before_count=before_count, width=2)


def test_drift_verdict_uses_the_aligned_cosine() -> None:
    low, high = 0.1, 0.5
    assert verdict(Drift(40, raw=low, aligned=high))[:2] == (
        True,
        "against 2024-01-01: mean cosine 0.5000 after alignment (floor 0.5), raw 0.1000, over 40 of 2 common ids",
    )
    assert not verdict(Drift(40, raw=high, aligned=low))[0]
    assert not verdict(Drift(40, raw=high, aligned=0.49))[0]


def test_replaced_ids_fail_and_a_tiny_table_passes() -> None:
    assert not verdict(Drift(2, 1.0, None), before_count=4)[0]
    assert verdict(Drift(2, 1.0, None), before_count=3)[0]
    assert "at least 4 are needed to align 2 dimensions" in verdict(Drift(2, 1.0, None))[1]
    assert "another width" in verdict(Drift(0, None, None))[1]
