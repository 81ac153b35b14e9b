"""What the two towers are: their features, embedding tables and layers, as one frozen value that survives JSON.

Belongs here: `TowerSpec`, `HistoryView`, building a specification from the model section, and naming the
differences of two.
Does not belong here: what a feature is (`tower_feature`), how sizes follow from counts (feature configuration) and the
layers themselves (`tower`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field, model_validator

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.config.model import Model, Norm, Pooling, PoolingKind, Similarity
from dssm_assets.core.config.section import Section
from dssm_assets.core.errors import ConfigError, Fault


class Side(StrEnum):
    """Where a feature comes from, and so which tower reads it."""

    USER = "user"
    CONTEXT = "context"
    """Known at request time; read by the user tower."""
    ITEM = "item"
    SEQUENCE = "sequence"
    """A sub-feature of the user's past items; read by the user tower."""


class TowerFeature(Section):
    """One feature as a tower sees it: the column of its embedding indices and the table they point into."""

    name: str = Field(description="Column of embedding indices; 0 = missing.")
    side: Side
    embedding_name: str = Field(description="Features of one embedding_name share one table.")
    embedding_dim: int = Field(ge=1)
    num_embeddings: int = Field(ge=1, description="Indices are 0 .. num_embeddings - 1.")
    is_multi: bool = False
    is_weighted: bool = Field(
        default=False,
        description="A column `name__weights` holds a weight per value; the tower reads the weighted mean (bags).",
    )


def feature_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    """Returns what keeps features from being those of two towers: names, weights, sizes, an empty side."""
    return [*_name_faults(features), *_weight_faults(features), *_size_faults(features), *_side_faults(features)]


def _name_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    names = [feature.name for feature in features]
    return [
        Fault(f"feature {name}", "one feature of this name", f"{names.count(name)} of them", "rename or remove one")
        for name in sorted(set(names))
        if names.count(name) > 1
    ]


def _weight_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    names, weighted = {feature.name for feature in features}, [feature for feature in features if feature.is_weighted]
    faults = [
        Fault(f"feature {f.name}", "several values (is_multi) for its weights", "a single value", "unset is_weighted")
        for f in weighted
        if not f.is_multi
    ]
    return faults + [
        Fault(f"feature {column}", "a name that no weights have", f"the weights of {f.name}", "rename the feature")
        for f in weighted
        if (column := feature_weights(f.name)) in names
    ]


def _size_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    users: dict[str, list[TowerFeature]] = {}
    for feature in features:
        users.setdefault(feature.embedding_name, []).append(feature)
    return [
        Fault(
            f"embedding {name}",
            "one num_embeddings and one embedding_dim",
            ", ".join(f"{f.name} {f.num_embeddings}x{f.embedding_dim}" for f in group),
            "give the features equal sizes or separate embedding names",
        )
        for name, group in users.items()
        if len({(f.num_embeddings, f.embedding_dim) for f in group}) > 1
    ]


def _side_faults(features: Sequence[TowerFeature]) -> list[Fault]:
    faults = [
        Fault(f"feature {f.name}", "a single value per past item", "is_multi", "use a single-valued sub-feature")
        for f in features
        if f.side is Side.SEQUENCE and f.is_multi
    ]
    sides = {feature.side for feature in features}
    if Side.ITEM not in sides:
        faults.append(Fault("item tower", "at least one item feature", "none", "keep a feature of side item"))
    if not sides - {Side.ITEM}:
        faults.append(Fault("user tower", "at least one user, context or sequence feature", "none", "keep one"))
    return faults


@dataclass(frozen=True)
class HistoryView:
    """One pooling of the history: what the user tower reads of every sub-feature under it."""

    pooling: Pooling
    features: tuple[TowerFeature, ...]
    """The sub-features as this pooling's inputs; they have names of their own where there are several poolings."""

    @property
    def is_attention(self) -> bool:
        """Whether the tower weighs the past items itself, and so reads them one by one."""
        return self.pooling.kind is PoolingKind.ATTENTION


