"""Cold items: those that nobody interacted with before the day. How well they are found, compared with popularity by category.

Lists of all items cannot show it: what has no event is behind what has many, for good reason. So cold items are ranked among
themselves, by the model's vectors and, to compare, by how popular their category is.

Shapes: I items, C cold items, B users of a block, K top-k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import IntArray, is_text
from dssm_assets.core.evaluation.scorer import ModelScorer


class ColdModelScorer:
    """The model over cold items alone."""

    def __init__(self, model: ModelScorer, items: IntArray) -> None:
        """Takes the model over all items, and the item_index of the cold ones."""
        self.name, self._items = model.name, items
        self._inside = replace(model, corpus=model.corpus.select_items(items))

    def top_items(self, user_rows: IntArray, k: int) -> IntArray:
        if not len(self._items):
            return np.full((len(user_rows), k), -1, np.int64)
        found = self._inside.top_items(user_rows, k)
        return np.where(found >= 0, self._items[found], -1)


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
    wanted, distances = math.sqrt(max(items.num_rows, 1)), dict[str, float]()
    for field in items.schema:
        kind = field.type
        if field.name not in ignored and (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            count = pc.count_distinct(items.column(field.name)).as_py()
            if count > 1:
                distances[field.name] = abs(math.log(count / wanted))
    return min(distances, key=lambda name: distances[name], default=None)
