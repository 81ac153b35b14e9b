"""Base of all feature operators: the keys that feature types share, and the contract with the generator.

An operator is a pydantic model of its keys in fg.json with one pure function, `compute`. This function takes one Arrow array
per expression, all with R rows, and returns R rows: float32 for a number, dictionary<string> for a category, lists for
a feature with several values. Null (or an empty list) is missing. Row i of the result depends only on row i of the
inputs, so that a request gets the same features as a row of a table.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, ClassVar, Final, Literal

import numpy as np
import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, ValidationInfo, model_validator

from dssm_assets.core.features import column_values, fg_files
from dssm_assets.core.features.column_values import Numbers, parse_number
from dssm_assets.core.features.expressions import Expression, Kind, parse_expression
from dssm_assets.core.features.formula.formula import NormalizerText, normalize

MULTI_SEPARATOR: Final = "\x1d"
"""Default separator of the values in a multi-valued text."""

FIRST_BUCKET: Final = 2
"""First free bucket of a vocabulary without default_bucketize_value: 0 is the default value, 1 is out of vocabulary."""

VOCABULARY_KEYS: Final = ("hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict", "vocab_file")
"""Keys that define a vocabulary; a feature has at most one."""

_TEXT_TYPES: Final = ("string", "integer", "bigint", "int32", "int64")
_NUMBER_TYPES: Final = ("integer", "bigint", "int32", "int64", "float", "double")


class Definition(BaseModel):
    """Base of all entries of fg.json. Immutable; refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Operator(Definition, ABC):
    """A feature as fg.json defines it.

    Attributes:
        feature_name: name of the feature and of its column.
        feature_type: key of the operator in the registry.
        default_value: replaces a missing value (default "": it stays missing).
        embedding_name: features of one embedding_name share a vocabulary and an embedding table (default: feature_name).
        embedding_dim: width of the embedding (default: the policy of the configuration decides).
        value_type: String, Integer, Bigint, Float or Double (default: not given). Has no effect, but must fit the kind.
        stub_type: the feature only feeds others through `feature:` inputs and has no column (default false).
        need_prefix: must be false, because feature names never become part of values.
        group: feature group in a model of the reference (default: not given). Has no effect: the side of a feature
            decides its tower.
        combiner: pooling of several values in a model of the reference (default: not given). Has no effect: poolings are
            configured in the towers. Feature types that combine numbers override this key.
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
    input_keys: ClassVar[tuple[str, ...]] = ("expression",)
    """The keys that hold one or several input expressions."""
    is_sequence: ClassVar[bool] = False
    """True if the values of a row are elements of a sequence. A missing element of a sequence keeps its position."""

    @property
    @abstractmethod
    def kind(self) -> Kind: ...

    @property
    def is_multi(self) -> bool:
        """True if a row may hold several values. Depends on the definition alone, never on the data."""
        return False

    @property
    def depth(self) -> int:
        """Nesting of the values of a row: 0 for one value, 1 for a list, 2 for a list of lists."""
        return 1 if self.is_multi else 0

    @property
    def is_weighted(self) -> bool:
        """True if values have weights; `compute_weighted` returns them."""
        return False

    @property
    def expression_texts(self) -> Sequence[str]:
        """The input expressions in the order of the arrays that `compute` takes."""
        values = (getattr(self, key) for key in self.input_keys)
        return tuple(text for value in values for text in ((value,) if isinstance(value, str) else value))

    @abstractmethod
    def compute(self, inputs: Sequence[pa.Array]) -> pa.Array:
        """Returns the values of the feature for the rows of the inputs.

        Raises:
            SchemaError: the feature cannot use the type of an input.
        """

    def compute_weighted(self, inputs: Sequence[pa.Array]) -> tuple[pa.Array, pa.Array]:
        """Returns lists of values, and lists of float32 weights with the same lengths.

        Raises:
            TypeError: the feature is not weighted.
        """
        raise TypeError(f"{self.feature_type} has no weights")

    @cached_property
    def expressions(self) -> tuple[Expression, ...]:
        return tuple(parse_expression(text) for text in self.expression_texts)

    @property
    def default_text(self) -> str:
        return str(self.default_value)

    @model_validator(mode="after")
    def _value_type_agrees(self) -> Operator:
        allowed = _NUMBER_TYPES if self.kind is Kind.NUMERIC else _TEXT_TYPES
        if self.value_type is not None and self.value_type.lower() not in allowed:
            raise ValueError(f"value_type {self.value_type!r} of a {self.kind} feature must be one of {', '.join(allowed)}")
        return self

    def where(self, position: int) -> str:
        """Names an input of this feature for errors."""
        return f"feature {self.feature_name}, input {self.expression_texts[position]}"


class CategoryKeys(Definition):
    """Keys of a feature whose values may be categories. At most one key may define the vocabulary.

    Without such a key the vocabulary is counted over the window. `core/features/buckets.py` defines the bucket of a value.

    Attributes:
        hash_bucket_size: number of hash buckets that replace a vocabulary.
        num_buckets: the values are the integers 0 .. num_buckets - 1.
        vocab_list: the vocabulary, in order.
        vocab_dict: the vocabulary with the bucket of each value.
        vocab_file: file with one value per line, or one "value bucket" per line; needs default_bucketize_value.
        default_bucketize_value: bucket of values out of the vocabulary (default: bucket 1). If it is given, no buckets are reserved.
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
        """Value -> bucket, from vocab_list, vocab_dict or vocab_file; None if none of these is given."""
        if self.vocab_list is not None:
            first = 0 if self.default_bucketize_value is not None else FIRST_BUCKET
            return {word: first + position for position, word in enumerate(self.vocab_list)}
        return self.vocab_dict if self.vocab_dict is not None else self._words

    @model_validator(mode="after")
    def _one_vocabulary(self, info: ValidationInfo) -> CategoryKeys:
        given = [name for name in VOCABULARY_KEYS if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} exclude each other")
        if self.default_bucketize_value is not None and (not given or given == ["hash_bucket_size"]):
            raise ValueError("default_bucketize_value needs num_buckets, vocab_list, vocab_dict or vocab_file")
        words = self.vocab_list or []
        # With default_bucketize_value, lists of the reference contain "". It is the missing value, so its bucket stays unused.
        if len(set(words)) != len(words) or ("" in words and self.default_bucketize_value is None):
            raise ValueError('vocab_list contains "" or repeats a value')
        if self.vocab_file is not None:
            if self.default_bucketize_value is None:
                raise ValueError("vocab_file needs default_bucketize_value, because its lines start at bucket 0")
            self._words = fg_files.parse_vocabulary(fg_files.read_named_file(info.context, self.vocab_file))
        first = 0 if self.default_bucketize_value is not None else FIRST_BUCKET
        stray = {word: bucket for word, bucket in (self.vocab_dict or {}).items() if bucket < first or word == ""}
        if stray:
            reserved = "" if first == 0 else "; 0 and 1 are reserved unless default_bucketize_value is given"
            raise ValueError(f'the buckets of vocab_dict start at {first}, and "" cannot have one{reserved}; got {stray}')
        return self


