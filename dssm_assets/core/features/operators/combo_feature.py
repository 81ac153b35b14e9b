"""combo_feature: the cartesian product of the values of several inputs, each combination a category.

Values are joined by "_" without escaping, so the combinations ("a_b", "c") and ("a", "b_c") are the same category.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Offsets
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import ExpressionText
from dssm_assets.core.features.operators.base import CategoryOperator

_MAX_VALUES: Final = 2**31 - 1
"""Number of values that one Arrow list column can hold."""

_MAX_ROW_VALUES: Final = 1 << 20
"""Number of combinations of one row without value_dim. Beyond that a row is an accident, or a request meant to take all memory."""

_MAX_KEY: Final = 2**63 - 1


class ComboFeature(CategoryOperator):
    """The combinations of a row: each value of the first input with each value of the second, and so on.

    The first input is outermost: ("ua", "ub") and ("ia", "ib") give ua_ia, ua_ib, ub_ia, ub_ib. A row in which any input
    has no value has no combination.

    Attributes:
        expression: two or more inputs, the outermost first.
        default_value: value of a row without a combination (default "": the row stays empty).
        value_dim: 0 keeps all combinations (default), 1 makes the feature single-valued, n computes only the first n.
    """

    feature_type: Literal["combo_feature"] = "combo_feature"
    expression: Annotated[tuple[ExpressionText, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _has_no_num_buckets(self) -> ComboFeature:
        if self.num_buckets is not None:
            raise ValueError("num_buckets needs integers, but a combination is a text: use hash_bucket_size or a vocabulary")
        return self

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the combination of each row, or a list of combinations.

        Raises:
            SchemaError: the values of an input have no text, or a row or a column has too many combinations.
        """
        sides = [_read_input(array, self.separator, self.where(position)) for position, array in enumerate(inputs)]
        counts = _count_combinations(sides, self.value_dim)
        offsets = ragged.offsets_of(counts)
        for most, got, of in ((_MAX_ROW_VALUES, counts.max(initial=0), "of a row"), (_MAX_VALUES, offsets[-1], "at once")):
            if got > most and (not self.value_dim or of == "at once"):
                remedy = "set value_dim, send shorter lists, or generate fewer rows at once"
                raise SchemaError(
                    Fault(f"feature {self.feature_name}", f"at most {most} combinations {of}", f"{got} or more", remedy)
                )
        texts = _join_texts(sides, _combine(sides, offsets))
        return column_values.finish_texts(texts, offsets, self.value_dim, self.default_text)


@dataclass(frozen=True)
class _Side:
    """The values of one input.

    Attributes:
        codes: the distinct text of each value [n].
        offsets: of the rows.
        texts: the distinct texts.
    """

    codes: Any
    offsets: Offsets
    texts: pa.Array

    @property
    def lengths(self) -> Any:
        return np.diff(self.offsets)


def _read_input(array: pa.Array, separator: str, where: str) -> _Side:
    texts, offsets = column_values.multi_text_values(array, separator, where)
    # Equal parts of different texts have different codes; with one code each there are fewer distinct combinations.
    distinct = texts.dictionary.dictionary_encode()
    codes = distinct.indices.to_numpy(zero_copy_only=False).astype(np.int64)[column_values.dictionary_codes(texts)]
    return _Side(codes, offsets, distinct.dictionary)


def _count_combinations(sides: Sequence[_Side], value_dim: int | None) -> Any:
    """Returns the number of combinations of each row, capped where a column could not hold more."""
    limit = min(value_dim or _MAX_VALUES + 1, _MAX_VALUES + 1)
    counts = np.ones(len(sides[0].offsets) - 1, dtype=np.int64)
    for side in sides:
        counts = np.minimum(counts * side.lengths, limit)
    return counts


def _combine(sides: Sequence[_Side], offsets: Offsets) -> list[Any]:
    """Returns for each side the code that each combination takes from it."""
    rows = ragged.row_of_value(offsets)
    rest = np.arange(len(rows)) - offsets[rows]
    is_single = not rest.any()
    found = []
    for side in reversed(sides):
        positions = side.offsets[rows]
        if not is_single:
            rest, within = np.divmod(rest, side.lengths[rows])
            positions += within
        found.append(side.codes[positions])
    return found[::-1]


def _join_texts(sides: Sequence[_Side], codes: Sequence[Any]) -> pa.DictionaryArray:
    """Returns the text of each combination; each distinct combination is joined once."""
    keys, size = codes[0], len(sides[0].texts)
    for side, more in zip(sides[1:], codes[1:], strict=True):
        if size * len(side.texts) > _MAX_KEY:
            dense = pa.array(keys).dictionary_encode()
            keys, size = dense.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(dense.dictionary)
        keys = keys * len(side.texts) + more
        size *= len(side.texts)
    encoded = pa.array(keys).dictionary_encode()
    found = encoded.indices.to_numpy(zero_copy_only=False)
    example = np.zeros(len(encoded.dictionary), dtype=np.int64)
    example[found] = np.arange(len(found))
    parts = [side.texts.take(pa.array(code[example])) for side, code in zip(sides, codes, strict=True)]
    return pa.DictionaryArray.from_arrays(encoded.indices, pc.binary_join_element_wise(*parts, "_"))
