"""What can be evaluated: anything that ranks items for users. The model is one scorer, every baseline another.

Belongs here: what a scorer is, its lists with and without a user's own items, the model as a scorer. Does not belong here: the
other scorers (`baselines`, `core/channels/merge.py`), counting what the lists find (`hits.py`).

Shapes: U evaluated users, B users of a block, M vectors per user, I items, D vector dimension, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ids import cast_ids, check_unique, find_positions
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, Mask, combine_chunks
from dssm_assets.core.columns import ITEM_ID, ITEM_TOWER_EMB, USER_ID, USER_TOWER_EMB
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.evaluation_tables import MODEL
from dssm_assets.core.evaluation.scopes import Scope
from dssm_assets.core.retrieval.exact import Corpus, Scores
from dssm_assets.core.retrieval.interests import flatten_interests, score_interests, search_interests
from dssm_assets.core.retrieval.vectors import Metric, Vectors, to_matrix

MAX_ENTRIES: Final = 1 << 21
"""List entries ranked at once; longer lists are ranked for fewer users at a time."""


class Scorer(Protocol):
    """Gives each evaluated user a ranking of all items, of which callers see the first k."""

    @property
    def name(self) -> str:
        """Returns the name under which the results are stored."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K] for the given rows of the evaluated users.

        Best first, without duplicates, -1 after the last item. A shorter list is the beginning of a longer one.
        """


@runtime_checkable
class ExcludingScorer(Scorer, Protocol):
    """A scorer that leaves items out faster than by ranking a longer list, from which others drop them."""

    def top_items_without(self, user_rows: IntArray, k: int, excluded: Exclusions) -> IntArray:
        """Returns item_index int64 [B, K]: the list of `top_items` without the excluded items, filled up to K.

        Args:
            user_rows: rows of the evaluated users [B].
            excluded: items of these B users.
        """


class InteractedItems(NamedTuple):
    """What each of some users interacted with before the day."""

    window: Exclusions
    """Items of the window."""
    history: Exclusions
    """Items of all stored days, those of the window included."""

    def select_users(self, users: IntArray) -> InteractedItems:
        """Returns the items of the given users, in that order."""
        return InteractedItems(self.window.select_users(users), self.history.select_users(users))


class RankedLists(NamedTuple):
    """The lists of B users, int64 [B, K] each, -1 after the last item; or the ranks int64 [P] of truth pairs in them."""

    everything: IntArray
    """All items are candidates."""
    without_window: IntArray
    """Without the user's items of the window."""
    without_history: IntArray
    """Without all that the user interacted with before."""

    def in_scope(self, scope: Scope) -> IntArray:
        """Returns the lists, or ranks, of a scope."""
        others = {Scope.DISCOVERY: self.without_window, Scope.UNSEEN: self.without_history}
        return others.get(scope, self.everything)


def rank_items(scorer: Scorer, users: IntArray, own: InteractedItems, k: int) -> RankedLists:
    """Returns the lists of some users, with and without their own items.

    Args:
        users: rows of the evaluated users [B].
        own: items of these users.
    """
    ranked = scorer.top_items(users, 2 * k)  # long enough to lose the own items of most users
    return RankedLists(ranked[:, :k], *(leave_out(scorer, users, ranked, items, k) for items in own))