class BagKeys(Definition):
    """Keys of a feature that may hold several values per row.

    Attributes:
        separator: separates the values of a text (default: the character 0x1d).
        value_dim: 0 keeps all values (default), n keeps the first n, 1 makes the feature single-valued (default inside a
            sequence).
    """

    separator: str = Field(default=MULTI_SEPARATOR, min_length=1)
    value_dim: int | None = Field(default=None, ge=0, le=65536)


class CategoryOperator(Operator, CategoryKeys, BagKeys):
    """A feature of categories. Each row holds a list of categories, or with value_dim 1 a single category."""

    kind: ClassVar[Kind] = Kind.CATEGORICAL

    @property
    def is_multi(self) -> bool:
        return self.value_dim != 1


class NumberKeys(Definition):
    """Keys of a feature whose values may be numbers.

    Attributes:
        boundaries: cut points of bins [a, b), strictly ascending as float32 (default: bins of equal frequency over the
            window).
    """

    boundaries: list[float] | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _ascending(self) -> NumberKeys:
        with np.errstate(over="ignore"):
            edges = np.asarray(self.boundaries or [], np.float32)
        if not np.isfinite(edges).all() or not (edges[:-1] < edges[1:]).all():
            raise ValueError(
                "boundaries must be finite and strictly ascending as float32 numbers, because all values are float32"
            )
        return self


def check_numeric_default(value: str | int | float) -> str | int | float:
    """Returns the default unchanged.

    Raises:
        ValueError: the default is neither "" nor a number that fits float32.
    """
    number = 0.0 if value == "" else parse_number(str(value))
    if number is None or abs(number) > float(np.finfo(np.float32).max):
        raise ValueError('the default of a numeric feature is a finite number, or "" for no default')
    return value


NumericDefault = Annotated[str | int | float, AfterValidator(check_numeric_default)]


class NumericOperator(Operator, NumberKeys):
    """A feature of one number per row. NaN, infinities and numbers beyond float32 are missing.

    Attributes:
        default_value: replaces a missing value (default "0"; "" leaves it missing); the normalizer does not change it.
        normalizer: a text for `parse_normalizer` (default: none). A result that is not finite is missing.
    """

    kind: ClassVar[Kind] = Kind.NUMERIC
    default_value: NumericDefault = "0"
    normalizer: NormalizerText | None = None

    def finish(self, numbers: Numbers) -> pa.Array:
        """Returns the normalized numbers as float32 values. A missing number (NaN) becomes the default."""
        return column_values.to_float32(normalize(self.normalizer, numbers), column_values.parse_number(self.default_text))
