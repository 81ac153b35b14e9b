"""What a feature is to a tower: whose it is, its column of embedding indices, and the table that they point into.

Belongs here: `TowerFeature`, and what is wrong with several of them together. Does not belong here: layers, poolings and what
needs them (`tower_spec`).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from pydantic import Field

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.errors import Fault
from dssm_assets.core.section import Section


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
