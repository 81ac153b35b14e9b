"""bool_mask_feature: the values of one input where the mask in another is true.

Belongs here: the aligned reading of values and mask. Does not belong here: what the text of a value is
(`text_values.py`).

A missing element keeps its place, because the mask counts places: the "" between two separators is an element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Mask, Offsets
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.operators.base import BagKeys, CategoryKeys, Operator


class BoolMaskFeature(Operator, CategoryKeys, BagKeys):
    """The categories of a row whose place in the mask is true, in their order; the first n with value_dim n.

    An element of the mask is true if it is the text "true" in any case, a number other than zero (as text too), or
    the boolean; anything else, a missing element too, is false. A missing value is left out. A row with as many
    values as its mask has elements is the only one with a result: where the two differ nobody knows what belongs
    together, so the row is missing and gets the default, or none.

    Attributes:
        expression: the values, then the mask.
    """

    feature_type: Literal["bool_mask_feature"] = "bool_mask_feature"
    expression: Annotated[tuple[ExpressionText, ...], Field(min_length=2, max_length=2)]

    @property
    def kind(self) -> Kind:
        """Always a category."""
        return Kind.CATEGORICAL

    @property
    def is_multi(self) -> bool:
        """True if value_dim is not 1."""
        return self.value_dim != 1

    @property
    def expression_texts(self) -> Sequence[str]:
        """The values, then the mask."""
        return self.expression

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the kept category of each row, or a list of them."""
        values, offsets = _elements(inputs[0], self.separator, self.where(0))
        mask, mask_offsets = _elements(inputs[1], self.separator, self.where(1))
        lengths = np.diff(offsets)
        is_aligned = lengths == np.diff(mask_offsets)
        is_kept = np.zeros(len(values), dtype=bool)
        is_kept[np.repeat(is_aligned, lengths)] = _truth(mask, self.where(1))[np.repeat(is_aligned, np.diff(mask_offsets))]
        texts, offsets = ragged.keep(values, offsets, is_kept & ~ragged.null_mask(values.indices))
        if not self.is_multi:
            return column_values.first_or_default(texts, offsets, self.default_text)
        texts, offsets = column_values.first(texts, offsets, self.value_dim)
        return ragged.build(*column_values.with_default(texts, offsets, self.default_text))


def _elements(array: pa.Array, separator: str, where: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Returns the text of every element (null: missing, yet in its place) and the row bounds.

    An element of a list is one element. A column without lists holds elements joined by the separator; a missing or
    empty text holds none.
    """
    if ragged.is_list(array.type):
        flat, offsets = ragged.flatten(array)
        return column_values.text_values(flat, where), offsets
    texts = column_values.text_values(array, where)
    present = ~ragged.null_mask(texts.indices)
    texts, offsets = ragged.keep(texts, np.arange(len(array) + 1, dtype=np.int64), present)
    parts, part_offsets = ragged.flatten(pc.split_pattern(texts.dictionary, separator))
    codes = column_values.codes_of(texts)
    lengths = np.diff(part_offsets)[codes]
    taken = ragged.ranges(part_offsets[codes], lengths)
    is_empty = pc.equal(parts, "").to_numpy(zero_copy_only=False)
    indices = pa.array(taken, pa.int32(), mask=is_empty[taken])
    return pa.DictionaryArray.from_arrays(indices, parts), ragged.offsets_of(lengths)[offsets]


def _truth(mask: pa.DictionaryArray, where: str) -> Mask:
    """Returns which elements are true."""
    numbers = column_values.number_values(mask.dictionary, where)
    words = pc.utf8_lower(pc.ascii_trim_whitespace(mask.dictionary))
    is_word: Any = pc.equal(words, "true").to_numpy(zero_copy_only=False)
    is_true = np.append(is_word | (np.nan_to_num(numbers) != 0), False)
    truth: Mask = is_true[mask.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)]
    return truth
