"""Scorers rank items for users. The model, every baseline and every merged list is evaluated as a scorer.

Shapes: U evaluated users, B users of a block, M vectors per user, I items, D vector dimension, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ids import cast_ids, find_positions
from dssm_assets.core.arrays.ragged import IntArray, ItemSets, Mask, combine_chunks
from dssm_assets.core.columns import ITEM_ID, ITEM_TOWER_EMB, USER_ID, USER_TOWER_EMB
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.evaluation_tables import MODEL
from dssm_assets.core.names import Scope
from dssm_assets.core.retrieval.exact import Corpus, Scores, flatten_interests, score_interests, search_interests
from dssm_assets.core.retrieval.vectors import Vectors, to_matrix, vector_faults

MAX_ENTRIES: Final = 1 << 21
"""List entries ranked at once; longer lists are ranked for fewer users at a time."""


class Scorer(Protocol):
    """Ranks all items for each evaluated user, and returns the first k."""

    @property
    def name(self) -> str:
        """Returns the scorer's name in stored results."""

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        """Returns item_index int64 [B, K] for the given rows of the evaluated users.

        The items of a row are distinct, best first, with -1 after the last. A smaller k gives the beginning of the same list.
        """


class InteractedItems(NamedTuple):
    """The items that each user interacted with before the day."""

    window: ItemSets
    """Items of the window."""
    history: ItemSets
    """Items of all stored days, including the window."""

    def select_users(self, users: IntArray) -> InteractedItems:
        return InteractedItems(self.window.select_users(users), self.history.select_users(users))


class RankedLists(NamedTuple):
    """Three lists for each of B users, int64 [B, K], -1 after the last item; or the ranks of truth pairs in these, int64 [P]."""

    everything: IntArray
    """All items are candidates."""
    without_window: IntArray
    """Without the user's items of the window."""
    without_history: IntArray
    """Without any item that the user interacted with before."""

    def in_scope(self, scope: Scope) -> IntArray:
        """Returns the lists for a scope; if these are ranks, the ranks."""
        others = {Scope.DISCOVERY: self.without_window, Scope.UNSEEN: self.without_history}
        return others.get(scope, self.everything)


