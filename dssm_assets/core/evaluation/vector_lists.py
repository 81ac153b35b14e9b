"""Lists of users with truth from anybody's vectors, block by block, and the rows that show them.

Belongs here: the search and the detail of a block. Does not belong here: who is counted, rates (`vector_evaluation.py`).

Shapes: U users with truth, B users of a block, P truth pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import USER_ID
from dssm_assets.core.evaluation.hit_counts import TRUTH_COUNT, sums_per_user
from dssm_assets.core.evaluation.ids import positions
from dssm_assets.core.evaluation.places import hit_ranks
from dssm_assets.core.evaluation.truth import Mask, Truth
from dssm_assets.core.evaluation.vector_sets import VectorSet
from dssm_assets.core.retrieval.corpus import Corpus
from dssm_assets.core.retrieval.exact import BLOCK_SIZE, Scores
from dssm_assets.core.retrieval.exclusions import Exclusions, Index
from dssm_assets.core.retrieval.interests import search_interests
from dssm_assets.core.retrieval.metrics import Metric


@dataclass(frozen=True)
class EvaluationSettings:
    """What is asked.

    Attributes:
        ks: cut-offs, ascending.
        metric: how vectors are compared.
        bootstrap_samples: resamples of the interval.
        seed: of the resamples.
        block_size: vectors searched at once, which bounds the memory.
        threads: blocks searched at the same time.
    """

    ks: tuple[int, ...] = (10, 50, 100, 200)
    metric: Metric = Metric.IP
    bootstrap_samples: int = 1000
    seed: int = 17
    block_size: int = BLOCK_SIZE
    threads: int = 1


class VectorLists:
    """The lists of the users with truth, block by block."""

    def __init__(
        self, users: VectorSet, items: VectorSet, truth: Truth, excluded: Exclusions, settings: EvaluationSettings
    ) -> None:
        self.users, self.items, self.truth, self.excluded, self.settings = users, items, truth, excluded, settings
        self.vector_row = positions(truth.user_ids, users.ids)
        self.corpus = Corpus(items.vectors, settings.metric, items.ids, is_checked=True)

    def ranks(self, on_detail: Callable[[pa.Table], None] | None) -> Index:
        """Returns the rank of every truth pair (int64 [P], K if missed)."""
        parts = []
        step = self.settings.block_size * max(self.settings.threads, 1)
        for start in range(0, self.truth.num_users, step):
            rows = np.arange(start, min(start + step, self.truth.num_users))
            top_items, top_scores = self._lists(rows)
            block = self.truth.users_from(start, start + len(rows))
            parts.append(hit_ranks(top_items, block.pair_user, block.pair_item))
            if on_detail is not None:
                on_detail(detail_rows(top_items, top_scores, block, parts[-1], self.items.ids))
        return np.concatenate(parts)

    def _lists(self, rows: Index) -> tuple[Index, Scores]:
        k = self.settings.ks[-1]
        index = np.full((len(rows), k), -1, dtype=np.int64)
        scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
        served = np.flatnonzero(self.vector_row[rows] >= 0)
        vectors, bounds = self.users.take(self.vector_row[rows[served]])
        index[served], scores[served] = search_interests(
            self.corpus,
            vectors,
            bounds,
            k,
            excluded=self.excluded.take(rows[served]),
            block_size=self.settings.block_size,
            threads=self.settings.threads,
            is_checked=True,
        )
        return index, scores


def detail_rows(top_items: Index, top_scores: Scores, truth: Truth, ranks: Index, item_ids: pa.Array) -> pa.Table:
    """Returns one row per user: user_id, topk_ids, topk_scores, hit_ids, bad_ids, hits, truth_count, hitrate.

    Args:
        top_items: int64 [B, K] without repetitions, -1 from where the list ends.
        top_scores: float32 [B, K].
        truth: the users of the block, all with truth, and what they took.
        ranks: int64 [P], as of `hit_ranks`.
        item_ids: the corpus.
    """
    is_item = top_items >= 0
    is_hit = np.zeros(top_items.shape, dtype=bool)
    found = ranks < top_items.shape[1]
    is_hit[truth.pair_user[found], ranks[found]] = True
    truth_count = sums_per_user(truth, np.ones_like(found))
    hits = sums_per_user(truth, found)

    def lists(mask: Mask, values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32), values)

    def ids(mask: Mask) -> pa.Array:
        return lists(mask, item_ids.take(pa.array(top_items[mask])))

    return pa.table(
        {
            USER_ID: truth.user_ids,
            "topk_ids": ids(is_item),
            "topk_scores": lists(is_item, pa.array(top_scores[is_item])),
            "hit_ids": ids(is_hit),
            "bad_ids": ids(is_item & ~is_hit),
            "hits": pa.array(hits),
            TRUTH_COUNT: pa.array(truth_count),
            "hitrate": pa.array(hits / truth_count),
        }
    )
