"""What can be evaluated: anything that gives each user a list of items. The model is one, every baseline is one.

Belongs here: the protocol and the model as a scorer. Does not belong here: the baselines (`baselines/`), counting hits.

Shapes: U evaluated users, B users of a block, M vectors per user, I items, D vector dimension, K top-k.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ids import cast_ids, check_unique, find_positions
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, combine_chunks
from dssm_assets.core.columns import ITEM_ID, ITEM_TOWER_EMB, USER_ID, USER_TOWER_EMB
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.evaluation.places import Asked, Places, hit_ranks, places_by_rank
from dssm_assets.core.retrieval.corpus import Corpus
from dssm_assets.core.retrieval.exact import Scores
from dssm_assets.core.retrieval.interests import flat_interests, search_interests
from dssm_assets.core.retrieval.vectors import Vectors, matrix_of

MOST_USERS = 0.95
"""Share of users whose lists are made long enough to leave out what they took."""


class ScorerName(StrEnum):
    """The scorers of a run."""

    MODEL = "model"
    POPULARITY = "popularity"
    RECENT_POPULARITY = "recent_popularity"
    ITEM_COOCCURRENCE = "item_cooccurrence"
    OWN_HISTORY_WINDOW = "own_history_window"
    OWN_HISTORY_ALL = "own_history_all"


class Scorer(Protocol):
    """Gives each evaluated user a list of items, best first, without duplicates, -1 where it has none left."""

    @property
    def name(self) -> str:
        """Returns the name under which the results are stored."""

    @property
    def block_size(self) -> int:
        """Returns how many users to ask for at once."""

    def top_items(self, user_rows: IntArray, k: int, excluded: Exclusions | None) -> IntArray:
        """Returns item_index int64 [B, K] for the given rows of the evaluated users; row j of excluded is user_rows[j]."""

    def places(self, asked: Asked, k: int) -> Places:
        """Returns where the items asked for stand in `top_items`, with and without what the users took in the window."""


@dataclass(frozen=True)
class ModelScorer:
    """The trained model: exact search over its vectors.

    A user without a vector gets an empty list, never a vector of zeros: the model had nothing to offer, and the
    user's truth still counts.
    """

    vector_row: IntArray
    """int64 [U]: row of each evaluated user in user_vectors, -1 if it has no vector."""
    user_vectors: Vectors
    """float32 [., M * D]"""
    item_vectors: Vectors
    """float32 [I, D]"""
    similarity: Similarity
    user_ids: pa.Array
    item_ids: pa.Array
    block_size: int = 2048
    name: str = ScorerName.MODEL

    @cached_property
    def corpus(self) -> Corpus:
        """Returns the items ready to be searched: checked and scaled once, not once per block of users."""
        return Corpus(self.item_vectors, self.similarity, self.item_ids)

    def top_k(self, user_rows: IntArray, k: int, excluded: Exclusions | None) -> tuple[IntArray, Scores]:
        """Returns item_index int64 [B, K] and scores float32 [B, K]; -1 and -inf where there is no item."""
        index = np.full((len(user_rows), k), -1, dtype=np.int64)
        scores = np.full((len(user_rows), k), -np.inf, dtype=np.float32)
        served = np.flatnonzero(self.vector_row[user_rows] >= 0)
        rows = self.vector_row[user_rows[served]]
        vectors, bounds = flat_interests(self.user_vectors[rows].reshape(len(rows), *self._shape))
        index[served], scores[served] = search_interests(
            self.corpus,
            vectors,
            bounds,
            k,
            excluded=None if excluded is None else excluded.select_users(served),
            user_ids=self.user_ids.take(pa.array(user_rows[served])),
        )
        return index, scores

    def for_users(self, user_vectors: pa.Table, user_ids: pa.Array) -> ModelScorer:
        """Returns the model for other users, over the same items, which are not made ready again; see `model_scorer`."""
        made = replace(
            self,
            vector_row=_rows_of(user_vectors, user_ids),
            user_vectors=matrix_of(user_vectors.column(USER_TOWER_EMB), "user_vectors, column user_tower_emb"),
            user_ids=user_ids,
        )
        vars(made)["corpus"] = self.corpus  # where cached_property looks for it
        return made

    @property
    def _shape(self) -> tuple[int, int]:
        """Returns how many vectors a user has and how wide each is; a width that does not fit is left for the search to name."""
        several, rest = divmod(self.user_vectors.shape[1], self.item_vectors.shape[1])
        return (several, self.item_vectors.shape[1]) if several and not rest else (1, self.user_vectors.shape[1])

    def top_items(self, user_rows: IntArray, k: int, excluded: Exclusions | None) -> IntArray:
        """Returns item_index int64 [B, K]."""
        return self.top_k(user_rows, k, excluded)[0]

    def places(self, asked: Asked, k: int) -> Places:
        """Returns the places of the pairs by one search: lists that are longer by what nearly all users took hold the others.

        A user of whose longer list more was taken than it is longer is searched again without what it took.
        """
        taken = asked.taken
        spare = min(int(np.quantile(taken.lengths, MOST_USERS, method="higher")), k)
        lists = self.top_items(asked.user_rows, k + spare, None)
        rows, items = np.append(asked.pair_row, asked.taken_row), np.append(asked.pair_item, taken.indices)
        pair_rank, taken_rank = np.split(hit_ranks(lists, rows, items), [len(asked.pair_row)])
        places = places_by_rank(asked, k, pair_rank=pair_rank, taken_rank=taken_rank, free=pair_rank)
        listed = np.bincount(asked.taken_row[taken_rank < k + spare], minlength=len(asked.user_rows))
        short = np.flatnonzero(listed > spare)
        if len(short):
            self._look_again(asked, k, short, places.fresh)
        return places

    def _look_again(self, asked: Asked, k: int, rows: IntArray, fresh: IntArray) -> None:
        """Writes the fresh places of some users' pairs, by lists of their own."""
        is_theirs = np.isin(asked.pair_row, rows)
        lists = self.top_items(asked.user_rows[rows], k, asked.taken.select_users(rows))
        fresh[is_theirs] = hit_ranks(lists, np.searchsorted(rows, asked.pair_row[is_theirs]), asked.pair_item[is_theirs])


