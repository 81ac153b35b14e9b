"""hit_rate@k of vectors on a validation set, by hand and by brute force."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.model import Model
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training import loop, prior_choice, validation
from dssm_assets.core.training.data import ItemSets
from dssm_assets.core.training.distributed.ranks import ALONE
from dssm_assets.core.training.loop import EpochEvaluator
from dssm_assets.core.training.validation import cut_of, hit_rate, item_vectors, user_blocks
from dssm_assets_tests.core.training.worlds import FEATURES, ITEMS, SMALL_MODEL, world


def _asked(items: list[list[int]], num_items: int) -> Any:
    offsets: IntArray = np.cumsum([0, *map(len, items)])
    truth = ItemSets(np.array([item for one in items for item in one], np.int64), offsets)
    return SimpleNamespace(truth=truth, num_items=num_items, num_users=len(items))


def test_hit_rate_by_hand() -> None:
    # Items (1, 0), (0, 1), (.6, .8); user 0 looks along the first: order 0, 2, 1; user 1 along the second: 1, 2, 0.
    items = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[1, 0], [0, 1]], np.float32)
    asked = _asked([[0, 1], [0]], 3)
    assert hit_rate([users], items, asked, 1) == pytest.approx(1 / 3)
    assert hit_rate([users], items, asked, 2) == pytest.approx(1 / 3)
    assert hit_rate([users], items, asked, 3) == 1.0


def test_an_item_counts_by_the_best_of_a_users_vectors() -> None:
    items = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[[1, 0], [0, 1]]], np.float32)
    assert hit_rate([users], items, _asked([[0, 1]], 3), 2) == 1.0
    assert hit_rate([users], items, _asked([[2]], 3), 2) == 0.0


def test_equals_brute_force_on_a_real_set() -> None:
    spec = tower_spec(FEATURES, Model(**SMALL_MODEL))
    asked = world().data(spec).validation_set(1)
    towers = TwoTower(spec, torch.Generator().manual_seed(0))
    users, items = np.concatenate(list(user_blocks(towers, asked))), item_vectors(towers, asked)
    assert (len(users), len(items)) == (asked.num_users, ITEMS)
    hits = 0
    for user in range(asked.num_users):
        best = np.argsort(-(users[user].astype(np.float64) @ items.T.astype(np.float64)), kind="stable")[:4]
        taken = asked.truth.items[asked.truth.offsets[user] : asked.truth.offsets[user + 1]]
        hits += len(set(best.tolist()) & set(taken.tolist()))
    assert 0 < hits < len(asked.truth.items)
    assert hit_rate([users], items, asked, 4) == pytest.approx(hits / len(asked.truth.items))


@pytest.mark.parametrize("changes", [{}, {"num_interests": 2, "poolings": [{"kind": "attention"}]}])
def test_a_score_does_not_depend_on_the_blocks_in_which_users_come(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model(**{**SMALL_MODEL, **changes, "prior": True})
    spec = tower_spec(FEATURES, model)
    towers, judge = (
        TwoTower(spec, torch.Generator().manual_seed(0)),
        EpochEvaluator(world().data(spec), 1, model, (3,), is_asked=True),
    )
    monkeypatch.setattr(prior_choice, "CELLS", 5 * ITEMS)  # the prior is chosen on 5 of the users
    whole = judge.score(towers, 1, ALONE)
    monkeypatch.setattr(validation, "BLOCK_ROWS", 3)
    largest = 0

    def watched(users: Any, *given: Any) -> float:
        def one_by_one() -> Any:
            nonlocal largest
            for block in users:
                largest = max(largest, len(block))
                yield block

        return hit_rate(one_by_one(), *given)

    monkeypatch.setattr(loop, "hit_rate", watched)
    in_blocks = judge.score(towers, 1, ALONE)
    assert largest == 3
    assert in_blocks.prior == whole.prior
    assert (in_blocks.hit_rate, in_blocks.plain_hit_rate) == (whole.hit_rate, whole.plain_hit_rate)
    assert 0 < whole.plain_hit_rate < 1


@pytest.mark.parametrize(("ks", "num_items", "cut"), [([10, 50, 200], 1000, 200), ([10, 50, 200], 200, 50), ([10, 50], 5, 10)])
def test_the_cut_tells_towers_apart(ks: list[int], num_items: int, cut: int) -> None:
    assert cut_of(ks, num_items) == cut
