"""What can be evaluated: anything that ranks items for users. The model is one scorer, every baseline another.

Shapes: U evaluated users, B users of a block, M vectors per user, I items, D vector dimension, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ids import cast_ids, check_unique, find_positions
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, Mask, combine_chunks
from dssm_assets.core.columns import ITEM_ID, ITEM_TOWER_EMB, USER_ID, USER_TOWER_EMB
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.evaluation_tables import MODEL
from dssm_assets.core.retrieval.exact import Corpus, Scores
from dssm_assets.core.retrieval.interests import flatten_interests, score_interests, search_interests
from dssm_assets.core.retrieval.vectors import Metric, Vectors, to_matrix


class Scorer(Protocol):
    """Gives each evaluated user a ranking of all items, of which callers see the first k."""

    @property
    def name(self) -> str:
        """Returns the name under which the results are stored."""

    @property
    def block_size(self) -> int:
        """Returns how many users to rank at once."""

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
    block_size: int = 2048
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
