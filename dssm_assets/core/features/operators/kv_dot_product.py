"""kv_dot_product: the dot product of two sparse vectors that come as key-value inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.features import column_values
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
        (query, query_keys), (document, document_keys) = self._read_sides(inputs)
        products = np.full(len(inputs[0]), np.nan)
        for row in range(len(products)):
            weights: dict[int, float] = {}
            for key, weight in _entries_of(document, document_keys, row):
                weights[key] = weights.get(key, 0.0) + weight
            terms = [weight * weights.get(key, 0.0) for key, weight in _entries_of(query, query_keys, row)]
            if weights and terms:
                products[row] = sum(terms)
        return self.finish(products)

    def _read_sides(self, inputs: Sequence[pa.Array]) -> list[tuple[KeyValues, IntArray]]:
        """Returns the entries of both sides with their weights as numbers, NaN for an entry that is ignored, and numbers of their keys."""
        sides = []
        for position, array in enumerate(inputs):
            entries = key_values(array, self.separator, self.where(position), self.kv_delimiter)
            # In a text "a" has no weight and gets 1; in a map a null weight is not a number.
            has_no_weight = ragged.null_mask(entries.values) & (not pat.is_map(array.type))
            sides.append(replace(entries, numbers=np.where(has_no_weight, 1.0, entries.numbers)))
        query_keys, document_keys, _ = column_values.number_texts(sides[0].keys, sides[1].keys)
        return list(zip(sides, (query_keys, document_keys), strict=True))


def _entries_of(side: KeyValues, keys: IntArray, row: int) -> list[tuple[int, float]]:
    """Returns key and weight of each entry of a row that counts."""
    codes = side.codes[side.offsets[row] : side.offsets[row + 1]]
    pairs = zip(keys[codes].tolist(), side.numbers[codes].tolist(), strict=True)
    return [(key, weight) for key, weight in pairs if not math.isnan(weight)]
