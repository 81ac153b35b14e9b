"""How popular items were in the window: the tiers that the truth is cut into, and how unexpected an item is.

Belongs here: tiers and self-information from window counts. Does not belong here: counting the window, hits per tier
(`detail.py`), what lists are made of (`list_quality.py`).

Shapes: I items of the corpus.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core.columns import COUNT, ITEM_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.evaluation.ids import cast_ids, flat, positions
from dssm_assets.core.retrieval.exclusions import Index


class Tier(StrEnum):
    """Items by how often they were taken in the window; their order is that of `ItemPopularity.tier`."""

    HEAD = "head"
    """The most taken 1% of the items taken at all."""
    NEXT = "next"
    """The 9% after them."""
    REST = "rest"
    """Every other item that was taken."""
    UNSEEN = "unseen"
    """Not taken in the window, or not in the corpus."""


TIERS = tuple(Tier)
HEAD_PERCENT, NEXT_PERCENT = 1, 10


@dataclass(frozen=True)
class ItemPopularity:
    """The corpus and how often each item was taken in the window.

    Attributes:
        item_ids: [I], distinct.
        count: int64 [I], positive events in the window.
    """

    item_ids: pa.Array
    count: Index

    @property
    def tier(self) -> Index:
        """Returns int64 [I], the place of each item's tier in TIERS.

        Of n items taken, the first ceil(n / 100) by count are the head, those up to ceil(n / 10) come next; among equal
        counts the corpus' order decides. By hand: 250 items taken: 3 head, 22 next, 225 rest.
        """
        taken = int((self.count > 0).sum())
        head, following = -(-taken * HEAD_PERCENT // 100), -(-taken * NEXT_PERCENT // 100)
        place = np.empty(len(self.count), dtype=np.int64)
        place[np.argsort(-self.count, kind="stable")] = np.arange(len(self.count))
        return np.searchsorted([head, following, taken], place, side="right").astype(np.int64)

    @property
    def self_information(self) -> NDArray[np.float64]:
        """Returns float64 [I]: -log2 p in bits, p = (count + 1) / (sum of counts + I), so that unseen items have one too."""
        share = (self.count + 1) / (self.count.sum() + len(self.count))
        result: NDArray[np.float64] = -np.log2(share)
        return result

    @property
    def head_frac(self) -> float:
        """Returns the share of the window's positive events that fell on the head; 0 where nothing was taken."""
        total = int(self.count.sum())
        return float(self.count[self.tier == TIERS.index(Tier.HEAD)].sum() / total) if total else 0.0


def popularity_of(item_ids: pa.Array, counted: pa.Table) -> ItemPopularity:
    """Returns the popularity over a corpus; items that were not counted have 0.

    Args:
        item_ids: the corpus.
        counted: item_id, distinct, and count.

    Raises:
        InputError: if ids are of different kinds or a count is missing or negative.
    """
    where = "counts of items in the window"
    numbers = flat(counted.column(COUNT))
    values = numbers.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    if (values < 0).any():
        got = f"{int((values < 0).sum())} that are missing or negative"
        raise InputError(Fault(where, "a count of 0 or more per item", got, "materialize negative_items again"))
    rows = positions(item_ids, cast_ids(flat(counted.column(ITEM_ID)), item_ids.type, where))
    return ItemPopularity(item_ids, np.append(values, 0)[rows])
