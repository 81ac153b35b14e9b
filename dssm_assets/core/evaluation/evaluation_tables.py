"""Contracts of the tables of vectors and evaluation: grain, key and columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.schema import ColumnSpec, TableSpec

MODEL: Final = "model"
"""The model's name in column scorer."""
MERGED: Final = "merged"
"""The merged list of all channels, in column scorer."""
MERGED_WITHOUT: Final = f"{MERGED}_without_"
"""Followed by a channel: the merged list of the other channels."""
CHANNEL: Final = "channel_"
"""Followed by a channel: the list of that channel alone."""

CATEGORY_POPULARITY: Final = "category_popularity"
"""The baseline of cold items, in column scorer."""


def is_of_channels(scorer: str) -> bool:
    """Returns whether a scorer is the merged list or a part of it, not the model or a baseline."""
    return scorer == MERGED or is_part(scorer)


def is_part(scorer: str) -> bool:
    """Returns whether a scorer measures one channel: the channel alone, or the merged list without it."""
    return scorer.startswith((MERGED_WITHOUT, CHANNEL))


def tier_scope(tier: str) -> str:
    """Returns the scope under which hit_counts has the merged list's hits in one tier of items."""
    return f"tier_{tier}"


def hits_column(k: int) -> str:
    return f"hits_{k}"


def ndcg_column(k: int) -> str:
    return f"ndcg_{k}"


_USER = ColumnSpec(col.USER_ID, None, "User, in the source's type.")
_ITEM = ColumnSpec(col.ITEM_ID, None, "Item, in the source's type.")
_SCORER = ColumnSpec(
    col.SCORER,
    pa.string(),
    "What ranked the items: model, merged (all channels), merged_without_X, channel_X (alone), or the name of a baseline.",
)
_SCOPE = ColumnSpec(
    col.SCOPE,
    pa.string(),
    "all: all items of the day; discovery: without the user's items of the window, which are not offered; repeat: only these; "
    "new: items that the user never interacted with before, in all stored days; unseen: the same, and items of the user's history are not offered; "
    "cold: items that nobody interacted with before, only such items are offered.",
)
_POPULATION = ColumnSpec(
    col.POPULATION, pa.string(), "warm: user and item known from the window; not_warm: one of them is not; all: every pair."
)
_TRUTH_COUNT = ColumnSpec(col.TRUTH_COUNT, pa.int64(), "Distinct items to find.")

ITEM_VECTORS: Final = TableSpec(
    name="item_vectors",
    grain="one row per item of the corpus; the row number is item_index",
    key=(col.ITEM_ID,),
    columns=(
        _ITEM,
        ColumnSpec(
            col.ITEM_TOWER_EMB,
            None,
            "Output of the item tower, fixed_size_list<float32>[output_dim]; followed by the item's prior if the model has one.",
        ),
    ),
)

USER_VECTORS: Final = TableSpec(
    name="user_vectors",
    grain="one row per user, features and history as of the end of the day before the evaluation day",
    key=(col.USER_ID,),
    columns=(
        _USER,
        ColumnSpec(
            col.USER_TOWER_EMB,
            None,
            "Output of the user tower, fixed_size_list<float32>[output_dim]; followed by a 1 if the model has a prior; several "
            "interests one after another.",
        ),
    ),
)

GROUND_TRUTH: Final = TableSpec(
    name="ground_truth",
    grain="one row per user with a positive event on the evaluation day",
    key=(col.USER_ID,),
    columns=(
        _USER,
        ColumnSpec(col.GT_ITEMS, None, "Items of the user's positive events on the day, distinct, ascending."),
        ColumnSpec(col.GT_IS_WARM, pa.list_(pa.bool_()), "Per item: any user had a positive event on it in the window."),
        ColumnSpec(col.GT_IS_REPEAT, pa.list_(pa.bool_()), "Per item: this user had a positive event on it in the window."),
        ColumnSpec(col.IS_WARM_USER, pa.bool_(), "The user had a positive event in the window."),
    ),
)

