"""id_feature: one or several categories from one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.maps import key_values
from dssm_assets.core.features.operators.base import CategoryOperator


class IdFeature(CategoryOperator):
    """The categories of a row.

    Attributes:
        expression: the input.
        default_value: given to a row without values (default "": the row stays empty).
        value_dim: 0 keeps all values (default), n keeps the first n. With 1 the feature is single-valued, which is smaller
            and faster: the whole text is the value, separators included, and a list column is refused.
        weighted: values are written "id:weight" or come as a map (default false). The id is the category. The weight counts
            in the mean of the row's embeddings; it is 1 if it is missing or not a number.
    """

    feature_type: Literal["id_feature"] = "id_feature"
    expression: ExpressionText
    weighted: bool = False

    @model_validator(mode="after")
    def _weighted_is_multi(self) -> IdFeature:
        if self.value_dim == 1 and self.weighted:
            raise ValueError("weighted splits a text into several values, so value_dim cannot be 1")
        return self

    @property
    def is_weighted(self) -> bool:
        return self.weighted

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        if self.weighted:
            return self.compute_weighted(inputs)[0]
        (array,) = inputs
        if not self.is_multi:
            return single_text(array, self.default_text, self.where(0))
        texts, offsets = column_values.multi_text_values(array, self.separator, self.where(0))
        return column_values.finish_texts(texts, offsets, self.value_dim, self.default_text)

    def compute_weighted(self, inputs: Sequence[pa.Array]) -> tuple[pa.Array, pa.Array]:
        """Returns lists of ids, and lists of their weights. The default has weight 1."""
        (array,) = inputs
        entries = key_values(array, self.separator, self.where(0))
        has_weight = np.isfinite(entries.numbers.astype(np.float32))
        # If the text after the last colon is not a number, it is part of the id.
        whole = pc.binary_join_element_wise(entries.keys, entries.values, ":")
        is_id = pa.array(has_weight | ragged.null_mask(entries.values))
        texts = pa.DictionaryArray.from_arrays(pa.array(entries.codes, pa.int32()), pc.if_else(is_id, entries.keys, whole))
        weights = np.where(has_weight, entries.numbers, 1)[entries.codes].astype(np.float32)
        is_kept = column_values.mask_of_first(entries.offsets, self.value_dim)
        texts, offsets = ragged.filter_values(texts, entries.offsets, is_kept)
        weights = weights[is_kept]
        if self.default_text:
            weights, _ = column_values.insert_default(weights, offsets, np.float32(1))
        texts, offsets = column_values.fill_empty_rows(texts, offsets, self.default_text)
        return ragged.build_lists(texts, offsets), ragged.build_lists(pa.array(weights, pa.float32()), offsets)


def single_text(array: pa.Array, default: str, where: str) -> pa.DictionaryArray:
    """Returns the text of each row of a column without lists. Missing texts become the default.

    Raises:
        SchemaError: the column holds lists.
    """
    if ragged.is_list(array.type):
        remedy = "set value_dim to 0 for a multi-valued feature"
        raise SchemaError(Fault(where, "one value per row (value_dim 1)", str(array.type), remedy))
    return column_values.fill_missing(column_values.text_values(array, where), default)
