"""sequence_id_feature: a plain sequence of categories from one input.

Belongs here: a sequence that stands alone. Does not belong here: several sequences of one past (`sequence_feature.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa
from pydantic import Field

from dssm_assets.core.features import bags, lists, sequences, text_values
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.operators.base import BagKeys, CategoryKeys, Operator
from dssm_assets.core.features.operators.id_feature import single_text
from dssm_assets.core.features.operators.sequence_feature import DELIMITER


class SequenceIdFeature(Operator, CategoryKeys, BagKeys):
    """The categories of a row in order, one per element (value_dim 1, the default) or a list of them (0, n).

    A missing element keeps its place: it is null, or the default.

    Attributes:
        sequence_length: elements that are kept, the first ones or with oldest_first the last (0: all).
        sequence_delim: what stands between the elements of a text.
        oldest_first: elements ascend in time.
    """

    feature_type: Literal["sequence_id_feature"] = "sequence_id_feature"
    expression: ExpressionText
    sequence_length: int = Field(default=0, ge=0)
    sequence_delim: str = Field(default=DELIMITER, min_length=1)
    oldest_first: bool = False

    @property
    def kind(self) -> Kind:
        """Always a category."""
        return Kind.CATEGORICAL

    @property
    def is_multi(self) -> bool:
        """Always true."""
        return True

    @property
    def depth(self) -> int:
        """1, or 2 where an element holds several values."""
        return 1 if self.value_dim in (None, 1) else 2

    @property
    def expression_texts(self) -> Sequence[str]:
        """The one input."""
        return (self.expression,)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the categories of each row's elements; a null row stays null."""
        array = sequences.as_lists(inputs[0], self.sequence_delim, self.where(0))
        flat, offsets = lists.flatten(array)
        positions, offsets = sequences.kept(offsets, self.sequence_length, self.oldest_first)
        flat = flat if positions is None else flat.take(pa.array(positions))
        if self.depth == 1:
            values = single_text(flat, self.default_text, self.where(0))
        else:
            texts, bounds = text_values.multi_text_values(flat, self.separator, self.where(0))
            texts, bounds = bags.first(texts, bounds, self.value_dim)
            values = lists.build(*bags.with_default(texts, bounds, self.default_text))
        return lists.build(values, offsets, lists.null_mask(array))
