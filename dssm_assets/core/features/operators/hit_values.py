"""Base of lookup_feature and match_feature. A hit is a map entry with a requested key; hits become the feature's values."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import IntArray, Mask
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.formula.formula import NormalizerText, normalize
from dssm_assets.core.features.maps import KeyValues
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS, CategoryKeys, NumberKeys, Operator, check_numeric_default


class Combiner(StrEnum):
    """Combines the numbers of several hits into one number. NONE keeps every number."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    NONE = ""


def find_hits(entries: IntArray, requested: IntArray) -> tuple[IntArray, IntArray]:
    """Pairs each requested number with all entries equal to it.

    Pairs are ordered by position in `requested`, then by position in `entries`.

    Returns:
        Positions in `requested`, positions in `entries`.
    """
    order = np.argsort(entries, kind="stable")
    first = np.searchsorted(entries, requested, side="left", sorter=order)
    lengths = np.searchsorted(entries, requested, side="right", sorter=order) - first
    return ragged.repeat_rows(lengths), order[ragged.ranges(first, lengths)]


class HitOperator(Operator, CategoryKeys, NumberKeys):
    """A feature made from hits: their numbers combined into one, or their texts.

    The feature is a category if need_discrete is set, a key puts names before values, or a key defines a vocabulary.
    Otherwise it is a number.

    Attributes:
        default_value: value of a row without hits (default "0"; "" leaves it missing); the normalizer does not change it.
        combiner: sum (default), mean, min, max or count of the numbers; "" keeps the number of every hit. On a category only
            "sum" and "" are allowed, without effect.
        need_discrete: makes the feature a category, the texts of the hits (default false).
        value_dim: for a category, 0 keeps the value of every hit (default) and 1 only the first; for a number, 1.
        normalizer: applied to the combined number (default: none).
    """

    default_value: str | int | float = "0"
    combiner: Combiner = Combiner.SUM
    need_discrete: bool = False
    value_dim: int | None = Field(default=None, ge=0, le=1)
    normalizer: NormalizerText | None = None
    category_keys: ClassVar[tuple[str, ...]] = ("need_discrete",)
    """Each of these keys makes the feature a category if it is true."""

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> HitOperator:
        if self.kind is Kind.CATEGORICAL:
            stray = {"normalizer", "boundaries"} & self.model_fields_set
            if stray:
                raise ValueError(
                    f"{', '.join(sorted(stray))} have no effect, because another key makes this feature a category"
                )
            if self.combiner not in (Combiner.NONE, Combiner.SUM):
                raise ValueError(f"combiner {self.combiner} has no effect on a category, because texts are not combined")
        else:
            if self.value_dim == 0:
                raise ValueError("value_dim 0 needs need_discrete: a numeric feature has one value per row")
            check_numeric_default(self.default_value)
        return self

    @property
    def kind(self) -> Kind:
        is_category = any(getattr(self, key) for key in self.category_keys)
        has_vocabulary = any(getattr(self, key) is not None for key in VOCABULARY_KEYS)
        return Kind.CATEGORICAL if is_category or has_vocabulary else Kind.NUMERIC

    @property
    def is_multi(self) -> bool:
        return self.value_dim != 1 if self.kind is Kind.CATEGORICAL else self.combiner is Combiner.NONE

    def values_from_numbers(self, rows: IntArray, numbers: Numbers, row_count: int) -> pa.Array:
        """Returns the values of a numeric feature, from the row (ascending) and the number of each hit."""
        default = column_values.parse_number(self.default_text)
        if self.combiner is not Combiner.NONE:
            combined = normalize(self.normalizer, self._combine(rows, numbers, row_count))
            return column_values.to_float32(combined, default)
        narrow = column_values.to_float32(normalize(self.normalizer, numbers), None)
        offsets = ragged.offsets_of(np.bincount(rows[~ragged.null_mask(narrow)], minlength=row_count))
        values = narrow.drop_null().to_numpy(zero_copy_only=False)
        if default is not None:
            values, offsets = column_values.insert_default(values, offsets, np.float32(default))
        return ragged.build_lists(pa.array(values, pa.float32()), offsets)

    def _combine(self, rows: IntArray, numbers: Numbers, row_count: int) -> Numbers:
        counts = np.bincount(rows, minlength=row_count)
        if self.combiner is Combiner.COUNT:
            result = counts.astype(np.float64)
        elif self.combiner in (Combiner.MIN, Combiner.MAX):
            reduce, start = (np.minimum, np.inf) if self.combiner is Combiner.MIN else (np.maximum, -np.inf)
            result = np.full(row_count, start)
            reduce.at(result, rows, numbers)
        else:
            result = np.bincount(rows, numbers, row_count) / (np.maximum(counts, 1) if self.combiner is Combiner.MEAN else 1)
        return np.where(counts > 0, result, np.nan)

    def values_from_texts(self, rows: IntArray, texts: pa.DictionaryArray, row_count: int) -> pa.Array:
        """Returns the values of a categorical feature, from the row (ascending) and the text of each hit."""
        offsets = ragged.offsets_of(np.bincount(rows, minlength=row_count))
        return column_values.finish_texts(texts, offsets, self.value_dim, self.default_text)

    def is_usable(self, entries: KeyValues) -> Mask:
        """Marks the distinct entries that can be used: they have a number, or for a category a text."""
        if self.kind is Kind.NUMERIC:
            return ~np.isnan(entries.numbers)
        return np.asarray(pc.fill_null(pc.not_equal(entries.values, ""), False))
