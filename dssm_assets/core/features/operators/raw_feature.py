"""raw_feature: a number, or a vector of numbers, from one input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.formula.formula import normalize
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, NumericOperator, check_numeric_default


class RawFeature(NumericOperator):
    """One number per row, or with value_dim n a vector of n numbers.

    A vector with another length, or with a missing number, is missing as a whole, and the default replaces all of it.

    Attributes:
        expression: the input.
        default_value: replaces a missing value (default "0"; "" leaves it missing); the normalizer does not change it. For a
            vector: one number for all positions, or n numbers joined by the separator.
        normalizer: applied to each number (default: none).
        separator: separates the numbers of a vector given as text (default: the character 0x1d).
        value_dim: numbers per row (default 1).
    """

    feature_type: Literal["raw_feature"] = "raw_feature"
    expression: ExpressionText
    # _default_fits checks it, because the check needs the separator and value_dim.
    default_value: Any = "0"
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    value_dim: int = Field(default=1, ge=1, le=65536)

    @model_validator(mode="after")
    def _default_fits(self) -> RawFeature:
        if not isinstance(self.default_value, str | int | float):
            raise ValueError("default_value is a number or a text")
        parts = self._default_parts
        if len(parts) not in (1, self.value_dim):
            raise ValueError(f"default_value has {len(parts)} numbers; value_dim {self.value_dim} needs 1 or {self.value_dim}")
        for part in parts:
            check_numeric_default(part)
        return self

    @property
    def is_multi(self) -> bool:
        return self.value_dim > 1

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        (array,) = inputs
        if self.value_dim == 1:
            return self.finish(column_values.number_values(array, self.where(0)))
        numbers, offsets = column_values.number_vectors(array, self.separator, self.where(0))
        width = self.value_dim
        rows = np.full((len(offsets) - 1, width), np.nan)
        is_whole = np.diff(offsets) == width
        rows[is_whole] = numbers[ragged.ranges(offsets[:-1][is_whole], np.full(int(is_whole.sum()), width))].reshape(-1, width)
        narrow = column_values.to_float32(normalize(self.normalizer, rows.ravel()), None)
        is_missing = ragged.null_mask(narrow).reshape(-1, width).any(axis=1)
        flat = narrow.fill_null(0).to_numpy(zero_copy_only=False).reshape(-1, width).copy()
        if self.default_text:
            parts = self._default_parts
            flat[is_missing] = np.array([float(part) for part in parts * (width if len(parts) == 1 else 1)], np.float32)
            return ragged.build_lists(pa.array(flat.ravel()), ragged.offsets_of(np.full(len(flat), width)))
        return ragged.build_lists(pa.array(flat[~is_missing].ravel()), ragged.offsets_of(np.where(is_missing, 0, width)))

    @property
    def _default_parts(self) -> list[str]:
        return self.default_text.split(self.separator) if self.value_dim > 1 else [self.default_text]
