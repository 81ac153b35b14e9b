"""kv_dot_product: the inner product of two key-value inputs, the weights of one key on both sides multiplied.

Belongs here: the sparse product over rows. Does not belong here: how a key-value input is read (`key_values.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.types as pat
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.maps import KeyValues, key_values
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.features.operators.numeric_operator import NumericOperator


class KvDotProduct(NumericOperator):
    """The sum of the products of the weights of a row's common keys.

    A side is a map, a list of "key:weight" texts, or such texts joined by the separator; the last delimiter of an
    entry divides it. A key without a weight ("a") weighs 1. An entry whose weight is no finite number ("a:", "a:x", a
    null in a map) is left out. A key that stands on a side several times counts every time.

    A row with a side without entries is missing and gets the default; a row whose sides have no key in common is not
    missing: its product is 0. A product that float32 cannot hold is missing.

    Attributes:
        query: one side.
        document: the other side.
        separator: what stands between the entries of a text.
        kv_delimiter: the character between key and weight of a text.
    """

    feature_type: Literal["kv_dot_product"] = "kv_dot_product"
    query: ExpressionText
    document: ExpressionText
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    kv_delimiter: str = Field(default=":", min_length=1, max_length=1)

    @model_validator(mode="after")
    def _separators_differ(self) -> KvDotProduct:
        if self.kv_delimiter == self.separator:
            raise ValueError("separator and kv_delimiter must differ: one ends an entry, the other divides it")
        return self

    @property
    def expression_texts(self) -> Sequence[str]:
        """The query, then the document."""
        return (self.query, self.document)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the product of each row."""
        query, document = (self._side(array, position) for position, array in enumerate(inputs))
        with np.errstate(over="ignore", invalid="ignore"):
            products = _products(query, document)
        return self.finished(np.where(_has_entry(query) & _has_entry(document), products, np.nan))

    def _side(self, array: pa.Array, position: int) -> KeyValues:
        """Returns the entries with their weights as numbers; NaN for an entry that is left out."""
        entries = key_values(array, self.separator, self.where(position), self.kv_delimiter)
        # The value of a map is there even if it is null, while an entry of a text may be the key alone.
        has_no_weight = ragged.null_mask(entries.values) & (not pat.is_map(array.type))
        numbers = np.where(has_no_weight, 1.0, entries.numbers)
        return KeyValues(entries.codes, entries.offsets, entries.keys, entries.values, numbers)


def _has_entry(side: KeyValues) -> Any:
    is_left_in = ~np.isnan(side.numbers[side.codes])
    return np.bincount(ragged.row_of_value(side.offsets)[is_left_in], minlength=len(side.offsets) - 1) > 0


def _products(query: KeyValues, document: KeyValues) -> Numbers:
    """Returns the product of each row, 0 without a common key."""
    both = pa.concat_arrays([query.keys, document.keys]).dictionary_encode()
    names = both.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    query_names, document_names = names[: len(query.keys)], names[len(query.keys) :]
    width = max(len(both.dictionary), 1)
    kept, cells = _cells(document, document_names, _is_named(query_names, width), width)
    found, query_cells = _cells(query, query_names, _is_named(document_names, width), width)
    sums_of, sums = _summed(cells, document.numbers[document.codes[kept]])
    place = np.searchsorted(sums_of, query_cells)
    is_hit = np.append(sums_of, -1)[place] == query_cells
    hits = found[is_hit]
    products = query.numbers[query.codes[hits]] * sums[place[is_hit]]
    return _sums(query_cells[is_hit] // width, products, len(query.offsets) - 1)


def _is_named(names: Any, width: int) -> Any:
    is_named = np.zeros(width, dtype=bool)
    is_named[names] = True
    return is_named


def _cells(side: KeyValues, names: Any, is_wanted: Any, width: int) -> tuple[Any, Any]:
    """Returns the entries that may have a partner, and one integer per row and key for each of them."""
    kept = np.flatnonzero((is_wanted[names] & ~np.isnan(side.numbers))[side.codes])
    return kept, ragged.row_of_value(side.offsets)[kept] * width + names[side.codes[kept]]


def _summed(cells: Any, numbers: Numbers) -> tuple[Any, Numbers]:
    """Returns the distinct cells, ascending, and the sum of the numbers of each, added in their order."""
    order = np.argsort(cells, kind="stable")
    ordered = cells[order]
    is_first = np.ones(len(cells), dtype=bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    return ordered[is_first], _sums(np.cumsum(is_first) - 1, numbers[order], 0)


def _sums(groups: Any, numbers: Numbers, at_least: int) -> Numbers:
    # Of nothing, numpy counts in integers whatever the weights are.
    return np.bincount(groups, numbers, at_least).astype(np.float64)
