"""sequence_feature: a group of sequences of one length, one sub-feature per attribute of each element.

Belongs here: the keys of the group, the names of its outputs, and which inputs are sequences. Its sub-features are
operators like any other; they see the elements as rows (`feature_columns.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Final, Literal

import pyarrow as pa
from pydantic import Field, SerializeAsAny, model_validator

from dssm_assets.core.arrays import ragged
from dssm_assets.core.features import column_values
from dssm_assets.core.features.expressions import Expression, ExpressionText, Kind, Source
from dssm_assets.core.features.operators.base import BagKeys, CategoryKeys, Definition, Operator
from dssm_assets.core.features.operators.id_feature import single_text
from dssm_assets.core.features.operators.raw_feature import RawFeature

SEQUENCE_FEATURE: Final = "sequence_feature"
"""feature_type of a group of sequences."""

DELIMITER: Final = ";"


class SubFeatureKeys(Definition):
    """Keys of a sub-feature beside those of its type.

    Attributes:
        sequence_fields: names of the inputs that are sequences. Default: the only input; of several those of the item
            side, which describe the elements, while the others describe the row and are the same for each element.
    """

    sequence_fields: list[str] | None = Field(default=None, min_length=1)


class SubFeature(Definition):
    """A sub-feature: an operator, and which of its inputs are sequences."""

    operator: SerializeAsAny[Operator]
    keys: SubFeatureKeys = SubFeatureKeys()

    @cached_property
    def element_operator(self) -> Operator:
        """The operator as it works on elements: one value each unless the definition says otherwise."""
        return self.operator.as_element()

    @property
    def sequence_inputs(self) -> tuple[Expression, ...]:
        """The inputs that are sequences."""
        columns = [expression for expression in dict.fromkeys(self.operator.expressions) if expression.is_column]
        if self.keys.sequence_fields is not None:
            return tuple(expression for expression in columns if expression.name in self.keys.sequence_fields)
        of_item = tuple(expression for expression in columns if expression.source is Source.ITEM)
        return tuple(columns) if len(columns) == 1 else of_item

    @model_validator(mode="after")
    def _fields_are_inputs(self) -> SubFeature:
        names = {expression.name for expression in self.operator.expressions if expression.is_column}
        stray = sorted(set(self.keys.sequence_fields or []) - names)
        if stray:
            raise ValueError(f"sequence_fields name no input: {', '.join(stray)} (inputs: {', '.join(sorted(names))})")
        if not self.sequence_inputs:
            raise ValueError(
                "no input is a sequence: of several inputs those of the item side are, unless sequence_fields names others"
            )
        return self


class SequenceFeature(Definition):
    """A sequence and its sub-features.

    The input `side:x` of a sub-feature reads column `sequence__x` if there is one, else column x. All sequences of a
    group have the same length in each row.

    Attributes:
        sequence_name: first part of the sub-features' names, `sequence__feature`.
        sequence_length: most recent elements that are kept (0: all).
        sequence_delim: what stands between the elements of a sequence that comes as text.
        sequence_pk: input that names the elements; every sub-feature must have as many.
        oldest_first: elements ascend in time, as in this platform's user history, so that the most recent are the
            last. False, the reference's order, means that they are the first.
        group: as of a feature: read and written back.
    """

    feature_type: Literal["sequence_feature"] = "sequence_feature"
    sequence_name: str = Field(min_length=1)
    sequence_length: int = Field(default=0, ge=0)
    sequence_delim: str = Field(default=DELIMITER, min_length=1)
    sequence_pk: ExpressionText | None = None
    oldest_first: bool = False
    group: str | None = None
    features: tuple[SubFeature, ...] = Field(min_length=1)

    def output_name(self, operator: Operator) -> str:
        """Returns the name of a sub-feature's column."""
        return f"{self.sequence_name}__{operator.feature_name}"

    def column(self, expression: Expression, columns: Sequence[str]) -> str:
        """Returns which of a table's columns a sequence input reads."""
        qualified = f"{self.sequence_name}__{expression.name}"
        return qualified if qualified in columns else expression.name


class SequenceIdFeature(Operator, CategoryKeys, BagKeys):
    """The categories of a row in order, one per element (value_dim 1, the default) or a list of them (0, n).

    A missing element keeps its place: it is null, or the default.

    Attributes:
        sequence_length: elements that are kept, the first ones or with oldest_first the last (0: all).
        sequence_delim: what stands between the elements of a text.
        oldest_first: elements ascend in time.
    """

    feature_type: Literal["sequence_id_feature"] = "sequence_id_feature"
    expression: ExpressionText
    sequence_length: int = Field(default=0, ge=0)
    sequence_delim: str = Field(default=DELIMITER, min_length=1)
    oldest_first: bool = False

    @property
    def kind(self) -> Kind:
        """Always a category."""
        return Kind.CATEGORICAL

    @property
    def is_sequence(self) -> bool:
        """Always true."""
        return True

    @property
    def is_multi(self) -> bool:
        """Always true."""
        return True

    @property
    def depth(self) -> int:
        """1, or 2 where an element holds several values."""
        return 1 if self.value_dim in (None, 1) else 2

    @property
    def expression_texts(self) -> Sequence[str]:
        """The one input."""
        return (self.expression,)

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the categories of each row's elements; a null row stays null."""
        array = column_values.as_lists(inputs[0], self.sequence_delim, self.where(0))
        flat, offsets = ragged.flatten(array)
        positions, offsets = column_values.kept(offsets, self.sequence_length, self.oldest_first)
        flat = flat if positions is None else flat.take(pa.array(positions))
        if self.depth == 1:
            values = single_text(flat, self.default_text, self.where(0))
        else:
            texts, bounds = column_values.multi_text_values(flat, self.separator, self.where(0))
            texts, bounds = column_values.first(texts, bounds, self.value_dim)
            values = ragged.build(*column_values.with_default(texts, bounds, self.default_text))
        return ragged.build(values, offsets, ragged.null_mask(array))


class SequenceRawFeature(RawFeature):
    """The numbers of a row in order, one per element, or with value_dim n a vector of n numbers per element.

    A missing element keeps its place: it is the default, or null.

    Attributes:
        sequence_length: elements that are kept, the first ones or with oldest_first the last (0: all).
        sequence_delim: what stands between the elements of a text.
        oldest_first: elements ascend in time.
    """

    feature_type: Literal["sequence_raw_feature"] = "sequence_raw_feature"  # type: ignore[assignment]
    sequence_length: int = Field(default=0, ge=0)
    sequence_delim: str = Field(default=DELIMITER, min_length=1)
    oldest_first: bool = False

    @property
    def is_sequence(self) -> bool:
        """Always true."""
        return True

    @property
    def is_multi(self) -> bool:
        """Always true."""
        return True

    @property
    def depth(self) -> int:
        """1, or 2 for a sequence of vectors."""
        return 2 if self.value_dim > 1 else 1

    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the numbers of each row's elements; a null row stays null."""
        array = column_values.as_lists(inputs[0], self.sequence_delim, self.where(0))
        flat, offsets = ragged.flatten(array)
        positions, offsets = column_values.kept(offsets, self.sequence_length, self.oldest_first)
        flat = flat if positions is None else flat.take(pa.array(positions))
        return ragged.build(self.read_numbers(flat), offsets, ragged.null_mask(array))
