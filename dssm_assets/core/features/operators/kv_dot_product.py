"""kv_dot_product: the dot product of two sparse vectors that come as key-value inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Mask
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.maps import KeyValues, key_values
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, NumericOperator


class KvDotProduct(NumericOperator):
    """The sum over the common keys of a row of the product of their weights.

    A side is a map, a list of "key:weight" texts, or such texts joined by the separator; the last delimiter of an entry
    divides it. A key without a weight ("a") has weight 1. An entry without a finite number as its weight ("a:", "a:x", a
    null in a map) is ignored. A key that occurs several times on a side counts every time.

    A row is missing if one of its sides has no entries. If the sides only have no key in common, the product is 0. A
    product beyond float32 is missing.

    Attributes:
        query: input of one side.
        document: input of the other side.
        default_value: number of a missing row (default "0"; "" leaves it missing).
        normalizer: applied to the product (default: none).
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
            raise ValueError("separator and kv_delimiter must differ: one separates entries, the other divides an entry")
        return self

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        query, document = (self._read_side(array, position) for position, array in enumerate(inputs))
        with np.errstate(over="ignore", invalid="ignore"):
            products = _dot_products(query, document)
        return self.finish(np.where(_has_entry(query) & _has_entry(document), products, np.nan))

    def _read_side(self, array: pa.Array, position: int) -> KeyValues:
        """Returns the entries with their weights as numbers, NaN for an entry that is ignored."""
        entries = key_values(array, self.separator, self.where(position), self.kv_delimiter)
        # In a text "a" has no weight and gets 1; in a map a null weight is not a number.
        has_no_weight = ragged.null_mask(entries.values) & (not pat.is_map(array.type))
        numbers = np.where(has_no_weight, 1.0, entries.numbers)
        return KeyValues(entries.codes, entries.offsets, entries.keys, entries.values, numbers)


def _has_entry(side: KeyValues) -> Mask:
    is_used = ~np.isnan(side.numbers[side.codes])
    has_entry: Mask = np.bincount(ragged.row_of_value(side.offsets)[is_used], minlength=len(side.offsets) - 1) > 0
    return has_entry


def _dot_products(query: KeyValues, document: KeyValues) -> Numbers:
    """Returns the dot product of each row, 0 without a common key."""
    query_keys, document_keys, key_count = column_values.number_texts(query.keys, document.keys)
    found, query_cells = _number_cells(query, query_keys, document_keys, key_count)
    kept, document_cells = _number_cells(document, document_keys, query_keys, key_count)
    cells, sums = _sum_by_cell(document_cells, document.numbers[document.codes[kept]])
    position = np.searchsorted(cells, query_cells)
    is_hit = np.append(cells, -1)[position] == query_cells
    products = query.numbers[query.codes[found[is_hit]]] * sums[position[is_hit]]
    return _sum_by_group(query_cells[is_hit] // key_count, products, len(query.offsets) - 1)


def _number_cells(side: KeyValues, keys: IntArray, other_keys: IntArray, key_count: int) -> tuple[IntArray, IntArray]:
    is_wanted = np.isin(keys, other_keys, kind="table") & ~np.isnan(side.numbers)
    kept = np.flatnonzero(is_wanted[side.codes])
    return kept, ragged.row_of_value(side.offsets)[kept] * key_count + keys[side.codes[kept]]


def _sum_by_cell(cells: IntArray, numbers: Numbers) -> tuple[IntArray, Numbers]:
    """Returns the distinct cells, ascending, and the sum of the numbers of each, added in their order."""
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    is_first = np.ones(len(cells), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first], _sum_by_group(np.cumsum(is_first) - 1, numbers[order], 0)


def _sum_by_group(groups: IntArray, numbers: Numbers, min_count: int) -> Numbers:
    # For empty arrays numpy returns integers whatever the weights are.
    return np.bincount(groups, numbers, min_count).astype(np.float64)
