"""The specification of the two towers: features, embedding tables and layers, as one frozen value with a JSON form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from dssm_assets.core.config.model import Model, Norm, Pooling, PoolingKind, Similarity
from dssm_assets.core.config.section import Section
from dssm_assets.core.errors import ConfigError, Fault


class TowerSide(StrEnum):
    """The source of a feature; it decides which tower reads the feature."""

    USER = "user"
    CONTEXT = "context"
    """Known at request time; read by the user tower."""
    ITEM = "item"
    SEQUENCE = "sequence"
    """A sub-feature of the items in the user's history; read by the user tower."""


class TowerFeature(Section):
    """One feature of a tower: its column of embedding indices, and its embedding table."""

    name: str = Field(description="Column of embedding indices; 0 is missing.")
    side: TowerSide = Field(description="Where the feature comes from.")
    embedding_name: str = Field(description="Features with the same embedding_name share one table.")
    embedding_dim: int = Field(ge=1, description="Width of the table's vectors.")
    num_embeddings: int = Field(ge=1, description="Rows of the table: indices are 0 .. num_embeddings - 1.")
    is_multi: bool = Field(
        default=False, description="Whether a row has a list of values, which the tower pools to their mean."
    )
    is_weighted: bool = Field(
        default=False,
        description="Whether a column `name__weights` has a weight per value; the tower then reads the weighted mean.",
    )


@dataclass(frozen=True)
class HistoryView:
    """One pooling of the history and its inputs in the user tower.

    Attributes:
        pooling: settings of the pooling.
        features: the sub-features that it reads. With several poolings, each name ends with the pooling's name.
    """

    pooling: Pooling
    features: tuple[TowerFeature, ...]

    @property
    def width(self) -> int:
        """Returns the width of an event's vector: its sub-features side by side."""
        return sum(feature.embedding_dim for feature in self.features)

    @property
    def is_attention(self) -> bool:
        return self.pooling.kind is PoolingKind.ATTENTION

    @property
    def is_sequence(self) -> bool:
        return self.pooling.kind is PoolingKind.SEQUENCE


