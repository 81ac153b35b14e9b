"""Which features the towers of an imported configuration read, and what the definition of a feature says of itself.

A definition is an entry of fg.json: of one feature, or of a group of sequences with its features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dssm_assets.core import columns as col
from dssm_assets.core.features.expressions import Side
from dssm_assets.extras.easyrec.field_reader import FieldReader

FIELD_REASONS: Final = {
    "pooling": "values of a row are pooled by their (weighted) mean",
    "combiner": "values of a row are pooled by their (weighted) mean",
    "sequence_combiner": "model.poolings pools the history",
    "init_fn": "embeddings start at small random values",
    "initializer": "embeddings start at small random values",
    "ev_params": "statistics.min_count and max_vocabulary bound a vocabulary",
    "zch": "vocabularies are exact, or hashed",
    "dynamicemb": "vocabularies are computed for each window",
    "trainable": "embeddings are trained, except model.frozen_embedding",
    "use_mask": "model.embedding_dropout and model.cold_item_frac are the nearest",
    "data_type": "embeddings are float32",
    "embedding_constraints": "training.shard_tables divides tables among processes",
    "max_partitions": "training.shard_tables divides tables among processes",
    "fg_encoded_default_value": "features are generated here; default_value is the default",
    "fg_value_type": "the type of a value follows from its feature type",
    "asset_dir": "vocab_file is relative to fg.json",
    "autodis": "numbers are cut into bins, each with an embedding",
    "mlp": "numbers are cut into bins, each with an embedding",
    "value_separator": "a map's values are single",
    "fill_missing": "an operand of unequal length is a missing value",
    "precision": "the text of a number is its shortest form",
    "sequence_pk": "the history is that of user_id",
    "sequence_delim": "the history comes as a list",
    "seq_multi_sep": "an element of the history has one value",
    "separator": "values come as lists, or as text of a feature that has the key separator",
    "feature_groups": "towers read features by the names in their groups alone",
    "wide_deep": "a group has no wide part",
    "tf_summary": "the report of dssm_model shows the fit",
}
"""Field of a feature or a group -> why it has no counterpart."""

SEQUENCE_KINDS: Final = {"sequence_id_feature": "id_feature", "sequence_raw_feature": "raw_feature"}


@dataclass
class FeatureGroups:
    """Which features the towers read.

    Attributes:
        user: features of the user tower, those within sequences included.
        item: features of the item tower.
        keys: feature of a history -> feature of the item that it has the values of, as far as the groups tell.
    """

    user: list[str] = field(default_factory=list)
    item: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        """The names of all features that a tower reads."""
        return {*self.user, *self.item}


@dataclass(frozen=True)
class IdFields:
    """Columns of the imported samples that hold the ids, and item columns of sequences, by name of the sequence's feature."""

    user: str = col.USER_ID
    item: str = col.ITEM_ID
    of_sequences: Mapping[str, str] = field(default_factory=dict)


def read_groups(model: FieldReader, towers: Mapping[Side, Sequence[str]]) -> FeatureGroups:
    """Returns the features of the groups that the towers read, by the names of the groups."""
    groups = FeatureGroups()
    for group in model.messages("feature_groups"):
        name = group.text("group_name")
        group.path = f"{group.path} {name}"
        side = next((side for side, names in towers.items() if name in names), None)
        if side is None:
            continue
        into = groups.item if side is Side.ITEM else groups.user
        into += group.texts("feature_names")
        if group.text("group_type", "DEEP") == "WIDE":
            group.without_counterpart("group_type", "a group has no wide part")
        for inner in group.messages("sequence_groups"):
            into += inner.texts("feature_names")
            inner.text("group_name")
        for inner in group.messages("sequence_features"):
            _read_attention(inner, groups)
    for inner in model.messages("seq_att_groups"):
        _read_attention(inner, groups)
    return groups


def _read_attention(group: FieldReader, groups: FeatureGroups) -> None:
    group.text("group_name")
    for pair in group.messages("seq_att_map"):
        keys, histories = pair.texts("key"), pair.texts("hist_seq")
        groups.keys |= dict(zip(histories, keys, strict=False))
        groups.user += histories


def entry_column(entry: Mapping[str, Any]) -> str:
    """Returns the column that a definition with one input reads."""
    return str(entry.get("expression")).partition(":")[2]


def entry_name(entry: Mapping[str, Any]) -> str:
    """Returns the name of a definition: of a feature, or of a group of sequences."""
    return str(entry.get("sequence_name") if "features" in entry else entry.get("feature_name"))


def sub_names(entry: Mapping[str, Any]) -> list[str]:
    """Returns the names of the features of a definition: those of a group are `sequence__feature`."""
    if "features" not in entry:
        return [entry_name(entry)]
    return [f"{entry['sequence_name']}__{sub['feature_name']}" for sub in entry["features"]]


def is_sequence(entry: Mapping[str, Any]) -> bool:
    """Returns whether a definition is a sequence or a group of them."""
    return "features" in entry or entry.get("feature_type") in SEQUENCE_KINDS


def is_read(entry: Mapping[str, Any], groups: FeatureGroups) -> bool:
    """Returns whether a tower reads a feature of a definition."""
    return any(name in groups.names for name in sub_names(entry))
