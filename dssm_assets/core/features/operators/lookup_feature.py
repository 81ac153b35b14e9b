"""lookup_feature: what a key-value input holds for the keys that another input names.

The map is a list<string> of "key:value" entries, or such entries joined by the separator; the last colon of an entry
divides it. An entry without a colon, and for numbers one whose value is no number, is as good as absent. Every entry
whose key is asked for is a hit: a key that stands in the map twice hits twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dssm_assets.core.features import lists, number_values, text_values
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.normalizers import NormalizerText, parse_normalizer
from dssm_assets.core.features.number_values import Numbers
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, CategoryKeys, NumberKeys, Operator
from dssm_assets.core.features.operators.numeric_default import check_numeric_default


class Combiner(StrEnum):
    """How the numbers of several hits become one."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"


class LookupFeature(Operator, CategoryKeys, NumberKeys):
    """The combined number of a row's hits, or with need_discrete the texts of their values.

    Attributes:
        map: the key-value input.
        key: the input that names one key or several.
        default_value: of a row without a hit (default "0"; "" is missing). Bypasses the normalizer.
        combiner: of numbers; a category has none.
        need_discrete: the feature is a category: the text of the first hit in key order, or of all (value_dim 0).
        need_key: the text is "key_value", so that equal values of different keys differ.
        value_dim: default 1.
        normalizer: of the combined number.
    """

    feature_type: Literal["lookup_feature"] = "lookup_feature"
    map: ExpressionText
    key: ExpressionText
    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    default_value: str | int | float = "0"
    combiner: Combiner = Combiner.SUM
    need_discrete: bool = False
    need_key: bool = False
    value_dim: Literal[0, 1] = 1
    normalizer: NormalizerText | None = None

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> LookupFeature:
        if self.need_discrete:
            stray = {"combiner", "normalizer", "boundaries"} & self.model_fields_set
        else:
            stray = {"need_key", "hash_bucket_size", "num_buckets", "vocab_list"} & self.model_fields_set
            if self.value_dim == 0:
                raise ValueError("value_dim 0 needs need_discrete: a numeric feature has one value per row")
            check_numeric_default(self.default_value)
        if stray:
            raise ValueError(f"{', '.join(sorted(stray))} mean nothing with need_discrete {str(self.need_discrete).lower()}")
        return self

    @property
    def kind(self) -> Kind:
        """A category with need_discrete, else a number."""
        return Kind.CATEGORICAL if self.need_discrete else Kind.NUMERIC

    @property
    def is_multi(self) -> bool:
        """True if value_dim is 0."""
        return self.value_dim == 0

    @property
    def expression_texts(self) -> Sequence[str]:
        """The map, then the key."""
        return (self.map, self.key)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the combined number of each row, or the texts of its hits."""
        entries, entry_bounds = text_values.multi_text_values(inputs[0], self.separator, self.where(0))
        asked, asked_bounds = text_values.multi_text_values(inputs[1], self.separator, self.where(1))
        keys, values = text_values.key_and_value(entries.dictionary)
        numbers = number_values.number_values(values, self.where(0))
        is_usable = ~lists.null_mask(keys)
        if self.need_discrete:
            texts = pc.binary_join_element_wise(keys, values, "_") if self.need_key else values
            is_usable &= pc.fill_null(pc.not_equal(texts, ""), False).to_numpy(zero_copy_only=False)
        else:
            is_usable &= ~np.isnan(numbers)
        rows, hits = _hits((keys, text_values.codes_of(entries), entry_bounds), (asked, asked_bounds), is_usable)
        if self.need_discrete:
            return self._texts(rows, pa.DictionaryArray.from_arrays(pa.array(hits, pa.int32()), texts), len(inputs[0]))
        combined = _combine(self.combiner, rows, numbers[hits], len(inputs[0]))
        if self.normalizer is not None:
            combined = parse_normalizer(self.normalizer)(combined)
        return number_values.to_float32(combined, number_values.parse_number(self.default_text))

    def _texts(self, rows: Any, texts: pa.DictionaryArray, row_count: int) -> pa.Array:
        counts = np.bincount(rows, minlength=row_count)
        starts = np.cumsum(counts) - counts
        dictionary = pa.concat_arrays([texts.dictionary, pa.array([self.default_text], pa.string())])
        codes = text_values.codes_of(texts)
        default_code = len(dictionary) - 1
        if not self.is_multi:
            found = np.append(codes, default_code)[np.where(counts > 0, starts, len(codes))]
            is_missing = (counts == 0) if not self.default_text else np.zeros(row_count, dtype=bool)
            return pa.DictionaryArray.from_arrays(pa.array(found, pa.int32(), mask=is_missing), dictionary)
        if self.default_text:
            codes = np.insert(codes, starts[counts == 0], default_code)
            counts = np.maximum(counts, 1)
        return lists.build(pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), dictionary), lists.offsets_of(counts))


def _hits(entries: tuple[pa.Array, Any, Any], asked: tuple[pa.DictionaryArray, Any], is_usable: Any) -> tuple[Any, Any]:
    """Returns row and distinct entry of each hit: by row, then by asked key, then by place in the map."""
    entry_keys, entry_codes, entry_bounds = entries
    asked_keys, asked_bounds = asked
    both = pa.concat_arrays([entry_keys, asked_keys.dictionary]).dictionary_encode()
    names = both.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    asked_names = names[len(entry_keys) :][text_values.codes_of(asked_keys)]
    # An entry whose key nobody asks for can never hit: most entries go before anything is sorted.
    is_asked = np.zeros(max(len(both.dictionary), 1), dtype=bool)
    is_asked[asked_names] = True
    kept = np.flatnonzero((is_usable & is_asked[names[: len(entry_keys)]])[entry_codes])
    codes = entry_codes[kept]
    width = len(is_asked)
    entry_cells = lists.row_of_value(entry_bounds)[kept] * width + names[codes]
    order = np.argsort(entry_cells, kind="stable")
    asked_rows = lists.row_of_value(asked_bounds)
    asked_cells = asked_rows * width + asked_names
    first = np.searchsorted(entry_cells, asked_cells, side="left", sorter=order)
    lengths = np.searchsorted(entry_cells, asked_cells, side="right", sorter=order) - first
    return np.repeat(asked_rows, lengths), codes[order[lists.ranges(first, lengths)]]


def _combine(combiner: Combiner, rows: Any, numbers: Numbers, row_count: int) -> Numbers:
    """Returns one number per row, NaN for a row without hits; `rows` ascends, so sums run in hit order."""
    counts = np.bincount(rows, minlength=row_count)
    result = np.full(row_count, np.nan)
    has_hit = counts > 0
    starts = (np.cumsum(counts) - counts)[has_hit]
    if combiner is Combiner.COUNT:
        result[has_hit] = counts[has_hit]
    elif combiner in (Combiner.MIN, Combiner.MAX):
        reduce = np.minimum if combiner is Combiner.MIN else np.maximum
        result[has_hit] = reduce.reduceat(numbers, starts) if len(starts) else 0
    else:
        result[has_hit] = np.bincount(rows, weights=numbers, minlength=row_count)[has_hit]
        if combiner is Combiner.MEAN:
            result[has_hit] /= counts[has_hit]
    return result
