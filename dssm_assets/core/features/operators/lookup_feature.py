"""lookup_feature: looks up the keys of one input in the map of another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ids import find_positions
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.maps import key_values
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR
from dssm_assets.core.features.operators.hit_values import HitOperator, find_hits


class LookupFeature(HitOperator):
    """Looks up keys in a map. The values found are combined to one number, or kept as texts in the order of the keys.

    The map is a map column, a list of "key:value" texts, or such texts joined by the separator. An entry is split at its last colon.
    Every entry with a requested key is a hit, so a key that is twice in the map hits twice, in the map's order. An entry without a
    value is ignored. If numbers are combined, an entry without a number is ignored too.

    Attributes:
        map: the key-value input.
        key: the input with the requested keys.
        separator: separates the entries, and the keys, of a text (default: the character 0x1d).
        need_key: writes "key_value": equal values of different keys are different categories (default false).
    """

    feature_type: Literal["lookup_feature"] = "lookup_feature"
    map: ExpressionText
    key: ExpressionText
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    need_key: bool = False
    input_keys = ("map", "key")
    category_keys = ("need_discrete", "need_key")

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        entries = key_values(inputs[0], self.separator, self.where(0))
        requested, offsets = column_values.multi_text_values(inputs[1], self.separator, self.where(1))
        names = requested.dictionary
        entry_keys = find_positions(entries.keys, names)
        # Most entries have a key that no row requests. They are dropped before anything is sorted.
        kept = np.flatnonzero((self.is_usable(entries) & (entry_keys >= 0))[entries.codes])
        codes = entries.codes[kept]
        entry_cells = ragged.row_of_value(entries.offsets)[kept] * len(names) + entry_keys[codes]
        keys = find_positions(names, names)[column_values.dictionary_codes(requested)]
        rows = ragged.row_of_value(offsets)
        requests, positions = find_hits(entry_cells, rows * len(names) + keys)
        rows, hits = rows[requests], codes[positions]
        if self.kind is Kind.NUMERIC:
            return self.values_from_numbers(rows, entries.numbers[hits], len(inputs[0]))
        texts = pc.binary_join_element_wise(entries.keys, entries.values, "_") if self.need_key else entries.values
        found = pa.DictionaryArray.from_arrays(pa.array(hits, pa.int32()), pc.fill_null(texts, ""))
        return self.values_from_texts(rows, found, len(inputs[0]))
