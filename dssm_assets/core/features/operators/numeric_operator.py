"""What all numeric features share: a default, a normalizer, boundaries, and float32 values.

Belongs here: their keys and the last step from numbers to values. Does not belong here: how one of them gets its
numbers (its own file).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator

from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers, parse_number
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.formula.formula import NormalizerText, parse_normalizer
from dssm_assets.core.features.operators.base import NumberKeys, Operator


def check_numeric_default(value: str | int | float) -> str | int | float:
    """Returns the default as written.

    Raises:
        ValueError: if it is neither "" nor a number that float32 can hold.
    """
    if value == "":
        return value
    number = parse_number(str(value))
    if number is None or abs(number) > float(np.finfo(np.float32).max):
        raise ValueError('the default of a numeric feature is a finite number, or "" for none')
    return value


NumericDefault = Annotated[str | int | float, AfterValidator(check_numeric_default)]


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
        return column_values.to_float32(self.normalized(numbers), column_values.parse_number(self.default_text))
