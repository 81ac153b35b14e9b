"""Which samples are queued, and with what probability an item is."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.models.samplers.queue import queued_items, queued_slice
from dssm_assets_tests.core.models.samplers.chi_square import LEAST_P, p_value


@pytest.mark.parametrize(
    ("step", "batches", "places"),
    [(5, 2, range(30, 50)), (1, 2, range(10)), (0, 2, range(0)), (3, 3, range(30)), (7, 0, range(0))],
)
def test_queued_slice_by_hand(step: int, batches: int, places: range) -> None:
    assert list(range(100))[queued_slice(step, 10, batches)] == list(places)


def test_queued_items_follow_the_share_of_samples_by_chi_square() -> None:
    items = np.repeat(np.arange(10, dtype=np.int32), np.arange(5, 55, 5))  # 275 samples
    share = np.bincount(items) / len(items)
    found = []
    for epoch in range(300):
        order = np.random.default_rng([3, epoch]).permutation(len(items))
        index, probability = queued_items(items[order[queued_slice(2, 10, 1)]], share)
        assert probability.tolist() == share[index].tolist()
        found.append(index[0])
    # One sample of each epoch: those of one epoch are drawn without replacement.
    assert p_value(np.array(found), share) > LEAST_P
    assert p_value(np.array(found), np.full(10, 0.1)) < LEAST_P
