"""combo_feature: combines each value of one input with each value of the others. Each combination is a category.

Values are joined by "_" without escaping, so the combinations ("a_b", "c") and ("a", "b_c") are the same category.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.operators.base import CategoryOperator

_MAX_ROW_VALUES: Final = 1 << 20
"""Most combinations of one row without value_dim. A row with more is a mistake, or a request meant to use up the memory."""


class ComboFeature(CategoryOperator):
    """The combinations of a row: each value of the first input with each value of the second, and so on.

    The first input varies slowest: ("ua", "ub") and ("ia", "ib") give ua_ia, ua_ib, ub_ia, ub_ib. If an input of a row has
    no value, the row has no combination.

    Attributes:
        expression: two or more inputs; the first varies slowest.
        value_dim: 0 keeps all combinations (default), 1 makes the feature single-valued, n computes only the first n.
    """

    feature_type: Literal["combo_feature"] = "combo_feature"
    expression: Annotated[tuple[ExpressionText, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _has_no_num_buckets(self) -> ComboFeature:
        if self.num_buckets is not None:
            raise ValueError("num_buckets needs integers, but a combination is a text: use hash_bucket_size or a vocabulary")
        return self

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns a list of combinations per row, or with value_dim 1 a single combination.

        Raises:
            SchemaError: the values of an input have no text, or a row has too many combinations.
        """
        sides = [
            column_values.multi_text_values(array, self.separator, self.where(place)) for place, array in enumerate(inputs)
        ]
        counts = np.ones(len(inputs[0]), np.int64)
        for _, bounds in sides:
            counts = np.minimum(counts * np.diff(bounds), self.value_dim or _MAX_ROW_VALUES + 1)
        if counts.max(initial=0) > _MAX_ROW_VALUES:
            expected, remedy = f"at most {_MAX_ROW_VALUES} combinations of a row", "set value_dim, or send shorter lists"
            raise SchemaError(Fault(f"feature {self.feature_name}", expected, "more", remedy))
        offsets = ragged.offsets_of(counts)
        rows = ragged.row_of_value(offsets)
        rest = np.arange(len(rows)) - offsets[rows]
        parts = []
        for texts, bounds in reversed(sides):
            rest, within = np.divmod(rest, np.diff(bounds)[rows])
            parts.append(texts.take(pa.array(bounds[rows] + within)).cast(pa.large_string()))
        joined = pc.binary_join_element_wise(*reversed(parts), pa.scalar("_", pa.large_string())).dictionary_encode()
        combinations = pa.DictionaryArray.from_arrays(joined.indices, joined.dictionary.cast(pa.string()))
        return column_values.finish_texts(combinations, offsets, self.value_dim, self.default_text)
