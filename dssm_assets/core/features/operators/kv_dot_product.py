"""kv_dot_product: the dot product of two sparse vectors, given as key-value inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ids import find_positions
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.maps import key_values
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, NumericOperator


class KvDotProduct(NumericOperator):
    """Multiplies the two weights of each key that both sides of a row have, and adds up the products.

    A side is a map, a list of "key:weight" texts, or such texts joined by the separator. An entry is split at its last
    delimiter. A key without a weight ("a") has weight 1. An entry is ignored if its weight is not a finite number ("a:",
    "a:x", a null in a map). A key that occurs several times on a side counts every time.

    A row is missing if a side has no entries. If both sides have entries but no common key, the product is 0. A product
    beyond float32 is missing.

    Attributes:
        query: input of one side.
        document: input of the other side.
        separator: separates the entries of a text (default: the character 0x1d).
        kv_delimiter: character that separates key and weight in a text (default ":").
    """

    feature_type: Literal["kv_dot_product"] = "kv_dot_product"
    query: ExpressionText
    document: ExpressionText
    input_keys = ("query", "document")
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    kv_delimiter: str = Field(default=":", min_length=1, max_length=1)

    @model_validator(mode="after")
    def _separators_differ(self) -> KvDotProduct:
        if self.kv_delimiter == self.separator:
            raise ValueError("separator separates entries and kv_delimiter divides an entry, so they must differ")
        return self

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        rows, keys, weights = self._read_side(inputs[0], 0)
        other_rows, other_keys, other_weights = self._read_side(inputs[1], 1)
        known = pa.concat_arrays([keys, other_keys]).unique()
        cells = rows * len(known) + find_positions(keys, known)
        distinct, cell_of = np.unique(other_rows * len(known) + find_positions(other_keys, known), return_inverse=True)
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.bincount(cell_of, other_weights).astype(np.float64)
            found = np.searchsorted(distinct, cells)
            is_hit = np.append(distinct, -1)[found] == cells
            products = np.bincount(rows[is_hit], weights[is_hit] * sums[found[is_hit]], len(inputs[0])).astype(np.float64)
        has_entry = [np.bincount(side, minlength=len(inputs[0])) > 0 for side in (rows, other_rows)]
        return self.finish(np.where(has_entry[0] & has_entry[1], products, np.nan))

    def _read_side(self, array: pa.Array, position: int) -> tuple[IntArray, pa.Array, Numbers]:
        """Returns row, key and weight of each usable entry, in their order."""
        entries = key_values(array, self.separator, self.where(position), self.kv_delimiter)
        # The text "a" has no weight and gets 1. In a map a null weight is not a number.
        has_no_weight = ragged.null_mask(entries.values) & (not pat.is_map(array.type))
        weights = np.where(has_no_weight, 1.0, entries.numbers)[entries.codes]
        is_used = ~np.isnan(weights)
        keys = entries.keys.take(pa.array(entries.codes[is_used]))
        return ragged.row_of_value(entries.offsets)[is_used], keys, weights[is_used]
