"""One entry of fg.json as a definition, or as faults that say what is wrong with it.

Belongs here: choosing the class of a feature type, spellings that the reference also writes, validation errors as
faults. Does not belong here: the keys of one feature type (`operators/`), checks between features (`spec_checks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from dssm_assets.core.errors import Fault
from dssm_assets.core.features.named_files import CONTEXT_KEY, ReadFile
from dssm_assets.core.features.operators.base import Definition, Operator
from dssm_assets.core.features.operators.registry import OPERATORS, SEQUENCE
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature, SubFeature, SubFeatureKeys

_SPELLINGS: Final = {
    "needDiscrete": "need_discrete",
    "needKey": "need_key",
    "user": "nested_map",
    "category": "pkey",
    "item": "skey",
    "show_category": "show_pkey",
    "show_item": "show_skey",
    "matchType": "match_type",
}
"""Other spellings of keys in files of the reference, where the feature type has the key."""

_TYPE_SPELLINGS: Final = {"bool_mask": "bool_mask_feature"}
"""Other spellings of feature types."""

D = TypeVar("D", bound=Definition)
Parsed = tuple[Operator | SequenceFeature | None, list[Fault]]


def parse_entry(entry: Any, position: int, where: str, read_file: ReadFile | None = None) -> Parsed:
    """Returns the definition of an entry (None if too little of it is right) and every fault that it has.

    Args:
        entry: one element of the list `features`.
        position: its place in the list, from 0.
        where: words that name the file.
        read_file: reads the files that the entry names.
    """
    if not isinstance(entry, Mapping):
        return None, [_no_mapping(f"{where}, feature number {position + 1}", entry)]
    if entry.get("feature_type") != SEQUENCE:
        name = entry.get("feature_name") or f"number {position + 1}"
        return _parse_operator(entry, f"{where}, feature {name}", read_file)
    name = entry.get("sequence_name") or f"number {position + 1}"
    place = f"{where}, sequence {name}"
    subs: list[SubFeature] = []
    faults: list[Fault] = []
    given = entry.get("features")
    for number, item in enumerate(given if isinstance(given, list) else []):
        label = (item.get("feature_name") if isinstance(item, Mapping) else None) or f"number {number + 1}"
        sub, found = _parse_sub_feature(item, f"{place}, feature {label}", read_file)
        faults.extend(found)
        subs.extend([] if sub is None else [sub])
    if faults and not subs:
        return None, faults
    sequence, found = _validated(SequenceFeature, {**entry, "features": tuple(subs)} if subs else entry, place, read_file)
    return sequence, [*faults, *found]


def with_separator(entry: Any, separator: str | None) -> Any:
    """Returns an entry with the file's separator of multi-values wherever a feature type has the key and it gives none."""
    if separator is None or not isinstance(entry, Mapping):
        return entry
    if entry.get("feature_type") == SEQUENCE:
        subs = entry.get("features")
        return {**entry, "features": [with_separator(sub, separator) for sub in subs]} if isinstance(subs, list) else entry
    operator_type = OPERATORS.get(_type_name(entry))
    has_key = operator_type is not None and "separator" in operator_type.model_fields
    return {**entry, "separator": separator} if has_key and "separator" not in entry else entry


def output_names(entries: list[Any]) -> list[str]:
    """Returns names of all features and sub-features, of faulty entries too: neither missed nor found missing."""
    found: list[str] = []
    for entry in (entry for entry in entries if isinstance(entry, Mapping)):
        subs = entry.get("features") if entry.get("feature_type") == SEQUENCE else None
        if isinstance(subs, list):
            named = [sub.get("feature_name") for sub in subs if isinstance(sub, Mapping)]
            found.extend(f"{entry.get('sequence_name')}__{name}" for name in named if name is not None)
        elif isinstance(entry.get("feature_name"), str):
            found.append(entry["feature_name"])
    return found


def _parse_sub_feature(entry: Any, place: str, read_file: ReadFile | None) -> tuple[SubFeature | None, list[Fault]]:
    if not isinstance(entry, Mapping):
        return None, [_no_mapping(place, entry)]
    own = {key: value for key, value in entry.items() if key in SubFeatureKeys.model_fields}
    rest = {key: value for key, value in entry.items() if key not in own}
    operator, faults = _parse_operator(rest, place, read_file)
    keys, found = _validated(SubFeatureKeys, own, place, read_file)
    faults += found
    if operator is None:
        return None, faults
    sub, found = _validated(SubFeature, {"operator": operator, "keys": keys or SubFeatureKeys()}, place, read_file)
    return sub, [*faults, *found]


def _parse_operator(entry: Any, place: str, read_file: ReadFile | None) -> tuple[Operator | None, list[Fault]]:
    operator_type = OPERATORS.get(_type_name(entry))
    if operator_type is None:
        known = ", ".join([*OPERATORS, SEQUENCE])
        got = repr(entry.get("feature_type"))
        return None, [
            Fault(f"{place}, key feature_type", f"one of: {known}", got, "choose one of these (no sequence in a sequence)")
        ]
    return _validated(operator_type, {**entry, "feature_type": _type_name(entry)}, place, read_file)


def _type_name(entry: Mapping[str, Any]) -> str:
    given = str(entry.get("feature_type"))
    return _TYPE_SPELLINGS.get(given, given)


def _validated(
    model: type[D], entry: Mapping[str, Any], place: str, read_file: ReadFile | None
) -> tuple[D | None, list[Fault]]:
    fields = model.model_fields
    spelled = {_SPELLINGS[key] if _SPELLINGS.get(key) in fields else key: value for key, value in entry.items()}
    context = {CONTEXT_KEY: read_file}
    try:
        return model.model_validate(spelled, context=context), []
    except ValidationError as error:
        faulty = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
        return _without(model, spelled, faulty, context), [_fault(model, item, place) for item in error.errors()]


def _without(model: type[D], entry: Mapping[str, Any], faulty: set[str], context: Any) -> D | None:
    """Returns what the sound keys alone define, so that the checks between features see it too; None if nothing."""
    try:
        sound = {key: value for key, value in entry.items() if key not in faulty}
        return model.model_validate(sound, context=context) if faulty else None
    except ValidationError:
        return None


def _fault(model: type[Definition], item: Any, place: str) -> Fault:
    location = ", key ".join([place, *([".".join(str(part) for part in item["loc"])] if item["loc"] else [])])
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields))
        return Fault(location, f"one of: {known}", "an unknown key", "remove it or correct its spelling")
    if item["type"] == "missing":
        return Fault(location, "a value", "nothing", "add the key")
    words = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return Fault(location, "keys that agree with each other", words, "correct the definition")
    return Fault(location, words, repr(item.get("input"))[:120], "correct the value")


def _no_mapping(place: str, entry: Any) -> Fault:
    return Fault(place, "a mapping", repr(entry)[:80], "write its keys in braces")
