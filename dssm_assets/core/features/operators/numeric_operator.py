"""What all numeric features share: a default, a normalizer, boundaries, and float32 values.

Belongs here: their keys and the last step from numbers to values. Does not belong here: how one of them gets its
numbers (its own file).
"""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core.features import number_values
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.normalizers import NormalizerText, parse_normalizer
from dssm_assets.core.features.number_values import Numbers
from dssm_assets.core.features.operators.base import NumberKeys, Operator
from dssm_assets.core.features.operators.numeric_default import NumericDefault


class NumericOperator(Operator, NumberKeys):
    """A feature of one number per row. NaN, infinities and what float32 cannot hold are missing.

    Attributes:
        default_value: the number of a missing value; it bypasses the normalizer. "" leaves it missing.
        normalizer: see `normalizers.parse_normalizer`. A result that is no finite number is missing.
    """

    default_value: NumericDefault = "0"
    normalizer: NormalizerText | None = None

    @property
    def kind(self) -> Kind:
        """Always a number."""
        return Kind.NUMERIC

    def normalized(self, numbers: Numbers) -> Numbers:
        """Returns the numbers after the normalizer; NaN stays NaN."""
        return numbers if self.normalizer is None else parse_normalizer(self.normalizer)(numbers)

    def finished(self, numbers: Numbers) -> pa.Array:
        """Returns numbers (NaN: missing) as float32 values: normalized, then the default in place of missing ones."""
        return number_values.to_float32(self.normalized(numbers), number_values.parse_number(self.default_text))
