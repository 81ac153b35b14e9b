"""Coarse scores lie as near to the defined ones as they say."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.retrieval.coarse import ByteCoarse, FloatCoarse, has_byte_products, lengths
from dssm_assets.core.retrieval.metrics import Metric, all_scores


def clusters(rng: np.random.Generator, count: int, dim: int, spread: float) -> np.ndarray:
    centre = rng.normal(size=(1, dim)) * 3
    return (centre + rng.normal(size=(count, dim)) * spread * rng.lognormal(0, 1, size=(count, 1))).astype(np.float32)


@pytest.mark.parametrize("kind", ["float", "bytes", "l2"])
@pytest.mark.parametrize("dim", [1, 3, 64, 300])
@pytest.mark.parametrize("spread", [1e-4, 1.0])
@pytest.mark.parametrize("size", [1e-6, 1.0, 1e6])
def test_the_margin_holds_for_every_pair(kind: str, dim: int, spread: float, size: float) -> None:
    rng = np.random.default_rng(dim)
    users, items = (clusters(rng, count, dim, spread) * np.float32(size) for count in (20, 200))
    metric = Metric.L2 if kind == "l2" else Metric.IP
    coarse = ByteCoarse(items) if kind == "bytes" else FloatCoarse(items, metric, float(lengths(items).max()))
    query = coarse.query(users)
    scores = np.empty((20, 200), coarse.kind)
    if kind == "bytes" and not has_byte_products(dim):
        scores[:] = query.matrix.astype(np.int32) @ coarse.items.T.astype(np.int32)
    else:
        coarse.multiply(query, slice(0, 200), scores)
    defined = all_scores(users, np.ascontiguousarray(items.T), metric).astype(np.float64)
    gap = np.abs(scores - (defined * query.scale[:, None] + query.shift[:, None]))
    assert (gap <= query.margin[:, None]).all()
    if dim > 1:
        assert gap.max() > 0  # scores that are never off would prove nothing here


@pytest.mark.skipif(not has_byte_products(16), reason="this processor has no quick products of bytes")
def test_chosen_items_get_the_scores_they_get_among_all() -> None:
    rng = np.random.default_rng(0)
    users, items = rng.normal(size=(5, 16)).astype(np.float32), rng.normal(size=(90, 16)).astype(np.float32)
    coarse, chosen = ByteCoarse(items), np.array([3, 7, 80])
    query, whole, part = coarse.query(users), np.empty((5, 90), np.int32), np.empty((5, 3), np.int32)
    coarse.multiply(query, slice(0, 90), whole)
    coarse.multiply(query, chosen, part)
    assert (whole[:, chosen] == part).all()
    assert whole.tolist() == (query.matrix.astype(int) @ coarse.items.astype(int).T).tolist()


def test_lengths_by_hand() -> None:
    assert lengths(np.array([[3.0, 4.0], [0.0, 2.0]], np.float32)).tolist() == [5, 2]


def test_products_of_bytes_are_not_trusted_where_they_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "_int_mm", lambda left, right, out: out.fill_(0))
    assert not has_byte_products.__wrapped__(16)
