"""Base of the numeric features: a default, a normalizer, boundaries, and the last step from numbers to float32 values."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator

from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers, parse_number
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.formula.formula import NormalizerText, normalize
from dssm_assets.core.features.operators.base import NumberKeys, Operator


def check_numeric_default(value: str | int | float) -> str | int | float:
    """Returns the default as written.

    Raises:
        ValueError: it is neither "" nor a number that float32 can hold.
    """
    if value == "":
        return value
    number = parse_number(str(value))
    if number is None or abs(number) > float(np.finfo(np.float32).max):
        raise ValueError('the default of a numeric feature is a finite number, or "" for no default')
    return value


NumericDefault = Annotated[str | int | float, AfterValidator(check_numeric_default)]


class NumericOperator(Operator, NumberKeys):
    """A feature of one number per row. NaN, infinities and numbers beyond float32 are missing.

    Attributes:
        default_value: number of a missing value (default "0"; "" leaves it missing); bypasses the normalizer.
        normalizer: a text for `parse_normalizer` (default: none). A result that is not finite is missing.
    """

    default_value: NumericDefault = "0"
    normalizer: NormalizerText | None = None

    @property
    def kind(self) -> Kind:
        """Always a number."""
        return Kind.NUMERIC

    def finish(self, numbers: Numbers) -> pa.Array:
        """Returns numbers (NaN is missing) as float32 values: normalized, then the default in place of missing ones."""
        return column_values.to_float32(normalize(self.normalizer, numbers), column_values.parse_number(self.default_text))
