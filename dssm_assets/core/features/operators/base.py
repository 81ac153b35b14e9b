"""What every feature operator is: parameters that pydantic checks, and one pure function from columns to values.

Belongs here: the keys that all feature types share, and the protocol between operators and generator. Does not
belong here: what one feature type adds (its own file) and which types exist (`registry.py`).

An operator's `compute` takes one Arrow array per expression, all of R rows, and returns R rows: float32 for a
numeric feature, dictionary<string> for a category, list<dictionary<string>> for several. Null (or an empty list) is
missing. Row i of the result depends on row i of the inputs only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dssm_assets.core.features.expressions import Expression, Kind, parse_expression

MULTI_SEPARATOR: Final = "\x1d"
"""Stands between the values of a multi-valued text."""

_TEXT_TYPES: Final = ("string", "integer", "bigint")
_NUMBER_TYPES: Final = ("integer", "bigint", "float", "double")


class Definition(BaseModel):
    """Base of everything in fg.json: frozen, unknown keys refused, written back as it was read."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Operator(Definition, ABC):
    """A feature as fg.json defines it.

    Attributes:
        feature_name: the feature, and the column it fills.
        default_value: stands in for a missing value; "" leaves it missing.
        embedding_name: features of one embedding_name share a vocabulary and an embedding table (default: own name).
        embedding_dim: width of the embedding; overrides the policy.
        value_type: String, Integer, Bigint, Float or Double. Says nothing new, and must not contradict the kind.
    """

    feature_name: str = Field(min_length=1)
    feature_type: str
    default_value: str | int | float = ""
    embedding_name: str | None = Field(default=None, min_length=1)
    embedding_dim: int | None = Field(default=None, ge=1, le=4096)
    value_type: str | None = None

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What the feature's values are."""

    @property
    def is_multi(self) -> bool:
        """Tells whether a row holds any number of values. Known from the definition alone, never from the data."""
        return False

    @property
    @abstractmethod
    def expression_texts(self) -> Sequence[str]:
        """The input expressions, in the order in which `compute` takes their columns."""

    @abstractmethod
    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the feature's values for the rows of the inputs.

        Raises:
            SchemaError: if an input's type makes no sense for the feature.
        """

    @property
    def expressions(self) -> tuple[Expression, ...]:
        """The inputs, parsed."""
        return tuple(parse_expression(text) for text in self.expression_texts)

    @property
    def default_text(self) -> str:
        """The default as text; "" is none."""
        return str(self.default_value)

    @model_validator(mode="after")
    def _value_type_agrees(self) -> Operator:
        allowed = _NUMBER_TYPES if self.kind is Kind.NUMERIC else _TEXT_TYPES
        if self.value_type is not None and self.value_type.lower() not in allowed:
            raise ValueError(f"value_type {self.value_type!r} of a {self.kind} feature must be one of {', '.join(allowed)}")
        return self

    def where(self, position: int) -> str:
        """Returns the words that name an input of this feature in an error."""
        return f"feature {self.feature_name}, input {self.expression_texts[position]}"


class CategoryKeys(Definition):
    """Keys of a feature whose values may be categories: how large its vocabulary is. At most one of them.

    Without any, the vocabulary is counted from the window.

    Attributes:
        hash_bucket_size: the vocabulary is replaced by hash buckets.
        num_buckets: the values are the integers 0 .. num_buckets - 1.
        vocab_list: the vocabulary, in order.
    """

    hash_bucket_size: int | None = Field(default=None, ge=1, lt=2**31 - 2)
    num_buckets: int | None = Field(default=None, ge=1, le=10_000_000)
    vocab_list: list[str] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_vocabulary(self) -> CategoryKeys:
        given = [name for name in CategoryKeys.model_fields if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.vocab_list is not None and ("" in self.vocab_list or len(set(self.vocab_list)) != len(self.vocab_list)):
            raise ValueError('vocab_list holds "" or the same value twice')
        return self


class NumberKeys(Definition):
    """Keys of a feature whose values may be numbers.

    Attributes:
        boundaries: cut points of bins [a, b), ascending; override the equal-frequency ones.
    """

    boundaries: list[float] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _ascending(self) -> NumberKeys:
        edges = self.boundaries or []
        if not all(a < b for a, b in zip([float("-inf"), *edges], [*edges, float("inf")], strict=True)):
            raise ValueError("boundaries must be finite and strictly ascending")
        return self
