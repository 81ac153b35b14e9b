"""Cold items: those that nobody interacted with before the day. How well they are found, compared with popularity by category.

Lists of all items cannot show it: what has no event is behind what has many, for good reason. So cold items are ranked among
themselves, by the model's vectors and, to compare, by how popular their category is.

Shapes: I items, C cold items, B users of a block, K top-k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.evaluation.baselines.popularity import PopularityScorer
from dssm_assets.core.evaluation.evaluation_tables import CATEGORY_POPULARITY
from dssm_assets.core.evaluation.hits import ColdScope
from dssm_assets.core.evaluation.scorer import ModelScorer


@dataclass(frozen=True)
class ColdItems:
    """The cold items of a day.

    Attributes:
        items: int64 [C], item_index, ascending.
        order: int64 [C], item_index, those of the most popular category first.
        category: the column that categories are read from; None: no column is one.
    """

    items: IntArray
    order: IntArray
    category: str | None = None

    def scope(self, model: ModelScorer) -> ColdScope:
        """Returns the items with the scorers that know them alone: the model and popularity by category."""
        is_cold = np.zeros(len(model.item_ids), np.bool_)
        is_cold[self.items] = True
        return ColdScope(is_cold, [ColdModelScorer(model, self.items), PopularityScorer(CATEGORY_POPULARITY, self.order)])


@dataclass(frozen=True)
class ColdModelScorer:
    """The model over cold items."""

    model: ModelScorer
    """Over all items."""
    items: IntArray
    """int64 [C], item_index of the cold ones."""

    @cached_property
    def _inside(self) -> ModelScorer:
        """The model over the cold items alone, made when the first list is needed: many days have nothing to find there."""
        model = self.model
        return replace(model, item_vectors=model.item_vectors[self.items], item_ids=model.item_ids.take(pa.array(self.items)))

    @property
    def name(self) -> str:
        return self.model.name

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        if not len(self.items):
            return np.full((len(user_rows), k), -1, np.int64)
        found = self._inside.top_items(user_rows, k)
        return np.where(found >= 0, self.items[found], -1)


def order_by_category(items: IntArray, categories: IntArray, window_events: IntArray) -> IntArray:
    """Returns the items, those whose category has the most events in the window first, then the lower item_index, int64 [C].

    By hand: items 1, 2 and 3 of the categories 0, 1 and 1 are cold; item 0 of category 1 has 5 events, no other has any: 2, 3, 1.

    Args:
        items: item_index of the cold items, ascending [C].
        categories: int64 [I], of every item of the corpus; -1 for those of no category, which come last.
        window_events: int64 [I].
    """
    known = categories >= 0
    totals = np.bincount(categories[known], weights=window_events[known], minlength=1)
    value = np.where(categories[items] >= 0, totals[categories[items]], -1.0)
    return items[np.argsort(-value, kind="stable")]


def choose_category_column(items: pa.Table, ignored: Sequence[str]) -> str | None:
    """Returns the column whose values are most like categories: about as many values as each has items. None: there is none.

    Candidates are columns of texts, whole numbers or booleans with at least two values. By hand: of 10,000 items the square root
    is 100; of columns with 3, 80 and 6,000 values the second is nearest, by ratio.

    Args:
        ignored: columns that are no candidates, as the item's id.
    """
    wanted, best = math.sqrt(max(items.num_rows, 1)), None
    for field in items.schema:
        if field.name in ignored or not _is_discrete(field.type):
            continue
        count = pc.count_distinct(items.column(field.name)).as_py()
        distance = abs(math.log(max(count, 1) / wanted))
        if count > 1 and (best is None or distance < best[0]):
            best = (distance, field.name)
    return None if best is None else best[1]


def _is_discrete(kind: pa.DataType) -> bool:
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(is_text or pa.types.is_integer(kind) or pa.types.is_boolean(kind))
