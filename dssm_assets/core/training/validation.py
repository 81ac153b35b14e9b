"""How well towers recall what happened on days that they were not trained on.

Belongs here: the hit rate of towers on a validation set, and which k it is taken at. Does not belong here: who is in the
set (`validation_set`), the prior's choice (`prior_choice`) and what follows from a score (`loop`).

hit_rate@k = truth pairs whose item is among the k best of their user / truth pairs, by exact search over the corpus.

Letters: U users, I items, K interests, D vector width, P truth pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets.core.models.bags import FloatArray, IntArray, row_of
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.corpus import Corpus
from dssm_assets.core.retrieval.interests import flat_interests, search_interests
from dssm_assets.core.retrieval.metrics import Metric
from dssm_assets.core.training.distributed import ALONE, Ranks
from dssm_assets.core.training.validation_set import ValidationSet

BLOCK_ROWS = 2048


def vectors_of(towers: TwoTower, validation: ValidationSet, ranks: Ranks = ALONE) -> tuple[FloatArray, FloatArray]:
    """Returns the vectors of the users [U, D] or [U, K, D] and of the items [I, D]; in processes but the first none."""
    users = _in_blocks(validation.num_users, lambda rows: towers.user_vectors(validation.read_users(rows)), ranks)
    return users, _in_blocks(validation.num_items, lambda rows: towers.item_vectors(validation.read_items(rows)), ranks)


def hit_rate(users: FloatArray, items: FloatArray, validation: ValidationSet, k: int) -> float:
    """Returns hit_rate@k of these vectors by their inner product.

    By hand: of three pairs, one user's lists hold one of its two items and another's its one: 2 / 3.
    """
    flat, bounds = flat_interests(users)
    # Towers of cosine similarity have vectors of length 1, so the product is the cosine; a prior's dimension is beside it.
    found, _ = search_interests(Corpus(items, Metric.IP, is_checked=True), flat, bounds, k, is_checked=True)
    width = validation.num_items
    listed = (np.arange(len(found))[:, None] * width + found)[found >= 0]
    asked = row_of(validation.truth.offsets) * width + validation.truth.items
    return float(np.isin(asked, listed).mean())


def cut_of(ks: Sequence[int], num_items: int) -> int:
    """Returns the k at which towers are told apart: the largest below the number of items, else the smallest.

    A list as long as the corpus holds everything, whatever the towers are.
    """
    return max((k for k in ks if k < num_items), default=min(ks))


def _in_blocks(count: int, vectors: Callable[[IntArray], Tensor], ranks: Ranks) -> npt.NDArray[np.float32]:
    """Returns the vectors of so many rows, block by block; each process computes its share of every block."""
    made = []
    with torch.no_grad():
        for begin in range(0, count, BLOCK_ROWS):
            rows = np.arange(begin, min(begin + BLOCK_ROWS, count), dtype=np.int64)
            found = ranks.gathered(vectors(rows[ranks.rows(len(rows))]).float(), len(rows))
            if ranks.is_first:
                made.append(found.cpu().numpy())
    return np.concatenate(made) if made else np.zeros((0, 0), np.float32)