HIT_COUNTS: Final = TableSpec(
    name="hit_counts",
    grain="one row per scorer, scope, population and user with truth there; of parts of merged lists, of sampled users",
    key=(col.SCORER, col.SCOPE, col.POPULATION, col.USER_ID),
    columns=(
        _SCORER,
        replace(
            _SCOPE,
            description=f"{_SCOPE.description} {tier_scope('X')}: the items of a tier of popularity in the window, head, next, rest or "
            "unseen, in the merged list.",
        ),
        _POPULATION,
        _USER,
        _TRUTH_COUNT,
    ),
    extra={
        "hits_*": "Of the items to find, those among the first k of the list.",
        "ndcg_*": "NDCG of the first k: 1 if the list begins with the items to find, 0 without any hit.",
    },
)

HIT_RATE_DETAIL: Final = TableSpec(
    name="hit_rate_detail",
    grain="one row per user with a positive event on the evaluation day",
    key=(col.USER_ID,),
    columns=(
        _USER,
        ColumnSpec("topk_ids", None, "The model's list, best first, out of all items; empty without a user vector."),
        ColumnSpec("topk_scores", pa.list_(pa.float32()), "Similarity of user and item, one per entry of topk_ids."),
        ColumnSpec("hit_ids", None, "Entries of topk_ids that the user interacted with on the day, in the list's order."),
        ColumnSpec("bad_ids", None, "The other entries of topk_ids, in the list's order."),
        ColumnSpec("hits", pa.int64(), "Number of hit_ids."),
        _TRUTH_COUNT,
        ColumnSpec("hit_rate", pa.float64(), "hits / truth_count."),
        ColumnSpec("warm_hits", pa.int64(), "hits on known items; 0 for a user who is not warm."),
        ColumnSpec("warm_" + col.TRUTH_COUNT, pa.int64(), "Known items to find; 0 for a user who is not warm."),
        ColumnSpec(col.IS_WARM_USER, pa.bool_(), "The user had a positive event in the window."),
    ),
    extra={
        "segment_*": "The user's value in the configured segment of this name, for example 10-29 positive events.",
        "hits_*": "Hits on items of this tier of popularity in the window: head, next, rest, unseen.",
        col.TRUTH_COUNT + "_*": "Items to find of this tier of popularity in the window.",
    },
)

TOTAL_HIT_RATE: Final = TableSpec(
    name="total_hit_rate",
    grain="one row per scorer, scope, population and k",
    key=(col.SCORER, col.SCOPE, col.POPULATION, "k"),
    columns=(
        _SCORER,
        _SCOPE,
        _POPULATION,
        ColumnSpec("k", pa.int64(), "Length of the lists."),
        ColumnSpec("hit_rate", pa.float64(), "hits / truth_count, summed over users: micro recall at k."),
        ColumnSpec("ci_low", pa.float64(), "Lower end of the 95% bootstrap interval of hit_rate over users."),
        ColumnSpec("ci_high", pa.float64(), "Upper end of the 95% bootstrap interval of hit_rate over users."),
        ColumnSpec("user_recall", pa.float64(), "Mean over users of the fraction of their items that was found."),
        ColumnSpec("user_hit_rate", pa.float64(), "Fraction of users with at least one hit."),
        ColumnSpec("ndcg", pa.float64(), "Mean over users of NDCG at k, with binary relevance."),
        ColumnSpec("ndcg_ci_low", pa.float64(), "Lower end of the 95% bootstrap interval of ndcg over users."),
        ColumnSpec("ndcg_ci_high", pa.float64(), "Upper end of the 95% bootstrap interval of ndcg over users."),
        ColumnSpec("users", pa.int64(), "Users with truth in the cell; other users do not count."),
        ColumnSpec("hits", pa.int64(), "Items found, summed over users."),
        ColumnSpec(col.TRUTH_COUNT, pa.int64(), "Items to find, summed over users."),
    ),
)