def leave_out(scorer: Scorer, users: IntArray, ranked: IntArray, own: Exclusions, k: int) -> IntArray:
    """Returns int64 [B, K], the lists without the own items, from rankings [B, L]; users whose ranking is too short are ranked again."""
    is_kept = _is_not_in(own, ranked)
    lists = keep_first(ranked, is_kept, k)
    # A list that ends in -1 contains all that the scorer has to offer.
    short = np.flatnonzero((is_kept.sum(axis=1) < k) & (ranked[:, -1] >= 0))
    if isinstance(scorer, ExcludingScorer) and len(short):
        lists[short] = scorer.top_items_without(users[short], k, own.select_users(short))
        return lists
    length = k + int(own.lengths[short].max(initial=0))
    step = max(1, MAX_ENTRIES // length)
    for start in range(0, len(short), step):
        rows = short[start : start + step]
        longer = scorer.top_items(users[rows], length)
        lists[rows] = keep_first(longer, _is_not_in(own.select_users(rows), longer), k)
    return lists


def _is_not_in(own: Exclusions, ranked: IntArray) -> Mask:
    return ~own.contains(np.arange(len(ranked))[:, None], ranked)


def keep_first(items: IntArray, is_kept: Mask, k: int) -> IntArray:
    """Returns int64 [B, K]: the first k kept entries of each row in their order, -1 after the last.

    Args:
        items: int64 [B, N].
        is_kept: bool [B, N].
    """
    counts = np.cumsum(is_kept, axis=1, dtype=np.int32)
    chosen = is_kept & (counts <= k)
    result = np.full((len(items), k), -1, dtype=np.int64)
    result[np.arange(k) < chosen.sum(axis=1)[:, None]] = items[chosen]
    return result


@dataclass(frozen=True)
class ModelScorer:
    """The trained model: exact search over its vectors.

    A user without a vector gets an empty list, not the list of a zero vector: the model had nothing to offer, and the
    user's truth still counts.
    """

    vector_row: IntArray
    """int64 [U]: row of each evaluated user in user_vectors, -1 without a vector."""
    user_vectors: Vectors
    """float32 [., M * D]"""
    item_vectors: Vectors
    """float32 [I, D]"""
    similarity: Similarity
    user_ids: pa.Array
    item_ids: pa.Array
    name: str = MODEL

    @cached_property
    def corpus(self) -> Corpus:
        """Returns the items ready to be searched: checked and scaled once, not once per block of users."""
        return Corpus(self.item_vectors, self.similarity, self.item_ids)

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        return self.top_k(user_rows, k)[0]

    def top_items_without(self, user_rows: IntArray, k: int, excluded: Exclusions) -> IntArray:
        return self.top_k(user_rows, k, excluded)[0]

    def top_k(self, user_rows: IntArray, k: int, excluded: Exclusions | None = None) -> tuple[IntArray, Scores]:
        """Returns item_index int64 [B, K] and scores float32 [B, K]; -1 and -inf where there is no item.

        Args:
            user_rows: rows of the evaluated users [B].
            excluded: items that are left out for these users.
        """
        index = np.full((len(user_rows), k), -1, dtype=np.int64)
        scores = np.full((len(user_rows), k), -np.inf, dtype=np.float32)
        with_vector = np.flatnonzero(self.vector_row[user_rows] >= 0)
        rows = self.vector_row[user_rows[with_vector]]
        vectors, bounds = flatten_interests(self.user_vectors[rows].reshape(len(rows), *self._shape))
        user_ids = self.user_ids.take(pa.array(user_rows[with_vector]))
        kept_out = None if excluded is None else excluded.select_users(with_vector)
        index[with_vector], scores[with_vector] = search_interests(
            self.corpus, vectors, bounds, k, excluded=kept_out, user_ids=user_ids
        )
        return index, scores

    def score_items(self, user_rows: IntArray, items: IntArray) -> npt.NDArray[np.float64]:
        """Returns the score of each item by the definition, float64 [B, C]; 0 for a user without a vector.

        Args:
            user_rows: rows of the evaluated users [B].
            items: item_index int64 [B, C]; that of -1 means nothing.
        """
        scores = np.zeros(items.shape)
        with_vector = np.flatnonzero(self.vector_row[user_rows] >= 0)
        rows = self.vector_row[user_rows[with_vector]]
        vectors = self.user_vectors[rows].reshape(len(rows), *self._shape)
        metric = Metric.from_similarity(self.similarity)
        scores[with_vector] = score_interests(vectors, self.corpus.vectors, items[with_vector], metric)
        return scores

    def for_users(self, user_vectors: pa.Table, user_ids: pa.Array) -> ModelScorer:
        """Returns the scorer of other users over the same items; reuses the prepared item corpus. See `model_scorer`."""
        other = replace(
            self,
            vector_row=_vector_rows(user_vectors, user_ids),
            user_vectors=to_matrix(user_vectors.column(USER_TOWER_EMB), "user_vectors, column user_tower_emb"),
            user_ids=user_ids,
        )
        vars(other)["corpus"] = self.corpus  # where cached_property looks for it
        return other

    @property
    def _shape(self) -> tuple[int, int]:
        """Returns (M, D) of a user's vectors. If the width is not a multiple of D, the search raises the error."""
        num_vectors, remainder = divmod(self.user_vectors.shape[1], self.item_vectors.shape[1])
        return (num_vectors, self.item_vectors.shape[1]) if num_vectors and not remainder else (1, self.user_vectors.shape[1])


class KnownLists:
    """A model as a scorer that keeps the lists of the users that were asked for last: the channel of vectors asks for them again."""

    def __init__(self, model: ModelScorer, depth: int) -> None:
        """Searches lists of this length at least."""
        self.name, self._model, self._depth = model.name, model, depth
        self._users, self._lists = np.zeros(0, np.int64), np.zeros((0, 0), np.int64)

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        if not np.array_equal(user_rows, self._users) or k > self._lists.shape[1]:
            self._users, self._lists = user_rows, self._model.top_items(user_rows, max(k, self._depth))
        return self._lists[:, :k]

    def top_items_without(self, user_rows: IntArray, k: int, excluded: Exclusions) -> IntArray:
        return self._model.top_items_without(user_rows, k, excluded)

    def score_items(self, user_rows: IntArray, items: IntArray) -> npt.NDArray[np.float64]:
        return self._model.score_items(user_rows, items)


def model_scorer(item_vectors: pa.Table, user_vectors: pa.Table, user_ids: pa.Array, similarity: Similarity) -> ModelScorer:
    """Returns the model as a scorer over the corpus of item_vectors, whose row order defines item_index.

    Args:
        item_vectors: item_id, item_tower_emb.
        user_vectors: user_id, user_tower_emb: one vector of the items' width, or several one after another.

    Raises:
        DuplicateKeyError: if an id has two vectors.
        InputError: if id types differ, or a vector is null.
    """
    items = combine_chunks(item_vectors.column(ITEM_ID))
    check_unique(items, "item_vectors, column item_id")
    return ModelScorer(
        vector_row=_vector_rows(user_vectors, user_ids),
        user_vectors=to_matrix(user_vectors.column(USER_TOWER_EMB), "user_vectors, column user_tower_emb"),
        item_vectors=to_matrix(item_vectors.column(ITEM_TOWER_EMB), "item_vectors, column item_tower_emb"),
        similarity=similarity,
        user_ids=user_ids,
        item_ids=items,
    )


def _vector_rows(user_vectors: pa.Table, user_ids: pa.Array) -> IntArray:
    """Returns the row of each user in user_vectors, -1 without one."""
    users = combine_chunks(user_vectors.column(USER_ID))
    check_unique(users, "user_vectors, column user_id")
    return find_positions(user_ids, cast_ids(users, user_ids.type, "user_vectors, column user_id"))
