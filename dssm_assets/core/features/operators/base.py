"""What every feature operator is: parameters that pydantic checks, and one pure function from columns to values.

Belongs here: the keys that all feature types share, and the protocol between operators and generator. Does not
belong here: what one feature type adds (its own file) and which types exist (`registry.py`).

An operator's `compute` takes one Arrow array per expression, all of R rows, and returns R rows: float32 for a
number, dictionary<string> for a category, lists of them where a row holds several. Null (or an empty list) is
missing. Row i of the result depends on row i of the inputs only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

from dssm_assets.core.features import fg_files
from dssm_assets.core.features.expressions import Expression, Kind, parse_expression

MULTI_SEPARATOR: Final = "\x1d"
"""Stands between the values of a multi-valued text."""

FIRST_BUCKET: Final = 2
"""Of a vocabulary without default_bucketize_value: 0 is the default value, 1 is out of vocabulary."""

VOCABULARY_KEYS: Final = ("hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict", "vocab_file")

_TEXT_TYPES: Final = ("string", "integer", "bigint", "int32", "int64")
_NUMBER_TYPES: Final = ("integer", "bigint", "int32", "int64", "float", "double")


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
        stub_type: the feature only feeds others (`feature:` inputs) and is no output.
        need_prefix: only false: names of features never become part of their values.
        group: the group of features that a model of the reference reads it in. Read and written back, decides nothing
            here: a feature's side is its tower.
        combiner: how a model of the reference pools the embeddings of several values. Read and written back, decides
            nothing here: poolings belong to the towers. Feature types that combine numbers have their own.
    """

    feature_name: str = Field(min_length=1)
    feature_type: str
    default_value: str | int | float = ""
    embedding_name: str | None = Field(default=None, min_length=1)
    embedding_dim: int | None = Field(default=None, ge=1, le=4096)
    value_type: str | None = None
    stub_type: bool = False
    need_prefix: Literal[False] = False
    group: str | None = None
    combiner: str | None = Field(default=None, pattern="^(mean|sum|sqrtn|min|max)$")

    @property
    @abstractmethod
    def kind(self) -> Kind:
        """What the feature's values are."""

    @property
    def is_multi(self) -> bool:
        """Tells whether a row holds any number of values. Known from the definition alone, never from the data."""
        return False

    @property
    def depth(self) -> int:
        """How deep a row's values are nested: 0 one value, 1 a list, 2 a list of lists."""
        return 1 if self.is_multi else 0

    @property
    def is_sequence(self) -> bool:
        """True if the values of a row are ordered elements, each with its place even where it is missing."""
        return False

    @property
    def is_weighted(self) -> bool:
        """Tells whether values carry weights, which `compute_weighted` returns beside them."""
        return False

    def as_element(self) -> Operator:
        """Returns the operator as it works on the elements of a sequence: value_dim is 1 there unless it is given."""
        is_open = isinstance(self, BagKeys) and self.value_dim is None
        return self.model_copy(update={"value_dim": 1}) if is_open else self

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

    def compute_weighted(self, inputs: Sequence[pa.Array]) -> tuple[pa.Array, pa.Array]:
        """Returns the values and, for a weighted feature, lists of float32 weights as long as the lists of values."""
        raise NotImplementedError(f"{self.feature_type} has no weights")

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

    Without any, the vocabulary is counted from the window. What bucket a value gets is defined in `buckets.py`.

    Attributes:
        hash_bucket_size: the vocabulary is replaced by hash buckets.
        num_buckets: the values are the integers 0 .. num_buckets - 1.
        vocab_list: the vocabulary, in order.
        vocab_dict: the vocabulary with the bucket of each value.
        vocab_file: a file of one value per line, or of a value, a space and its bucket; needs default_bucketize_value.
        default_bucketize_value: bucket of a value out of the vocabulary. If it is given no bucket is reserved.
    """

    hash_bucket_size: int | None = Field(default=None, ge=1, lt=2**31 - 2)
    num_buckets: int | None = Field(default=None, ge=1, le=10_000_000)
    vocab_list: list[str] | None = Field(default=None, min_length=1)
    vocab_dict: dict[str, int] | None = Field(default=None, min_length=1)
    vocab_file: str | None = Field(default=None, min_length=1)
    default_bucketize_value: int | None = Field(default=None, ge=0, lt=2**31 - 2)
    _words: Mapping[str, int] | None = PrivateAttr(default=None)

    @property
    def vocabulary(self) -> Mapping[str, int] | None:
        """The buckets of the values that vocab_list, vocab_dict or vocab_file names; None without any of them."""
        if self.vocab_list is not None:
            first = 0 if self.default_bucketize_value is not None else FIRST_BUCKET
            return {word: first + place for place, word in enumerate(self.vocab_list)}
        return self.vocab_dict if self.vocab_dict is not None else self._words

    @model_validator(mode="after")
    def _one_vocabulary(self, info: ValidationInfo) -> CategoryKeys:
        given = [name for name in VOCABULARY_KEYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.default_bucketize_value is not None and (not given or given == ["hash_bucket_size"]):
            raise ValueError("default_bucketize_value needs num_buckets, vocab_list, vocab_dict or vocab_file")
        words = self.vocab_list or []
        # With default_bucketize_value the reference writes a place for "" into the list; nothing ever falls there.
        if len(set(words)) != len(words) or ("" in words and self.default_bucketize_value is None):
            raise ValueError('vocab_list holds "" or the same value twice')
        if self.vocab_file is not None:
            if self.default_bucketize_value is None:
                raise ValueError("vocab_file needs default_bucketize_value: a file reserves no buckets")
            self._words = fg_files.parse_vocabulary(fg_files.read_named_file(info.context, self.vocab_file))
        first = 0 if self.default_bucketize_value is not None else FIRST_BUCKET
        stray = {word: bucket for word, bucket in (self.vocab_dict or {}).items() if bucket < first or word == ""}
        if stray:
            reserved = "" if first == 0 else "; 0 and 1 are reserved unless default_bucketize_value is given"
            raise ValueError(f'the buckets of vocab_dict start at {first} and "" has none{reserved}; got {stray}')
        return self


class BagKeys(Definition):
    """Keys of a feature that may hold several values per row.

    Attributes:
        separator: what stands between the values of a text (default: the character 0x1d).
        value_dim: 0 (default): any number of values; 1: one, and the default inside a sequence; n: the first n.
    """

    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    value_dim: int | None = Field(default=None, ge=0)


class NumberKeys(Definition):
    """Keys of a feature whose values may be numbers.

    Attributes:
        boundaries: cut points of bins [a, b), ascending as float32, which values are; override the equal-frequency ones.
    """

    boundaries: list[float] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _ascending(self) -> NumberKeys:
        with np.errstate(over="ignore"):
            edges = np.asarray(self.boundaries or [], np.float32)
        if not np.isfinite(edges).all() or not (edges[:-1] < edges[1:]).all():
            raise ValueError("boundaries must be finite and strictly ascending as float32 numbers, which all values are")
        return self
