"""id_feature: the category, or the categories, that one input names.

What the text of a value is, integers and floats included, is defined in `text_values.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import lists, number_values, text_values
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.operators.base import MULTI_SEPARATOR, CategoryKeys, Operator


class IdFeature(Operator, CategoryKeys):
    """One category per row (value_dim 1) or several (value_dim 0: any number; n > 1: the first n).

    Attributes:
        value_dim: default 1, or 0 if `separator` or `weighted` is given. With 1 the whole text is the value, whatever
            it holds, and a list column is refused.
        separator: what stands between the values of a text (default: the character 0x1d).
        weighted: values are written "id:weight". The id is kept, unless its weight is zero or less; weights
            themselves are not passed on. A value without a numeric weight is an id of weight 1.
    """

    feature_type: Literal["id_feature"] = "id_feature"
    expression: ExpressionText
    separator: str | None = Field(default=None, min_length=1)
    weighted: bool = False
    value_dim: int | None = Field(default=None, ge=0)

    @model_validator(mode="after")
    def _multi_if_split(self) -> IdFeature:
        if self.value_dim == 1 and (self.separator is not None or self.weighted):
            raise ValueError("value_dim 1 excludes separator and weighted, which split a text into several values")
        return self

    @property
    def kind(self) -> Kind:
        """Always a category."""
        return Kind.CATEGORICAL

    @property
    def is_multi(self) -> bool:
        """True if value_dim is not 1."""
        if self.value_dim is None:
            return self.separator is not None or self.weighted
        return self.value_dim != 1

    @property
    def expression_texts(self) -> Sequence[str]:
        """The one input."""
        return (self.expression,)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the category text of each row, or a list of them."""
        (array,) = inputs
        where = self.where(0)
        if self.is_multi:
            return self._several(array, where)
        if lists.is_list(array.type):
            remedy = "set value_dim to 0 for a multi-valued feature"
            raise SchemaError(Fault(where, "one value per row (value_dim 1)", str(array.type), remedy))
        return text_values.fill_text(text_values.text_values(array, where), self.default_text)

    def _several(self, array: pa.Array, where: str) -> pa.Array:
        texts, offsets = text_values.multi_text_values(array, self.separator or MULTI_SEPARATOR, where)
        if self.weighted:
            ids, is_kept = _ids_of_weighted(texts.dictionary)
            codes = text_values.codes_of(texts)
            texts = pa.DictionaryArray.from_arrays(texts.indices, ids)
            texts, offsets = lists.keep(texts, offsets, is_kept[codes])
        if self.value_dim:
            lengths = np.diff(offsets)
            position = np.arange(len(texts)) - np.repeat(offsets[:-1], lengths)
            texts, offsets = lists.keep(texts, offsets, position < self.value_dim)
        if self.default_text:
            texts, offsets = _default_in_empty(texts, offsets, self.default_text)
        return lists.build(texts, offsets)


def _ids_of_weighted(entries: pa.Array) -> tuple[pa.Array, lists.Mask]:
    keys, weights = text_values.key_and_value(entries)
    numbers = number_values.number_values(weights, "weight")
    has_weight = ~np.isnan(numbers)
    ids = pc.if_else(pa.array(has_weight), keys, entries)
    is_kept = (~has_weight | (numbers > 0)) & pc.not_equal(ids, "").to_numpy(zero_copy_only=False)
    return ids, is_kept


def _default_in_empty(texts: pa.DictionaryArray, offsets: lists.Offsets, default: str) -> tuple[pa.Array, lists.Offsets]:
    lengths = np.diff(offsets)
    empty_rows = np.flatnonzero(lengths == 0)
    dictionary = pa.concat_arrays([texts.dictionary, pa.array([default], pa.string())])
    codes = np.insert(text_values.codes_of(texts), offsets[empty_rows], len(dictionary) - 1)
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), dictionary), lists.offsets_of(np.maximum(lengths, 1))