def model_scorer(item_vectors: pa.Table, user_vectors: pa.Table, user_ids: pa.Array, similarity: Similarity) -> ModelScorer:
    """Returns the model as a scorer over the corpus of item_vectors, whose row order defines item_index.

    Args:
        item_vectors: item_id, item_tower_emb.
        user_vectors: user_id, user_tower_emb: one vector of the items' width, or several one after another.
        user_ids: the evaluated users.
        similarity: how vectors are compared.

    Raises:
        DuplicateKeyError: if an id has two vectors.
        InputError: if ids are of different kinds or a vector is missing.
    """
    items = combine_chunks(item_vectors.column(ITEM_ID))
    check_unique(items, "item_vectors, column item_id")
    return ModelScorer(
        vector_row=_rows_of(user_vectors, user_ids),
        user_vectors=matrix_of(user_vectors.column(USER_TOWER_EMB), "user_vectors, column user_tower_emb"),
        item_vectors=matrix_of(item_vectors.column(ITEM_TOWER_EMB), "item_vectors, column item_tower_emb"),
        similarity=similarity,
        user_ids=user_ids,
        item_ids=items,
    )


def _rows_of(user_vectors: pa.Table, user_ids: pa.Array) -> IntArray:
    """Returns the row of each user in user_vectors, -1 without one."""
    users = combine_chunks(user_vectors.column(USER_ID))
    check_unique(users, "user_vectors, column user_id")
    return find_positions(user_ids, cast_ids(users, user_ids.type, "user_vectors, column user_id"))
