"""The JSON of a row of feature_config: what a model and the bucketizer need to know about one feature.

Belongs here: its keys and their meaning. Does not belong here: how they are decided (`feature_config.py`).
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from dssm_assets.core.features.expressions import Kind, Side
from dssm_assets.core.features.hash_function import HashFunction


class FeatureInfo(BaseModel):
    """One kept feature. Exactly one of boundary, vocab_size, vocab_list, vocab_dict, num_buckets and hash_bucket_size is
    given.

    Attributes:
        side: the tower that reads it; "user" for a sub-feature of a sequence.
        kind: numeric or categorical.
        is_multi: a row holds a list of values; false for a sub-feature, whose elements hold one each.
        is_weighted: true if every value carries a weight, else null.
        sequence_name: the sequence of a sub-feature, else null.
        sequence_length: elements of the past that the definition asks for (0: as the model says), else null.
        embedding_name: features of one name share a table.
        embedding_dim: width of the table.
        num_embeddings: rows of the table: embedding indices are 0 .. num_embeddings - 1, and 0 is missing.
        boundary: cut points of bins [a, b); index 1 + number of boundaries <= x.
        vocab_size: values in the counted vocabulary; 1 is out of vocabulary, 2.. by frequency.
        counted_features: features whose counts together are the vocabulary.
        min_count: values counted less often are out of vocabulary.
        vocab_list: the vocabulary as defined; 1 is out of vocabulary, 2.. in its order.
        vocab_dict: the vocabulary with the bucket of each value, also that of a vocab_file; 1 is out of vocabulary.
        num_buckets: the vocabulary is the integers below it; 1 is out of vocabulary, 2 + value.
        hash_bucket_size: index 1 + hash modulo it.
        default_bucketize_value: bucket of values out of the vocabulary; indices are then 1 + bucket.
        default_value: text that gets index 0 in a vocabulary without default_bucketize_value that lacks it.
        hash_function: the hash of categories (null: murmur_hash64a).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    side: Side
    kind: Kind
    is_multi: bool
    is_weighted: bool | None = None
    sequence_name: str | None = None
    sequence_length: int | None = None
    embedding_name: str
    embedding_dim: int = Field(ge=1)
    num_embeddings: int = Field(ge=2)
    boundary: list[float] | None = None
    vocab_size: int | None = None
    counted_features: list[str] | None = None
    min_count: int | None = None
    vocab_list: list[str] | None = None
    num_buckets: int | None = None
    vocab_dict: dict[str, int] | None = None
    hash_bucket_size: int | None = None
    default_bucketize_value: int | None = None
    default_value: str | None = None
    hash_function: HashFunction | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> FeatureInfo:
        names = ("boundary", "vocab_size", "vocab_list", "vocab_dict", "num_buckets", "hash_bucket_size")
        if sum(getattr(self, name) is not None for name in names) != 1:
            raise ValueError(f"exactly one of {', '.join(names)} must be given")
        return self

    def to_json(self) -> str:
        """Returns the JSON text, without the keys that do not apply."""
        return self.model_dump_json(exclude_none=True)

    @classmethod
    def from_json(cls, text: str) -> FeatureInfo:
        """Returns what `to_json` wrote."""
        return cls.model_validate_json(text)
