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

SEQUENCE_KINDS: Final = {"sequence_id_feature": "id_feature", "sequence_raw_feature": "raw_feature"}


@dataclass
class FeatureGroups:
    """Features of the user tower, those within sequences included, and of the item tower.

    `keys` has feature of a history -> feature of the item that it has the values of, as far as the groups tell.
    """

    user: list[str] = field(default_factory=list)
    item: list[str] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> set[str]:
        return {*self.user, *self.item}


@dataclass(frozen=True)
class IdFields:
    """Columns of the imported samples that hold the ids, and item columns of sequences, by name of the sequence's feature."""

    user: str = col.USER_ID
    item: str = col.ITEM_ID
    of_sequences: Mapping[str, str] = field(default_factory=dict)


def read_groups(model: FieldReader, towers: Mapping[Side, Sequence[str]]) -> FeatureGroups:
    """Returns the features of the groups that the towers read, by the names of the groups."""
    groups, attentions = FeatureGroups(), model.messages("seq_att_groups")
    for group in model.messages("feature_groups"):
        name = group.get("group_name", "")
        group.path = f"{group.path} {name}"
        side = next((side for side, names in towers.items() if name in names), None)
        if side is None:
            continue
        into = groups.item if side is Side.ITEM else groups.user
        into += group.all("feature_names", str)
        if group.get("group_type", "DEEP") == "WIDE":
            group.without_counterpart("group_type")
        for inner in group.messages("sequence_groups"):
            into += inner.all("feature_names", str)
            inner.get("group_name", "")
        attentions += group.messages("sequence_features")
    for group in attentions:
        group.get("group_name", "")
        for pair in group.messages("seq_att_map"):
            histories = pair.all("hist_seq", str)
            groups.keys |= dict(zip(histories, pair.all("key", str), strict=False))
            groups.user += histories
    return groups


def entry_column(entry: Mapping[str, Any]) -> str:
    """Returns the column that a definition with one input reads."""
    return str(entry.get("expression")).partition(":")[2]


def is_of_item(entry: Mapping[str, Any]) -> bool:
    """Returns whether a definition with one input reads a column of the item."""
    return str(entry.get("expression")).startswith(f"{Side.ITEM}:")


def entry_name(entry: Mapping[str, Any]) -> str:
    """Returns the name of a feature, or of a group of sequences."""
    return str(entry.get("sequence_name" if "features" in entry else "feature_name"))


def named_features(entry: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns name -> definition of the features of a definition: those of a group are named `sequence__feature`."""
    if "features" not in entry:
        return {entry_name(entry): entry}
    return {f"{entry['sequence_name']}__{sub['feature_name']}": sub for sub in entry["features"]}
