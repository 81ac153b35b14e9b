"""Exact top-k search: the reference that every index is measured against.

Belongs here: the search over vectors and the selection from a block of scores, both with one tie rule. Does not belong
here: approximate indexes, and what the lists are used for (`core/evaluation`, the serving bundle).

Scores are those of `metrics.py`; ties go to the lower item_index. Quick products (`coarse.py`) only propose candidates,
and a list made from them counts only with proof (`candidates.py`, `ranking.py`): a user without one is searched by finer
products, then by every score. So the result is a function of the input alone, whatever the processor, the threads and
the block size.

Memory beyond the vectors: per thread, block_size times 2,048 scores and a thousand candidates or so; the scores of users without proof, BRUTE_CELLS at a time.

Shapes: U users, B users of a block, I items, D vector dimension, K top-k.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import Exclusions, IntArray, check_exclusions, no_exclusions
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.candidates import Sample
from dssm_assets.core.retrieval.coarse import Coarse, has_byte_products, lengths
from dssm_assets.core.retrieval.corpus import Corpus
from dssm_assets.core.retrieval.metrics import Metric, all_scores
from dssm_assets.core.retrieval.ranking import rank_block
from dssm_assets.core.retrieval.vectors import Vectors, check_vectors, scaled

Scores = NDArray[np.float32]

BLOCK_SIZE = 1024
BLOCK_CELLS = 2**24
"""Candidates of a block held at once, about: long lists make blocks smaller."""
BRUTE_CELLS = 4_000_000
"""Scores held at once where every item of a user is scored."""
BYTES_FROM = 1024
"""Users searched at once from which byte products repay their start, which is paid by the item."""
TOO_LONG = 1e37
"""Products of lengths beyond which float32 may overflow."""


def top_k(
    user_vectors: NDArray[np.floating[Any]],
    item_vectors: NDArray[np.floating[Any]],
    k: int,
    *,
    similarity: Similarity | Metric,
    excluded: Exclusions | tuple[IntArray, IntArray] | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
    user_ids: Any = None,
    item_ids: Any = None,
) -> tuple[IntArray, Scores]:
    """Returns each user's k best items: score descending, then item_index ascending, also across the cut at k.

    Who searches the same items again keeps a `Corpus` and calls `search`.

    Args:
        user_vectors: [U, D].
        item_vectors: [I, D].
        k: length of the lists.
        similarity: how vectors are compared: ip, cosine (both sides are brought to unit length first) or l2.
        excluded: items that a user must not be given: (indptr int64 [U + 1], indices int64).
        block_size: users searched at once: memory against speed, never the result.
        threads: blocks searched at the same time.
        user_ids: names for error messages.
        item_ids: names for error messages.

    Returns:
        item_index int64 [U, K] and scores float32 [U, K] (L2: minus the squared distance); where fewer than k items
        remain, -1 and -inf.

    Raises:
        InputError: for NaN, infinite or zero vectors, naming how many and the first ids, and for exclusions that do not fit.
    """
    check_vectors({"user": (user_vectors, user_ids), "item": (item_vectors, item_ids)})
    corpus = Corpus(item_vectors, similarity, is_checked=True)
    return search(corpus, user_vectors, k, excluded=excluded, block_size=block_size, threads=threads, is_checked=True)


def search(
    corpus: Corpus,
    user_vectors: NDArray[np.floating[Any]],
    k: int,
    *,
    excluded: Exclusions | tuple[IntArray, IntArray] | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
    user_ids: Any = None,
    is_checked: bool = False,
) -> tuple[IntArray, Scores]:
    """Returns what `top_k` does, for items that are ready.

    Args:
        corpus: the items.
        user_vectors: [U, D].
        k: length of the lists.
        excluded: as of `top_k`.
        block_size: as of `top_k`.
        threads: as of `top_k`.
        user_ids: names for error messages.
        is_checked: the user vectors were checked.

    Raises:
        InputError: for unusable user vectors and for exclusions that do not fit.
    """
    if k < 1:
        raise InputError(Fault("top_k, k", "at least 1", str(k), "ask for a longer list"))
    if not is_checked:
        check_vectors({"user": (user_vectors, user_ids)}, width=corpus.vectors.shape[1])
    users = scaled(user_vectors, corpus.metric)
    kept_out = no_exclusions(len(users)) if excluded is None else Exclusions(*excluded)
    check_exclusions(kept_out, len(users), len(corpus))
    return _Search(corpus, users, k, kept_out, block_size, threads).run()


def top_k_scores(
    scores: NDArray[np.floating[Any]], k: int, excluded: Exclusions | tuple[IntArray, IntArray] | None = None
) -> tuple[IntArray, Scores]:
    """Returns the k best of each row of a dense block under the tie rule of `top_k`. A score of -inf is no candidate.

    Args:
        scores: [B, I]; not changed.
        k: length of the lists.
        excluded: items left out, one row of the exclusions per row of the block.

    Raises:
        InputError: if a score is NaN or the exclusions do not fit.
    """
    num_users, num_items = scores.shape
    missing = int(np.isnan(scores).sum())
    if missing:
        raise InputError(Fault("scores", "numbers", f"{missing} NaN", "find the scorer that divides by zero"))
    if excluded is not None:
        kept_out = Exclusions(*excluded)
        check_exclusions(kept_out, num_users, num_items)
        scores = np.where(kept_out.mask(num_items), scores.dtype.type(-np.inf), scores)
    kept = min(k, num_items)
    index = np.full((num_users, k), -1, dtype=np.int64)
    best = np.full((num_users, k), -np.inf, dtype=np.float32)
    if kept == 0 or num_users == 0:
        return index, best
    # Of the negatives: with thousands of ties at -inf, as sparse scores have, it is six times faster this way around.
    cut = -np.partition(-scores, kept - 1, axis=1)[:, kept - 1, None]  # [B, 1], the k-th best score
    above, level = scores > cut, scores == cut
    room = kept - above.sum(axis=1, keepdims=True)
    chosen = above | (level & (np.cumsum(level, axis=1) <= room))  # of the tied ones, the lowest indices
    candidates = np.nonzero(chosen)[1].reshape(num_users, kept)
    values = np.take_along_axis(scores, candidates, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    candidates, values = np.take_along_axis(candidates, order, axis=1), np.take_along_axis(values, order, axis=1)
    index[:, :kept] = np.where(np.isneginf(values), -1, candidates)
    best[:, :kept] = values
    return index, best


class _Search:
    """One search: users go from quick products to finer ones to every score, until each has its list."""

    def __init__(self, corpus: Corpus, users: Vectors, k: int, excluded: Exclusions, block_size: int, threads: int) -> None:
        self.corpus, self.users, self.k, self.excluded = corpus, users, k, excluded
        self.block_size, self.threads = block_size, threads
        self.index = np.full((len(users), k), -1, dtype=np.int64)
        self.scores = np.full((len(users), k), -np.inf, dtype=np.float32)

    def run(self) -> tuple[IntArray, Scores]:
        """Returns the lists."""
        is_short = lengths(self.users) * max(self.corpus.longest, 1.0) + self.corpus.longest**2 < TOO_LONG
        pending = np.flatnonzero(is_short)
        for coarse, reach in self._stages(len(pending)):
            pending = self._propose(pending, coarse, Sample(len(self.corpus), self.k, reach))
        self._brute_force(np.concatenate([pending, np.flatnonzero(~is_short)]))
        return self.index, self.scores

    def _stages(self, num_users: int) -> list[tuple[Coarse, int]]:
        finest: tuple[Coarse, int] = (self.corpus.float_coarse, 4)
        is_large = num_users >= BYTES_FROM
        if is_large and self.corpus.metric is not Metric.L2 and has_byte_products(self.users.shape[1]):
            return [(self.corpus.byte_coarse, 1), finest]
        return [(self.corpus.float_coarse, 1), finest]

    def _propose(self, pending: IntArray, coarse: Coarse, sample: Sample) -> IntArray:
        """Fills the lists of users that have a proof; returns the others."""
        size = max(1, min(self.block_size, BLOCK_CELLS // max(4 * sample.expected, len(sample.rows) // sample.group)))
        blocks = [pending[start : start + size] for start in range(0, len(pending), size)]

        def fill(block: IntArray) -> IntArray:
            proven, index, scores = rank_block(
                self.corpus, coarse, self.users[block], self.k, self.excluded.select_users(block), sample
            )
            done = block[proven]
            self.index[done], self.scores[done] = index[proven], scores[proven]
            return block[~proven]

        if self.threads == 1 or len(blocks) < 2:
            left = [fill(block) for block in blocks]
        else:
            with ThreadPoolExecutor(self.threads) as pool:
                left = list(pool.map(fill, blocks))
        return np.concatenate([np.zeros(0, np.int64), *left])

    def _brute_force(self, rows: IntArray) -> None:
        """Fills the lists of the given users from the scores of every item."""
        step = max(1, BRUTE_CELLS // len(self.corpus))
        for start in range(0, len(rows), step):
            block = rows[start : start + step]
            scores = all_scores(self.users[block], self.corpus.by_dimension, self.corpus.metric)
            excluded = self.excluded.select_users(block)
            self.index[block], self.scores[block] = top_k_scores(scores, self.k, excluded if len(excluded.indices) else None)