class TowerSpec(Section):
    """The description of both towers. Two equal specs make towers of equal shapes and meaning."""

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
        faults = feature_faults(self.features)
        if self.num_interests > 1 and not self.attention_views:
            got = "no such pooling, or no sub-feature that it could pool"
            faults.append(Fault("model.num_interests", "a pooling of kind attention", got, "add one, or use one interest"))
        faults += _held_faults(self)
        if any(width < 1 for width in self.hidden_units):
            faults.append(Fault("model.hidden_units", "widths of at least 1", str(list(self.hidden_units)), "remove the layer"))
        if faults:
            raise ConfigError(faults)
        return self

    def of(self, *sides: Side) -> tuple[TowerFeature, ...]:
        """Returns the features of these sides, in the order of the specification."""
        return tuple(feature for feature in self.features if feature.side in sides)

    @property
    def sequences(self) -> tuple[TowerFeature, ...]:
        """The sub-features of the history; none when its length is 0."""
        return self.of(Side.SEQUENCE) if self.history_length else ()

    @property
    def history_views(self) -> tuple[HistoryView, ...]:
        """The poolings of the history, attention last; none without sub-features."""
        if not self.sequences:
            return ()
        plain = Pooling(length=self.history_length, half_life_days=self.history_half_life_days)
        poolings = self.poolings or (plain,)
        suffixes = [f"/{place}_{pooling.kind}" if len(poolings) > 1 else "" for place, pooling in enumerate(poolings)]
        views = [HistoryView(p, _renamed(self.sequences, suffix)) for p, suffix in zip(poolings, suffixes, strict=True)]
        return tuple(sorted(views, key=lambda view: view.is_attention))

    @property
    def pooled_features(self) -> tuple[TowerFeature, ...]:
        """The inputs of the poolings whose weights the past alone decides."""
        return tuple(feature for view in self.history_views if not view.is_attention for feature in view.features)

    @property
    def attention_views(self) -> tuple[HistoryView, ...]:
        """The poolings whose weights the tower learns."""
        return tuple(view for view in self.history_views if view.is_attention)

    @property
    def frozen_dim(self) -> int:
        """The last places of both vectors, which hold an embedding as it is; 0 without one."""
        return next((f.embedding_dim for f in self.features if f.embedding_name == self.frozen_embedding), 0)

    @property
    def tower_dim(self) -> int:
        """The first places of both vectors, which the towers' layers make."""
        return self.output_dim - self.frozen_dim

    @property
    def is_unit(self) -> bool:
        """Whether both vectors have length 1: those of cosine towers with nothing beside them."""
        return self.similarity is Similarity.COSINE and not self.frozen_dim

    @property
    def user_vector_width(self) -> int:
        """Floats of a stored user: the vectors of its interests one after another, each with the 1 of a prior behind it."""
        return self.num_interests * self.item_vector_width

    @property
    def item_vector_width(self) -> int:
        """Floats of a stored item: its vector, with its prior behind it where there is one."""
        return self.output_dim + self.prior

    def to_json(self) -> str:
        """Returns the specification as JSON, the same text for equal specifications."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TowerSpec:
        """Returns the specification that `to_json` wrote."""
        return cls.model_validate_json(text)


def tower_spec(features: Sequence[TowerFeature], model: Model) -> TowerSpec:
    """Returns the specification of two towers over these features with the layers of the model section.

    Raises:
        ConfigError: a name twice, one embedding_name with two sizes, a tower without features.
    """
    return TowerSpec(
        features=tuple(features),
        output_dim=model.output_dim,
        hidden_units=tuple(model.hidden_units),
        dropout=model.dropout,
        similarity=model.similarity,
        temperature=model.temperature,
        history_length=model.history_length,
        history_half_life_days=model.history_half_life_days,
        poolings=tuple(model.poolings),
        norm=model.norm,
        skip=model.skip,
        embedding_dropout=model.embedding_dropout,
        learn_temperature=model.learn_temperature,
        learn_scale=model.learn_scale,
        num_interests=model.num_interests,
        prior=model.prior,
        frozen_embedding=model.frozen_embedding,
    )


def spec_faults(expected: TowerSpec, got: TowerSpec, where: str, remedy: str) -> list[Fault]:
    """Returns one fault per entry in which two specifications differ; none when they are equal."""
    ours, theirs = _flat(expected), _flat(got)
    return [
        Fault(f"{where}, {path}", ours.get(path, "nothing"), theirs.get(path, "nothing"), remedy)
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]


def _renamed(features: Sequence[TowerFeature], suffix: str) -> tuple[TowerFeature, ...]:
    return tuple(feature.model_copy(update={"name": feature.name + suffix}) for feature in features)


def _flat(spec: TowerSpec) -> dict[str, str]:
    dumped: dict[str, Any] = spec.model_dump(mode="json")
    features: list[dict[str, Any]] = dumped.pop("features")
    flat = {key: json.dumps(value) for key, value in dumped.items()}
    flat["feature order"] = json.dumps([feature["name"] for feature in features])
    for feature in features:
        flat |= {f"feature {feature['name']}.{key}": json.dumps(value) for key, value in feature.items() if key != "name"}
    return flat


def _held_faults(spec: TowerSpec) -> list[Fault]:
    name, where = spec.frozen_embedding, "model.frozen_embedding"
    if name is None:
        return []
    remedy, faults = "name such an embedding, or unset frozen_embedding", []
    of_items = [f for f in spec.of(Side.ITEM) if f.embedding_name == name]
    past = [f for f in spec.sequences if f.embedding_name == name]
    others = [f.name for f in spec.of(Side.USER, Side.CONTEXT) if f.embedding_name == name]
    if len(of_items) != 1 or of_items[0].is_multi or len(past) != 1 or others:
        got = f"{name}: {len(of_items)} item features, {len(past)} of the past, {len(others)} of the user"
        faults.append(
            Fault(where, "an embedding of one single-valued item feature and one sub-feature of the past", got, remedy)
        )
    for what, sides in (("item", (Side.ITEM,)), ("user, context or sequence", (Side.USER, Side.CONTEXT, Side.SEQUENCE))):
        if all(f.embedding_name == name for f in spec.of(*sides)):
            faults.append(Fault(where, f"another {what} feature, for the tower's layers to read", "none", remedy))
    if spec.attention_views:
        faults.append(Fault(where, "poolings without attention", "one of kind attention", remedy))
    if spec.tower_dim < 1:
        expected = f"model.output_dim above {spec.frozen_dim}, the embedding's width"
        faults.append(Fault(where, expected, str(spec.output_dim), "widen the vectors or narrow the embedding"))
    return faults
