"""The feature definitions as a whole: fg.json parsed and checked, and the resolved view of each feature.

Belongs here: `FgSpec`, `Feature`, `parse_fg`. Does not belong here: the keys of one feature type (`operators/`), the
checks between features (`spec_checks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from dssm_assets.core.errors import Fault, FeatureSpecError
from dssm_assets.core.features import spec_checks
from dssm_assets.core.features.expressions import Expression, Kind, Side, Source, side_of
from dssm_assets.core.features.operators.base import Definition, Operator
from dssm_assets.core.features.operators.registry import OPERATORS, SEQUENCE
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature


@dataclass(frozen=True)
class Feature:
    """One feature, or one sub-feature of a sequence, with everything that follows from its definition.

    Attributes:
        name: column of its values; `sequence__feature` for a sub-feature.
        side: the tower that reads it.
        kind: number or category.
        is_multi: a row holds any number of values. False for a sub-feature: each element of the past holds one.
        embedding_name: features of one name share a vocabulary and an embedding table.
        inputs: columns of the table that it is made from, sorted; those of features it refers to included.
        operator: its definition.
        sequence: the sequence it belongs to, None for a feature of its own.
    """

    name: str
    side: Side
    kind: Kind
    is_multi: bool
    embedding_name: str
    inputs: tuple[str, ...]
    operator: Operator
    sequence: SequenceFeature | None = None


@dataclass(frozen=True)
class FgSpec:
    """Checked feature definitions. `definitions` keeps the order of fg.json."""

    definitions: tuple[Operator | SequenceFeature, ...]
    reserves: tuple[str, ...] | None = None

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The features that have one value (or bag) per row, in the order of fg.json."""
        return tuple(self._feature(item) for item in self.definitions if isinstance(item, Operator))

    @cached_property
    def sequence_features(self) -> tuple[Feature, ...]:
        """The sub-features of all sequences, in the order of fg.json."""
        sequences = [item for item in self.definitions if isinstance(item, SequenceFeature)]
        return tuple(_sub_feature(sequence, operator) for sequence in sequences for operator in sequence.features)

    @cached_property
    def _by_name(self) -> Mapping[str, Feature]:
        return {feature.name: feature for feature in (*self.features, *self.sequence_features)}

    def feature(self, name: str) -> Feature:
        """Returns the feature or sub-feature of that name.

        Raises:
            FeatureSpecError: if there is none.
        """
        if name not in self._by_name:
            known = ", ".join(self._by_name) or "no features"
            raise FeatureSpecError(Fault(f"feature {name}", f"one of: {known}", "an unknown name", "define it in fg.json"))
        return self._by_name[name]

    def of_side(self, side: str | None) -> tuple[Feature, ...]:
        """Returns the features (no sub-features) of a side, or of all sides for None.

        Raises:
            ValueError: if there is no such side.
        """
        return self.features if side is None else tuple(feature for feature in self.features if feature.side is Side(side))

    def of_kind(self, kind: Kind) -> tuple[Feature, ...]:
        """Returns the features (no sub-features) of a kind."""
        return tuple(feature for feature in self.features if feature.kind is kind)

    def to_fg_json(self) -> dict[str, Any]:
        """Returns the mapping that `parse_fg` read."""
        written: dict[str, Any] = {"features": [item.model_dump(mode="json", exclude_unset=True) for item in self.definitions]}
        return written if self.reserves is None else {**written, "reserves": list(self.reserves)}

    def _feature(self, operator: Operator) -> Feature:
        named = {item.feature_name: item for item in self.definitions if isinstance(item, Operator)}
        inputs = _all_inputs(operator, named)
        return _resolved(operator.feature_name, operator, inputs)


def parse_fg(raw: Mapping[str, Any], where: str = "fg.json") -> FgSpec:
    """Returns the feature definitions of a parsed fg.json.

    Args:
        raw: `{"features": [...], "reserves": [...]}`; the keys of a feature are those of its class in `operators/`.
        where: words that name the file in errors.

    Raises:
        FeatureSpecError: with every fault at once: an unknown type or key, a bad value, a name given twice, an
            expression that is none or names no feature, a feature that needs inputs of two sides that no table holds
            together, features that share an embedding and contradict each other.
    """
    faults = [
        Fault(f"{where}, key {key}", "one of: features, reserves", "an unknown key", "remove it or correct its spelling")
        for key in sorted(set(raw) - {"features", "reserves"})
    ]
    entries, reserves = raw.get("features"), raw.get("reserves")
    if not isinstance(entries, list):
        faults.append(Fault(f"{where}, key features", "a list of features", repr(entries)[:80], "write a list"))
        entries = []
    if reserves is not None and not (isinstance(reserves, list) and all(isinstance(name, str) for name in reserves)):
        faults.append(Fault(f"{where}, key reserves", "a list of column names", repr(reserves)[:80], "write a list of names"))
        reserves = None
    definitions: list[Operator | SequenceFeature] = []
    for position, entry in enumerate(entries):
        definition, found = _parse_entry(entry, position, where)
        faults.extend(found)
        if definition is not None:
            definitions.append(definition)
    faults.extend(spec_checks.faults_between(definitions, where, _output_names(entries)))
    if faults:
        raise FeatureSpecError(faults)
    return FgSpec(tuple(definitions), None if reserves is None else tuple(reserves))


