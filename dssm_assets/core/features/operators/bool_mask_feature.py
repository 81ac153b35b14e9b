"""bool_mask_feature: keeps the values of one input at the positions where a second input, the mask, is true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Mask
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.operators.base import CategoryOperator


class BoolMaskFeature(CategoryOperator):
    """The categories of a row at the true positions of its mask, in their order.

    An element of the mask is true if it is the boolean true, the text "true" in any case, or a number other than zero.
    Everything else is false, also a missing element. A missing element takes up a position, such as "" between two separators,
    but a missing value is never in the result. A row is missing if its values and its mask differ in length.

    Attributes:
        expression: two inputs, the values and the mask.
    """

    feature_type: Literal["bool_mask_feature"] = "bool_mask_feature"
    expression: Annotated[tuple[ExpressionText, ...], Field(min_length=2, max_length=2)]

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        values, offsets = column_values.element_texts(inputs[0], self.separator, self.where(0))
        mask, mask_offsets = column_values.element_texts(inputs[1], self.separator, self.where(1))
        lengths = np.diff(offsets)
        is_aligned = lengths == np.diff(mask_offsets)
        is_kept = np.zeros(len(values), dtype=bool)
        is_kept[np.repeat(is_aligned, lengths)] = _truth(mask, self.where(1))[np.repeat(is_aligned, np.diff(mask_offsets))]
        texts, offsets = ragged.filter_values(values, offsets, is_kept & ~ragged.null_mask(values.indices))
        return column_values.finish_texts(texts, offsets, self.value_dim, self.default_text)


def _truth(mask: pa.DictionaryArray, where: str) -> Mask:
    numbers = column_values.number_values(mask.dictionary, where)
    words = pc.utf8_lower(pc.ascii_trim_whitespace(mask.dictionary))
    is_word: Any = pc.equal(words, "true").to_numpy(zero_copy_only=False)
    is_true = np.append(is_word | (np.nan_to_num(numbers) != 0), False)
    return np.asarray(is_true[mask.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)])
