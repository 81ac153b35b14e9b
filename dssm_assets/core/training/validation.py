"""How well towers recall what happened on days that they were not trained on.

Belongs here: the hit rate of towers on a validation set, and which k it is taken at. Does not belong here: who is in the
set (`validation_set`), the prior's choice (`prior_choice`) and what follows from a score (`loop`).

hit_rate@k = truth pairs whose item is among the k best of their user / truth pairs, by exact search over the corpus.

Letters: B users of a block, I items, K interests, D vector width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, row_of_value
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.corpus import Corpus
from dssm_assets.core.retrieval.interests import flat_interests, search_interests
from dssm_assets.core.retrieval.metrics import Metric
from dssm_assets.core.training.data import ValidationSet
from dssm_assets.core.training.distributed.ranks import ALONE, Ranks

BLOCK_ROWS = 2048


def user_blocks(towers: TwoTower, validation: ValidationSet, ranks: Ranks = ALONE) -> Iterator[FloatArray]:
    """Yields the vectors of the users, a block [B, D] or [B, K, D] after the other; in processes but the first none.

    Each process computes its share of every block, so all must take it to its end.
    """
    return _blocks(validation.num_users, lambda rows: towers.user_vectors(validation.read_users(rows)), ranks)


def item_vectors(towers: TwoTower, validation: ValidationSet, ranks: Ranks = ALONE) -> FloatArray:
    """Returns the vectors of the items [I, D]; in processes but the first none."""
    made = list(_blocks(validation.num_items, lambda rows: towers.item_vectors(validation.read_items(rows)), ranks))
    return np.concatenate(made) if made else np.zeros((0, 0), np.float32)


def hit_rate(users: Iterable[FloatArray], items: FloatArray, validation: ValidationSet, k: int) -> float:
    """Returns hit_rate@k of these vectors by their inner product; the lists of one block of users are held at once.

    By hand: of three pairs, one user's lists hold one of its two items and another's its one: 2 / 3.

    Args:
        users: vectors of all users in their order, in blocks.
        items: vectors of the corpus.
        validation: the truth.
        k: length of the lists.
    """
    # Towers of cosine similarity have vectors of length 1, so the product is the cosine; a prior's dimension is beside it.
    corpus = Corpus(items, Metric.IP, is_checked=True)
    truth, width = validation.truth, validation.num_items
    hits = begin = 0
    for block in users:
        flat, bounds = flat_interests(block)
        found, _ = search_interests(corpus, flat, bounds, k, is_checked=True)
        offsets = truth.offsets[begin : begin + len(block) + 1]
        listed = (np.arange(len(found))[:, None] * width + found)[found >= 0]
        asked = row_of_value(offsets - offsets[0]) * width + truth.items[offsets[0] : offsets[-1]]
        hits += int(np.isin(asked, listed).sum())
        begin += len(block)
    return hits / len(truth.items)


def cut_of(ks: Sequence[int], num_items: int) -> int:
    """Returns the k at which towers are told apart: the largest below the number of items, else the smallest.

    A list as long as the corpus holds everything, whatever the towers are.
    """
    return max((k for k in ks if k < num_items), default=min(ks))


def _blocks(count: int, vectors: Callable[[IntArray], Tensor], ranks: Ranks) -> Iterator[npt.NDArray[np.float32]]:
    for begin in range(0, count, BLOCK_ROWS):
        rows = np.arange(begin, min(begin + BLOCK_ROWS, count), dtype=np.int64)
        with torch.no_grad():
            found = ranks.gathered(vectors(rows[ranks.rows(len(rows))]).float(), len(rows))
        if ranks.is_first:
            yield found.cpu().numpy()
