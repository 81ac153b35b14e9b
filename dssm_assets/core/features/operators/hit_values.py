"""What a feature makes of hits: of the entries that its keys found in a map.

Belongs here: the two forms that lookup_feature and match_feature share, numbers and texts of hits. Does not belong
here: how hits are found (their own files).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.features import column_values
from dssm_assets.core.features.column_values import Numbers
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.formula.formula import NormalizerText, parse_normalizer
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS, CategoryKeys, NumberKeys, Operator
from dssm_assets.core.features.operators.numeric_operator import check_numeric_default


class Combiner(StrEnum):
    """How the numbers of several hits become one. NONE keeps them all."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    NONE = ""


def combine(combiner: Combiner, rows: Any, numbers: Numbers, row_count: int) -> Numbers:
    """Returns one number per row, NaN for a row without hits.

    Args:
        combiner: any but NONE.
        rows: row of each hit, ascending, so sums run in the order of the hits.
        numbers: number of each hit.
        row_count: rows of the result.
    """
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


class HitOperator(Operator, CategoryKeys, NumberKeys):
    """A feature of hits: one number of them all, or their texts.

    It is a category if a key says so: need_discrete, a key that puts names before values, or one that sizes a
    vocabulary. Else it is a number.

    Attributes:
        default_value: of a row without a hit (default "0"; "" is missing). Bypasses the normalizer.
        combiner: of numbers; "" keeps the number of every hit. A category may name the default, which says nothing of it.
        need_discrete: the feature is a category: the texts of the hits.
        value_dim: values of a category: 0 (default) one per hit, 1 that of the first hit. Of a number: 1.
        normalizer: of the combined number.
    """

    default_value: str | int | float = "0"
    combiner: Combiner = Combiner.SUM
    need_discrete: bool = False
    value_dim: int | None = Field(default=None, ge=0, le=1)
    normalizer: NormalizerText | None = None

    @model_validator(mode="after")
    def _keys_fit_the_kind(self) -> HitOperator:
        if self.kind is Kind.CATEGORICAL:
            stray = {"normalizer", "boundaries"} & self.model_fields_set
            if stray:
                raise ValueError(f"{', '.join(sorted(stray))} mean nothing in a category (a key of this feature makes it one)")
            if self.combiner not in (Combiner.NONE, Combiner.SUM):
                raise ValueError(f"combiner {self.combiner} means nothing in a category: texts are not combined")
        else:
            if self.value_dim == 0:
                raise ValueError("value_dim 0 needs need_discrete: a numeric feature has one value per row")
            check_numeric_default(self.default_value)
        return self

    @property
    def shows_keys(self) -> bool:
        """Tells whether a key of the definition puts names before the values."""
        return False

    @property
    def kind(self) -> Kind:
        """A category if a key of the definition says so, else a number."""
        is_category = self.need_discrete or self.shows_keys or any(getattr(self, key) is not None for key in VOCABULARY_KEYS)
        return Kind.CATEGORICAL if is_category else Kind.NUMERIC

    @property
    def is_multi(self) -> bool:
        """True for a category unless value_dim is 1, and for numbers that are not combined."""
        return self.value_dim != 1 if self.kind is Kind.CATEGORICAL else self.combiner is Combiner.NONE

    def as_element(self) -> Operator:
        """Returns the operator as it works on the elements of a sequence: value_dim is 1 there unless it is given."""
        is_open = self.value_dim is None and self.kind is Kind.CATEGORICAL
        return self.model_copy(update={"value_dim": 1}) if is_open else self

    def number_of_hits(self, rows: Any, numbers: Numbers, row_count: int) -> pa.Array:
        """Returns the values of a numeric feature from the row (ascending) and number of each hit."""
        default = column_values.parse_number(self.default_text)
        if self.combiner is not Combiner.NONE:
            return column_values.to_float32(self._normalized(combine(self.combiner, rows, numbers, row_count)), default)
        narrow = column_values.to_float32(self._normalized(numbers), None)
        is_number = ~ragged.null_mask(narrow)
        counts = np.bincount(rows[is_number], minlength=row_count)
        values = narrow.drop_null().to_numpy(zero_copy_only=False)
        if default is not None:
            values = np.insert(values, (np.cumsum(counts) - counts)[counts == 0], np.float32(default))
            counts = np.maximum(counts, 1)
        return ragged.build(pa.array(values, pa.float32()), ragged.offsets_of(counts))

    def texts_of_hits(self, rows: Any, texts: pa.DictionaryArray, row_count: int) -> pa.Array:
        """Returns the values of a categorical feature from the row (ascending) and text of each hit."""
        offsets = ragged.offsets_of(np.bincount(rows, minlength=row_count))
        if self.is_multi:
            return ragged.build(*column_values.with_default(texts, offsets, self.default_text))
        return column_values.first_or_default(texts, offsets, self.default_text)

    def _normalized(self, numbers: Numbers) -> Numbers:
        return numbers if self.normalizer is None else parse_normalizer(self.normalizer)(numbers)
