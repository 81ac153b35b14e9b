"""combo_feature: the combinations of the values of several inputs, each combination a category.

Belongs here: the cartesian product of a row's values and its texts. Does not belong here: what the values of an
input are (`text_values.py`) and the first n of a row (counted here only so that no more are made; see `bags.py`).

Values are joined by "_" as they stand, so that the combinations of ("a_b", "c") and of ("a", "b_c") are one category.
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
from dssm_assets.core.features.expressions import ExpressionText, Kind
from dssm_assets.core.features.operators.base import BagKeys, CategoryKeys, Operator

_MOST: Final = 2**31 - 1
"""Elements that one Arrow list column can hold."""

_LARGEST_KEY: Final = 2**63 - 1


class ComboFeature(Operator, CategoryKeys, BagKeys):
    """The combinations of a row: each value of the first input with each of the second, and so on.

    The first input is outermost: ("ua", "ub") and ("ia", "ib") give ua_ia, ua_ib, ub_ia, ub_ib. A row in which an
    input has no value has no combination: it has the default, or none. With value_dim n only the first n combinations
    are made, and with 1 the first one is a single category.
    """

    feature_type: Literal["combo_feature"] = "combo_feature"
    expression: Annotated[tuple[ExpressionText, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _texts_are_no_integers(self) -> ComboFeature:
        if self.num_buckets is not None:
            raise ValueError("num_buckets needs integers, and a combination is a text: use hash_bucket_size or a vocabulary")
        return self

    @property
    def kind(self) -> Kind:
        """Always a category."""
        return Kind.CATEGORICAL

    @property
    def is_multi(self) -> bool:
        """True if value_dim is not 1."""
        return self.value_dim != 1

    @property
    def expression_texts(self) -> Sequence[str]:
        """The inputs, the outermost first."""
        return self.expression

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the combination of each row, or a list of them.

        Raises:
            SchemaError: if an input's values have no text, or there are more combinations than a column can hold.
        """
        sides = [_side(array, self.separator, self.where(position)) for position, array in enumerate(inputs)]
        offsets = ragged.offsets_of(_counts(sides, self.value_dim))
        if int(offsets[-1]) > _MOST:
            expected = f"at most {_MOST} combinations at once"
            remedy = "set value_dim, or generate fewer rows at once"
            raise SchemaError(Fault(f"feature {self.feature_name}", expected, f"{int(offsets[-1])} or more", remedy))
        texts = _texts(sides, _codes(sides, offsets))
        if not self.is_multi:
            return column_values.first_or_default(texts, offsets, self.default_text)
        return ragged.build(*column_values.with_default(texts, offsets, self.default_text))


@dataclass(frozen=True)
class _Side:
    """The values of one input: which distinct text each is, their row bounds, the distinct texts."""

    codes: Any
    offsets: Offsets
    texts: pa.Array

    @property
    def lengths(self) -> Any:
        return np.diff(self.offsets)


def _side(array: pa.Array, separator: str, where: str) -> _Side:
    texts, offsets = column_values.multi_text_values(array, separator, where)
    # Splitting leaves equal parts of different texts apart; as one they make fewer distinct combinations.
    distinct = texts.dictionary.dictionary_encode()
    codes = distinct.indices.to_numpy(zero_copy_only=False).astype(np.int64)[column_values.codes_of(texts)]
    return _Side(codes, offsets, distinct.dictionary)


def _counts(sides: Sequence[_Side], value_dim: int | None) -> Any:
    """Returns how many combinations each row gets; no count passes a number that no column could hold."""
    limit = min(value_dim or _MOST + 1, _MOST + 1)
    counts = np.ones(len(sides[0].offsets) - 1, dtype=np.int64)
    for side in sides:
        counts = np.minimum(counts * side.lengths, limit)
    return counts


def _codes(sides: Sequence[_Side], offsets: Offsets) -> list[Any]:
    """Returns the text code that each combination takes from each side."""
    rows = ragged.row_of_value(offsets)
    rest = np.arange(len(rows)) - offsets[rows]
    is_single = not rest.any()
    found = []
    for side in reversed(sides):
        places = side.offsets[rows]
        if not is_single:
            rest, within = np.divmod(rest, side.lengths[rows])
            places += within
        found.append(side.codes[places])
    return found[::-1]


def _texts(sides: Sequence[_Side], codes: Sequence[Any]) -> pa.DictionaryArray:
    """Returns the text of each combination, joined once per distinct combination."""
    keys, size = codes[0], len(sides[0].texts)
    for side, more in zip(sides[1:], codes[1:], strict=True):
        if size * len(side.texts) > _LARGEST_KEY:
            dense = pa.array(keys).dictionary_encode()
            keys, size = dense.indices.to_numpy(zero_copy_only=False).astype(np.int64), len(dense.dictionary)
        keys = keys * len(side.texts) + more
        size *= len(side.texts)
    encoded = pa.array(keys).dictionary_encode()
    found = encoded.indices.to_numpy(zero_copy_only=False)
    place = np.zeros(len(encoded.dictionary), dtype=np.int64)
    place[found] = np.arange(len(found))
    parts = [side.texts.take(pa.array(code[place])) for side, code in zip(sides, codes, strict=True)]
    return pa.DictionaryArray.from_arrays(encoded.indices, pc.binary_join_element_wise(*parts, "_"))
