"""lookup_feature: what a key-value input holds for the keys that another input names.

The map is a map, a list of "key:value" entries, or such entries joined by the separator; the last colon of an entry
divides it. An entry without a value, and for numbers one whose value is no number, is as good as absent. Every entry
whose key is asked for is a hit: a key that stands in the map twice hits twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dssm_assets.core.arrays import ragged
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.maps import KeyValues, key_values
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.features.operators.hit_values import HitOperator


class LookupFeature(HitOperator):
    """The combined number of a row's hits, or the texts of their values: by row, by asked key, by place in the map.

    Attributes:
        map: the key-value input.
        key: the input that names one key or several.
        separator: what stands between entries, and between keys, that come as text.
        need_key: the text is "key_value", so that equal values of different keys differ; makes it a category.
    """

    feature_type: Literal["lookup_feature"] = "lookup_feature"
    map: ExpressionText
    key: ExpressionText
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    need_key: bool = False

    @property
    def shows_keys(self) -> bool:
        """True if need_key is."""
        return self.need_key

    @property
    def expression_texts(self) -> Sequence[str]:
        """The map, then the key."""
        return (self.map, self.key)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the combined number of each row, or the texts of its hits."""
        entries = key_values(inputs[0], self.separator, self.where(0))
        asked, asked_offsets = column_values.multi_text_values(inputs[1], self.separator, self.where(1))
        row_count = len(inputs[0])
        if self.kind is Kind.NUMERIC:
            rows, hits = _hits(entries, asked, asked_offsets, ~np.isnan(entries.numbers))
            return self.number_of_hits(rows, entries.numbers[hits], row_count)
        texts = entries.values
        if self.need_key:
            texts = pc.binary_join_element_wise(entries.keys, texts, "_")
        is_usable = pc.fill_null(pc.not_equal(entries.values, ""), False).to_numpy(zero_copy_only=False)
        rows, hits = _hits(entries, asked, asked_offsets, is_usable)
        found = pa.DictionaryArray.from_arrays(pa.array(hits, pa.int32()), pc.fill_null(texts, ""))
        return self.texts_of_hits(rows, found, row_count)


def _hits(entries: KeyValues, asked: pa.DictionaryArray, asked_offsets: ragged.Offsets, is_usable: Any) -> tuple[Any, Any]:
    """Returns row and distinct entry of each hit: by row, then by asked key, then by place in the map."""
    both = pa.concat_arrays([entries.keys, asked.dictionary]).dictionary_encode()
    names = both.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    asked_names = names[len(entries.keys) :][column_values.codes_of(asked)]
    # An entry whose key nobody asks for can never hit: most entries go before anything is sorted.
    is_asked = np.zeros(max(len(both.dictionary), 1), dtype=bool)
    is_asked[asked_names] = True
    kept = np.flatnonzero((is_usable & is_asked[names[: len(entries.keys)]])[entries.codes])
    codes = entries.codes[kept]
    width = len(is_asked)
    entry_cells = ragged.row_of_value(entries.offsets)[kept] * width + names[codes]
    order = np.argsort(entry_cells, kind="stable")
    asked_rows = ragged.row_of_value(asked_offsets)
    asked_cells = asked_rows * width + asked_names
    first = np.searchsorted(entry_cells, asked_cells, side="left", sorter=order)
    lengths = np.searchsorted(entry_cells, asked_cells, side="right", sorter=order) - first
    return np.repeat(asked_rows, lengths), codes[order[ragged.ranges(first, lengths)]]