def rank_items(scorer: Scorer, users: IntArray, own: InteractedItems, k: int) -> RankedLists:
    """Ranks items for some users, with and without their own items.

    Args:
        users: rows of the evaluated users [B].
        own: earlier items of these users.
    """
    ranked = scorer.top_items(users, 2 * k)  # long enough to lose the own items of most users
    left_out = _mark_own(own, ranked)
    everything, *others = ranked[:, :k], *(keep_first(ranked, ~one, k) for one in left_out)
    # A list that ends in -1 has all the scorer's items. The history contains the window, so its filtered list is the shortest.
    short = np.flatnonzero(((~left_out[-1]).sum(axis=1) < k) & (ranked[:, -1] >= 0))
    length = k + int(own.history.lengths[short].max(initial=0))
    step = max(1, MAX_ENTRIES // length)
    for rows in (short[start : start + step] for start in range(0, len(short), step)):
        longer = scorer.top_items(users[rows], length)
        for lists, is_own in zip(others, _mark_own(own.select_users(rows), longer), strict=True):
            lists[rows] = keep_first(longer, ~is_own, k)
    return RankedLists(everything, *others)


def _mark_own(own: InteractedItems, ranked: IntArray) -> tuple[Mask, Mask]:
    """Marks the ranked items in the user's window, and the ranked items in the user's history, bool [B, L] each."""
    in_history = own.history.contains(np.arange(len(ranked))[:, None], ranked)
    in_window = np.zeros(ranked.shape, np.bool_)
    row, column = np.nonzero(in_history)
    in_window[row, column] = own.window.contains(row, ranked[row, column])  # the history contains the window
    return in_window, in_history


def keep_first(items: IntArray, is_kept: Mask, k: int) -> IntArray:
    """Returns the first k kept entries of each row in order, int64 [B, K]; -1 after the last.

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

    A user without a vector gets an empty list, not the list of a zero vector. The user's truth still counts, as missed.
    """

    corpus: Corpus
    item_ids: pa.Array
    vector_row: IntArray
    """int64 [U]: row of each user in user_vectors, -1 without a vector."""
    user_vectors: Vectors
    """float32 [., M * D]"""
    name: str = MODEL

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        return self.top_k(user_rows, k)[0]

    def top_k(self, user_rows: IntArray, k: int) -> tuple[IntArray, Scores]:
        """Returns item_index int64 [B, K] and scores float32 [B, K]; -1 and -inf if items run out."""
        index = np.full((len(user_rows), k), -1, dtype=np.int64)
        scores = np.full((len(user_rows), k), -np.inf, dtype=np.float32)
        known, vectors = self._vectors(user_rows)
        flat, bounds = flatten_interests(vectors)
        index[known], scores[known] = search_interests(self.corpus, flat, bounds, k)
        return index, scores

    def score_items(self, user_rows: IntArray, items: IntArray) -> npt.NDArray[np.float64]:
        """Returns the exact score of each item, float64 [B, C]. 0 for a user without a vector.

        Args:
            user_rows: rows of the evaluated users [B].
            items: item_index int64 [B, C]; the score of item -1 means nothing.
        """
        scores = np.zeros(items.shape)
        known, vectors = self._vectors(user_rows)
        scores[known] = score_interests(vectors, self.corpus.vectors, items[known], self.corpus.metric)
        return scores

    def _vectors(self, user_rows: IntArray) -> tuple[IntArray, Vectors]:
        """Returns positions of the users with vectors, and their vectors [., M, D]."""
        known = np.flatnonzero(self.vector_row[user_rows] >= 0)
        found = self.user_vectors[self.vector_row[user_rows[known]]]
        width = self.corpus.vectors.shape[1]
        return known, found.reshape(len(known), found.shape[1] // width, width)


class ColdModelScorer:
    """The model ranking only cold items, that is, items without any earlier event.

    In a list of all items, cold items rightly rank behind items with many events, so hits there say nothing about cold items.
    """

    def __init__(self, model: ModelScorer, items: IntArray) -> None:
        """Takes the model over all items, and the item_index of cold items."""
        self.name, self._items = model.name, items
        self._inside = replace(model, corpus=model.corpus.select_items(items))

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        if not len(self._items):
            return np.full((len(user_rows), k), -1, np.int64)
        found = self._inside.top_items(user_rows, k)
        return np.where(found >= 0, self._items[found], -1)


class KnownLists:
    """The model as a scorer with a cache of the last lists: the channel of vectors asks for the same users again."""

    def __init__(self, model: ModelScorer, depth: int) -> None:
        """Caches lists of length `depth`; a longer list is searched each time."""
        self.name, self._model, self._depth = model.name, model, depth
        self._users, self._lists = np.full(1, -1), np.full((1, depth), -1)  # of nobody

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        if k > self._depth:
            return self._model.top_items(user_rows, k)
        rows = np.minimum(np.searchsorted(self._users, user_rows), len(self._users) - 1)
        if not np.array_equal(self._users[rows], user_rows):
            self._users, self._lists = user_rows, self._model.top_items(user_rows, self._depth)
            return self._lists[:, :k]
        return self._lists[rows, :k]

    def score_items(self, user_rows: IntArray, items: IntArray) -> npt.NDArray[np.float64]:
        return self._model.score_items(user_rows, items)


def read_corpus(item_vectors: pa.Table, similarity: Similarity) -> tuple[pa.Array, Corpus]:
    """Returns the item ids of a table of vectors, and the vectors ready for search. An item's row number is its item_index.

    Raises:
        InputError: a vector is null, not finite or zero.
    """
    items = combine_chunks(item_vectors.column(ITEM_ID))
    vectors = to_matrix(item_vectors.column(ITEM_TOWER_EMB), "item_vectors, column item_tower_emb")
    InputError.raise_if(vector_faults("item", vectors, items))
    return items, Corpus(vectors, similarity)


def model_scorer(item_ids: pa.Array, corpus: Corpus, user_vectors: pa.Table, user_ids: pa.Array) -> ModelScorer:
    """Returns the model as a scorer for some users over a corpus from `read_corpus`.

    Args:
        user_vectors: columns user_id and user_tower_emb. The latter is one vector as wide as the items', or several joined.
        user_ids: the users to score [U].

    Raises:
        InputError: id types differ, or a vector is null.
    """
    users = combine_chunks(user_vectors.column(USER_ID))
    rows = find_positions(user_ids, cast_ids(users, user_ids.type, "user_vectors, column user_id"))
    vectors = to_matrix(user_vectors.column(USER_TOWER_EMB), "user_vectors, column user_tower_emb")
    return ModelScorer(corpus, item_ids, rows, vectors)