class TowerSpec(Section):
    """The specification of both towers. Equal specifications give towers with equal shapes and equal meaning.

    The model section of the configuration documents the fields.
    """

    features: tuple[TowerFeature, ...]
    output_dim: int
    hidden_units: tuple[int, ...]
    dropout: float
    similarity: Similarity
    temperature: float
    history_length: int
    history_half_life_days: float | None = None
    poolings: tuple[Pooling, ...] = ()
    norm: Norm = Norm.LAYER
    skip: bool = False
    embedding_dropout: float = 0.0
    learn_temperature: bool = False
    learn_scale: bool = False
    num_interests: int = 1
    prior: bool = False
    frozen_embedding: str | None = None

    @model_validator(mode="after")
    def _coherent(self) -> TowerSpec:
        faults = [*_weight_faults(self.features), *_size_faults(self.features), *_side_faults(self.features)]
        if self.num_interests > 1 and not self.attention_views:
            got, remedy = "no such pooling, or no sub-feature to pool", "add one, or set num_interests to 1"
            faults.append(Fault("model.num_interests", "a pooling of kind attention", got, remedy))
        ConfigError.raise_if([*faults, *_head_faults(self), *_frozen_faults(self)])
        return self

    def features_of(self, *sides: TowerSide) -> tuple[TowerFeature, ...]:
        """Returns the features of these sides, in the order of the specification."""
        return tuple(feature for feature in self.features if feature.side in sides)

    @property
    def sequences(self) -> tuple[TowerFeature, ...]:
        """Returns the sub-features of the history, empty if the history has length 0."""
        return self.features_of(TowerSide.SEQUENCE) if self.history_length else ()

    @property
    def encoded(self) -> tuple[TowerFeature, ...]:
        """Returns the sub-features that poolings of kind sequence read: all without the frozen embedding."""
        return tuple(feature for feature in self.sequences if feature.embedding_name != self.frozen_embedding)

    @property
    def history_views(self) -> tuple[HistoryView, ...]:
        """Returns the poolings: first with fixed weights, then of kind attention, then of kind sequence. Empty without sub-features."""
        if not self.sequences:
            return ()
        plain = Pooling(length=self.history_length, half_life_days=self.history_half_life_days)
        poolings = self.poolings or (plain,)
        suffixes = [f"/{number}_{pooling.kind}" if len(poolings) > 1 else "" for number, pooling in enumerate(poolings)]
        views = [
            HistoryView(p, _with_suffix(self.encoded if p.kind is PoolingKind.SEQUENCE else self.sequences, suffix))
            for p, suffix in zip(poolings, suffixes, strict=True)
        ]
        return tuple(sorted(views, key=lambda view: (view.is_sequence, view.is_attention)))

    @property
    def pooled_features(self) -> tuple[TowerFeature, ...]:
        """Returns the inputs of the poolings with fixed weights."""
        return tuple(
            feature for view in self.history_views if not (view.is_attention or view.is_sequence) for feature in view.features
        )

    @property
    def attention_views(self) -> tuple[HistoryView, ...]:
        return tuple(view for view in self.history_views if view.is_attention)

    @property
    def sequence_views(self) -> tuple[HistoryView, ...]:
        return tuple(view for view in self.history_views if view.is_sequence)

    @property
    def frozen_dim(self) -> int:
        """Width of the frozen embedding, which makes up the last columns of both vectors; 0 if there is none."""
        return next((f.embedding_dim for f in self.features if f.embedding_name == self.frozen_embedding), 0)

    @property
    def tower_dim(self) -> int:
        return self.output_dim - self.frozen_dim

    @property
    def is_unit(self) -> bool:
        """Whether both vectors have length 1: the similarity is COSINE and no frozen embedding is appended."""
        return self.similarity is Similarity.COSINE and not self.frozen_dim

    @property
    def user_vector_width(self) -> int:
        """Returns the number of floats in a stored user vector: all interests, joined. With a prior, each interest ends with a 1."""
        return self.num_interests * self.item_vector_width

    @property
    def item_vector_width(self) -> int:
        """Returns the number of floats in a stored item vector. With a prior, the last float is the prior."""
        return self.output_dim + self.prior

    def to_json(self) -> str:
        """Returns the specification as JSON; equal specifications give the same text."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def tower_spec(features: Sequence[TowerFeature], model: Model) -> TowerSpec:
    """Returns the specification of two towers for these features and the model section.

    Raises:
        ConfigError: a feature name occurs twice, an embedding_name has two sizes, or a tower has no features.
    """
    layers = {name: getattr(model, name) for name in TowerSpec.model_fields if name in Model.model_fields}
    return TowerSpec(features=tuple(features), **layers)


def spec_faults(expected: TowerSpec, got: TowerSpec, where: str, remedy: str) -> list[Fault]:
    """Returns one fault per difference between two specifications."""
    expected_entries, got_entries = _flatten(expected), _flatten(got)
    return [
        Fault(f"{where}, {path}", expected_entries.get(path, "nothing"), got_entries.get(path, "nothing"), remedy)
        for path in sorted(expected_entries.keys() | got_entries.keys())
        if expected_entries.get(path) != got_entries.get(path)
    ]


def _with_suffix(features: Sequence[TowerFeature], suffix: str) -> tuple[TowerFeature, ...]:
    return tuple(feature.model_copy(update={"name": feature.name + suffix}) for feature in features)


def _flatten(spec: TowerSpec) -> dict[str, str]:
    dumped = spec.model_dump(mode="json")
    features: list[dict[str, Any]] = dumped.pop("features")
    flat = {key: json.dumps(value) for key, value in dumped.items()}
    flat["feature order"] = json.dumps([feature["name"] for feature in features])
    for feature in features:
        flat |= {f"feature {feature['name']}.{key}": json.dumps(value) for key, value in feature.items() if key != "name"}
    return flat


def _weight_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    return [
        Fault(f"feature {feature.name}", "several values (is_multi) for its weights", "a single value", "unset is_weighted")
        for feature in features
        if feature.is_weighted and not feature.is_multi
    ]


def _size_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    by_embedding: dict[str, list[TowerFeature]] = {}
    for feature in features:
        by_embedding.setdefault(feature.embedding_name, []).append(feature)
    return [
        Fault(
            f"embedding {name}",
            "one num_embeddings and one embedding_dim",
            ", ".join(f"{f.name} {f.num_embeddings}x{f.embedding_dim}" for f in group),
            "give the features equal sizes or separate embedding names",
        )
        for name, group in by_embedding.items()
        if len({(f.num_embeddings, f.embedding_dim) for f in group}) > 1
    ]


def _side_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    faults, sides = [], {feature.side for feature in features}
    if TowerSide.ITEM not in sides:
        faults.append(Fault("item tower", "at least one item feature", "none", "keep a feature of side item"))
    if not sides - {TowerSide.ITEM}:
        faults.append(Fault("user tower", "at least one user, context or sequence feature", "none", "keep one"))
    return faults


def _head_faults(spec: TowerSpec) -> list[Fault]:
    """Returns one fault per pooling of kind sequence if its number of heads does not divide the width of the embeddings."""
    width = sum(feature.embedding_dim for feature in spec.encoded)
    expected = f"a divisor of {width}, the width of the history's embeddings"
    heads = sorted({view.pooling.num_heads for view in spec.sequence_views})
    return [Fault("model.poolings, num_heads", expected, str(count), "change it") for count in heads if width % count]


def _frozen_faults(spec: TowerSpec) -> list[Fault]:
    name, where = spec.frozen_embedding, "model.frozen_embedding"
    if name is None:
        return []
    remedy, faults = "name such an embedding, or unset frozen_embedding", []
    of_items = [f for f in spec.features_of(TowerSide.ITEM) if f.embedding_name == name]
    of_history = [f for f in spec.sequences if f.embedding_name == name]
    of_users = [f.name for f in spec.features_of(TowerSide.USER, TowerSide.CONTEXT) if f.embedding_name == name]
    if len(of_items) != 1 or of_items[0].is_multi or len(of_history) != 1 or of_users:
        got = f"{name}: {len(of_items)} item, {len(of_history)} history and {len(of_users)} user features"
        faults.append(
            Fault(where, "an embedding of one single-valued item feature and one sub-feature of the history", got, remedy)
        )
    for what, sides in (
        ("item", (TowerSide.ITEM,)),
        ("user, context or sequence", (TowerSide.USER, TowerSide.CONTEXT, TowerSide.SEQUENCE)),
    ):
        if all(f.embedding_name == name for f in spec.features_of(*sides)):
            faults.append(Fault(where, f"another {what} feature that the tower's layers can read", "none", remedy))
    if spec.attention_views:
        faults.append(Fault(where, "poolings without attention", "a pooling of kind attention", remedy))
    if spec.sequence_views and not (spec.encoded and spec.pooled_features):
        expected = "another pooling and another sub-feature of the history beside the pooling of kind sequence"
        faults.append(Fault(where, expected, "none", "add them; the codes are pooled, and the other sub-feature is encoded"))
    if spec.tower_dim < 1:
        expected = f"model.output_dim above {spec.frozen_dim}, the embedding's width"
        faults.append(Fault(where, expected, str(spec.output_dim), "widen the vectors or narrow the embedding"))
    return faults