def _parse_entry(entry: Any, position: int, where: str) -> tuple[Operator | SequenceFeature | None, list[Fault]]:
    if not isinstance(entry, Mapping):
        return None, [
            Fault(f"{where}, feature number {position + 1}", "a mapping", repr(entry)[:80], "write its keys in braces")
        ]
    if entry.get("feature_type") != SEQUENCE:
        name = entry.get("feature_name") or f"number {position + 1}"
        return _parse_operator(entry, f"{where}, feature {name}")
    name = entry.get("sequence_name") or f"number {position + 1}"
    place = f"{where}, sequence {name}"
    subs: list[Operator] = []
    faults: list[Fault] = []
    given = entry.get("features")
    for number, item in enumerate(given if isinstance(given, list) else []):
        label = (item.get("feature_name") if isinstance(item, Mapping) else None) or f"number {number + 1}"
        operator, found = _parse_operator(item, f"{place}, feature {label}")
        faults.extend(found)
        subs.extend([] if operator is None else [operator])
    header = dict(entry) if not subs else {**entry, "features": tuple(subs)}
    if faults and not subs:
        return None, faults
    sequence, found = _validated(SequenceFeature, header, place)
    return (sequence if isinstance(sequence, SequenceFeature) else None), [*faults, *found]


def _parse_operator(entry: Any, place: str) -> tuple[Operator | None, list[Fault]]:
    if not isinstance(entry, Mapping):
        return None, [Fault(place, "a mapping", repr(entry)[:80], "write its keys in braces")]
    operator_type = OPERATORS.get(str(entry.get("feature_type")))
    if operator_type is None:
        known = ", ".join([*OPERATORS, SEQUENCE])
        got = repr(entry.get("feature_type"))
        return None, [
            Fault(f"{place}, key feature_type", f"one of: {known}", got, "choose one of these (no sequence in a sequence)")
        ]
    operator, faults = _validated(operator_type, entry, place)
    return (operator if isinstance(operator, Operator) else None), faults


def _validated(model: type[Definition], entry: Mapping[str, Any], place: str) -> tuple[Definition | None, list[Fault]]:
    try:
        return model.model_validate(dict(entry)), []
    except ValidationError as error:
        faulty = {str(item["loc"][0]) for item in error.errors() if item["loc"]}
        return _without(model, entry, faulty), [_fault(model, item, place) for item in error.errors()]


def _without(model: type[Definition], entry: Mapping[str, Any], faulty: set[str]) -> Definition | None:
    """Returns what the sound keys alone define, so that the checks between features see it too; None if nothing."""
    try:
        return model.model_validate({key: value for key, value in entry.items() if key not in faulty}) if faulty else None
    except ValidationError:
        return None


def _fault(model: type[Definition], item: Any, place: str) -> Fault:
    location = ", key ".join([place, *([".".join(str(part) for part in item["loc"])] if item["loc"] else [])])
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields))
        return Fault(location, f"one of: {known}", "an unknown key", "remove it or correct its spelling")
    if item["type"] == "missing":
        return Fault(location, "a value", "nothing", "add the key")
    expected = item["msg"].removeprefix("Value error, ")
    return Fault(location, expected, repr(item.get("input"))[:120] if item["loc"] else "this combination", "correct the value")


def _output_names(entries: list[Any]) -> list[str]:
    """Names of all features and sub-features, of faulty entries too, so that they are neither missed nor found missing."""
    found: list[str] = []
    for entry in (entry for entry in entries if isinstance(entry, Mapping)):
        subs = entry.get("features") if entry.get("feature_type") == SEQUENCE else None
        if isinstance(subs, list):
            named = [sub.get("feature_name") for sub in subs if isinstance(sub, Mapping)]
            found.extend(f"{entry.get('sequence_name')}__{name}" for name in named if name is not None)
        elif isinstance(entry.get("feature_name"), str):
            found.append(entry["feature_name"])
    return found


def _all_inputs(operator: Operator, named: Mapping[str, Operator]) -> list[Expression]:
    found: list[Expression] = []
    for expression in operator.expressions:
        found.extend(_all_inputs(named[expression.name], named) if expression.source is Source.FEATURE else [expression])
    return found


def _sub_feature(sequence: SequenceFeature, operator: Operator) -> Feature:
    return _resolved(sequence.output_name(operator), operator, operator.expressions, sequence)


def _resolved(name: str, operator: Operator, inputs: Any, sequence: SequenceFeature | None = None) -> Feature:
    columns = {expression.name for expression in inputs if expression.is_column}
    return Feature(
        name=name,
        side=side_of(expression.source for expression in inputs),
        kind=operator.kind,
        is_multi=operator.is_multi,
        embedding_name=operator.embedding_name or name,
        inputs=tuple(sorted(columns)),
        operator=operator,
        sequence=sequence,
    )
