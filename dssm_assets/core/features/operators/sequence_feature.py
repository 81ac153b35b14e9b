"""Sequence features: the group sequence_feature, and the types sequence_id_feature and sequence_raw_feature.

The sub-features of a group are ordinary operators that get one row per element of the sequences.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar, Final, Literal

import pyarrow as pa
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import Mask, Offsets
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import Expression, ExpressionText, Kind, Source, parse_expression
from dssm_assets.core.features.operators.base import CategoryOperator, Definition, Operator
from dssm_assets.core.features.operators.id_feature import single_text
from dssm_assets.core.features.operators.raw_feature import RawFeature

SEQUENCE_FEATURE: Final = "sequence_feature"
"""The feature_type of a group."""

DELIMITER: Final = ";"
"""Default separator of the elements of a sequence given as text."""


class SubFeature(Definition):
    """A sub-feature of a group: an operator with at least one sequence among its inputs.

    Attributes:
        sequence_fields: names of the inputs that are sequences. Default: the only input; with several inputs, all of the
            item side. The other inputs describe the row and are the same for each element.
    """

    operator: SerializeAsAny[Operator]
    sequence_fields: list[str] | None = Field(default=None, min_length=1)

    @cached_property
    def element_operator(self) -> Operator:
        """Returns the operator for single elements. For a category, its value_dim defaults to 1."""
        is_open = self.operator.kind is Kind.CATEGORICAL and getattr(self.operator, "value_dim", 1) is None
        return self.operator.model_copy(update={"value_dim": 1}) if is_open else self.operator

    @cached_property
    def sequence_inputs(self) -> tuple[Expression, ...]:
        columns = [expression for expression in dict.fromkeys(self.operator.expressions) if expression.is_column]
        if self.sequence_fields is not None:
            return tuple(expression for expression in columns if expression.name in self.sequence_fields)
        of_item = tuple(expression for expression in columns if expression.source is Source.ITEM)
        return tuple(columns) if len(columns) == 1 else of_item

    @model_validator(mode="after")
    def _fields_are_inputs(self) -> SubFeature:
        names = {expression.name for expression in self.operator.expressions if expression.is_column}
        if any(expression.source is Source.FEATURE for expression in self.operator.expressions):
            raise ValueError("a feature inside a sequence reads columns and constants, no other feature")
        if self.operator.is_weighted:
            raise ValueError("weighted is for features outside a sequence")
        if self.operator.depth > 1 or self.operator.is_sequence:
            raise ValueError(
                f"{self.operator.feature_type} is a sequence itself: use id_feature or raw_feature, the group makes lists"
            )
        stray = sorted(set(self.sequence_fields or []) - names)
        if stray:
            raise ValueError(f"sequence_fields are not inputs: {', '.join(stray)} (inputs: {', '.join(sorted(names))})")
        if not self.sequence_inputs:
            raise ValueError("no input is a sequence: use an input of the item side, or name the sequences in sequence_fields")
        return self


class SequenceKeys(Definition):
    """Keys of sequences.

    Attributes:
        sequence_length: keeps so many of the most recent elements (0, the default: all).
        sequence_delim: separates the elements of a sequence given as text (default ";").
        oldest_first: true if a sequence ends with the most recent elements, as in the user history of this platform (default
            false: it begins with them, as in the reference).
    """

    sequence_length: int = Field(default=0, ge=1, le=100_000)
    sequence_delim: str = Field(default=DELIMITER, min_length=1)
    oldest_first: bool = False


class SequenceFeature(SequenceKeys):
    """A group of sequences, equally long in each row. Each sub-feature is one attribute of the elements.

    The input `side:x` of a sub-feature reads column `sequence__x` if the table has it, else column x.

    Attributes:
        sequence_name: first part of the sub-features' names, `sequence__feature`.
        sequence_pk: input that identifies the elements; every sub-feature must be as long (default: none).
        group: has no effect, see `Operator`.
        features: the sub-features.
    """

    feature_type: Literal["sequence_feature"] = "sequence_feature"
    sequence_name: str = Field(min_length=1)
    sequence_pk: ExpressionText | None = None
    group: str | None = None
    features: tuple[SubFeature, ...] = Field(min_length=1)

    @field_validator("sequence_pk")
    @classmethod
    def _is_column(cls, value: str | None) -> str | None:
        if value is not None and not parse_expression(value).is_column:
            raise ValueError("sequence_pk is an input column, not a feature or a constant")
        return value

    def output_name(self, operator: Operator) -> str:
        """Returns the name of the column of a sub-feature."""
        return f"{self.sequence_name}__{operator.feature_name}"

    def column(self, expression: Expression, columns: Sequence[str]) -> str:
        """Returns the column of a table that a sequence input reads."""
        qualified = f"{self.sequence_name}__{expression.name}"
        return qualified if qualified in columns else expression.name


class ElementKeys(SequenceKeys):
    """Keys of a feature type with a sequence in each row."""

    is_sequence: ClassVar[bool] = True
    is_multi: ClassVar[bool] = True

    def read_elements(self, array: pa.Array, where: str) -> tuple[pa.Array, Offsets, Mask]:
        """Returns the elements to keep, their offsets, and a mask of the null rows."""
        lists = column_values.as_lists(array, self.sequence_delim, where)
        flat, offsets = ragged.flatten(lists)
        positions, offsets = column_values.keep_recent(offsets, self.sequence_length, self.oldest_first)
        return flat.take(pa.array(positions)), offsets, ragged.null_mask(lists)


class SequenceIdFeature(ElementKeys, CategoryOperator):
    """The categories of a row's elements. A missing element keeps its position and becomes the default or null.

    Attributes:
        expression: the input.
        default_value: replaces a missing element (default "": null).
        value_dim: 1 gives one category per element (default), 0 a list of all its values, n a list of the first n.
    """

    feature_type: Literal["sequence_id_feature"] = "sequence_id_feature"
    expression: ExpressionText

    @property
    def depth(self) -> int:
        return 1 if self.value_dim in (None, 1) else 2

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        flat, offsets, is_missing = self.read_elements(inputs[0], self.where(0))
        if self.depth == 1:
            values = single_text(flat, self.default_text, self.where(0))
        else:
            texts, bounds = column_values.multi_text_values(flat, self.separator, self.where(0))
            values = column_values.finish_texts(texts, bounds, self.value_dim, self.default_text)
        return ragged.build_lists(values, offsets, is_missing)


class SequenceRawFeature(ElementKeys, RawFeature):
    """The numbers of a row's elements. A missing element keeps its position and becomes the default or null.

    Attributes:
        value_dim: 1 gives one number per element (default), n a vector of n numbers.
    """

    feature_type: Literal["sequence_raw_feature"] = "sequence_raw_feature"  # type: ignore[assignment]

    @property
    def depth(self) -> int:
        return 2 if self.value_dim > 1 else 1

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        flat, offsets, is_missing = self.read_elements(inputs[0], self.where(0))
        return ragged.build_lists(super().compute([flat]), offsets, is_missing)
