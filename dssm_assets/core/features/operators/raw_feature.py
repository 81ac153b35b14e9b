"""raw_feature: the number that one input holds, normalized if asked.

What the number of a value is, text included, is defined in `number_values.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pyarrow as pa

from dssm_assets.core.features import number_values
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.normalizers import NormalizerText, parse_normalizer
from dssm_assets.core.features.operators.base import NumberKeys, Operator
from dssm_assets.core.features.operators.numeric_default import NumericDefault


class RawFeature(Operator, NumberKeys):
    """One number per row. NaN, infinities and what float32 cannot hold are missing.

    Attributes:
        default_value: the number of a missing value; it bypasses the normalizer. "" leaves it missing.
        normalizer: see `normalizers.parse_normalizer`. A result that is no finite number is missing.
        value_dim: 1; vectors of numbers are not supported.
    """

    feature_type: Literal["raw_feature"] = "raw_feature"
    expression: ExpressionText
    default_value: NumericDefault = "0"
    normalizer: NormalizerText | None = None
    value_dim: Literal[1] = 1

    @property
    def kind(self) -> Kind:
        """Always a number."""
        return Kind.NUMERIC

    @property
    def expression_texts(self) -> Sequence[str]:
        """The one input."""
        return (self.expression,)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the number of each row as float32."""
        (array,) = inputs
        numbers = number_values.number_values(array, self.where(0))
        if self.normalizer is not None:
            numbers = parse_normalizer(self.normalizer)(numbers)
        return number_values.to_float32(numbers, number_values.parse_number(self.default_text))
