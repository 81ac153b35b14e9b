"""The feature definitions as a whole: fg.json parsed and checked, and the resolved view of each feature.

Belongs here: `FgSpec`, `Feature`, `parse_fg`. Does not belong here: reading one entry (`spec_entries.py`), the keys of
one feature type (`operators/`), the checks between features (`spec_checks.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.errors import Fault, FeatureSpecError
from dssm_assets.core.features import spec_checks
from dssm_assets.core.features.expressions import Expression, Kind, Side, Source, side_of
from dssm_assets.core.features.named_files import ReadFile
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature, SubFeature
from dssm_assets.core.features.spec_entries import output_names, parse_entry, with_separator

_KEYS: Final = ("features", "reserves", "multi_val_sep")
"""Keys of a fg.json."""


@dataclass(frozen=True)
class Feature:
    """One feature, or one sub-feature of a sequence, with everything that follows from its definition.

    Attributes:
        name: column of its values; `sequence__feature` for a sub-feature.
        side: the tower that reads it.
        kind: number or category.
        is_multi: a row holds any number of values; for a sub-feature: each element does.
        depth: levels of lists in its column: 0 one value per row, 1 a list, 2 a list of lists.
        embedding_name: features of one name share a vocabulary and an embedding table.
        inputs: columns of the table that it is made from, sorted; those of features it refers to included.
        operator: its definition, for a sub-feature as it works on elements.
        sequence: the sequence it belongs to, None for a feature of its own.
        sub_feature: its place in that sequence.
    """

    name: str
    side: Side
    kind: Kind
    is_multi: bool
    depth: int
    embedding_name: str
    inputs: tuple[str, ...]
    operator: Operator
    sequence: SequenceFeature | None = None
    sub_feature: SubFeature | None = None

    @property
    def weights_name(self) -> str | None:
        """The column of its values' weights, None for a feature without weights."""
        return feature_weights(self.name) if self.operator.is_weighted else None


@dataclass(frozen=True)
class FgSpec:
    """Checked feature definitions. `definitions` keeps the order of fg.json, `raw` what it said."""

    definitions: tuple[Operator | SequenceFeature, ...]
    raw: Mapping[str, Any]

    @property
    def reserves(self) -> tuple[str, ...]:
        """Columns that pass through feature generation unchanged."""
        return tuple(self.raw.get("reserves") or ())

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """The features of a row (no stubs, no sub-features of sequences), in the order of fg.json."""
        operators = [item for item in self.definitions if isinstance(item, Operator) and not item.stub_type]
        return tuple(self._by_name[operator.feature_name] for operator in operators)

    @cached_property
    def sequence_features(self) -> tuple[Feature, ...]:
        """The sub-features of all sequences (no stubs), in the order of fg.json."""
        return tuple(
            _sub_feature(sequence, sub)
            for sequence in (item for item in self.definitions if isinstance(item, SequenceFeature))
            for sub in sequence.features
            if not sub.operator.stub_type
        )

    @cached_property
    def _by_name(self) -> Mapping[str, Feature]:
        operators = [item for item in self.definitions if isinstance(item, Operator)]
        own = {operator.feature_name: self._feature(operator) for operator in operators}
        return own | {feature.name: feature for feature in self.sequence_features}

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
        """Returns a mapping equal to the one that `parse_fg` read."""
        return copy.deepcopy(dict(self.raw))

    def _feature(self, operator: Operator) -> Feature:
        named = {item.feature_name: item for item in self.definitions if isinstance(item, Operator)}
        inputs = _all_inputs(operator, named)
        return _resolved(operator.feature_name, operator, inputs)


def parse_fg(raw: Mapping[str, Any], where: str = "fg.json", read_file: ReadFile | None = None) -> FgSpec:
    """Returns the feature definitions of a parsed fg.json.

    Args:
        raw: `{"features": [...], "reserves": [...], "multi_val_sep": "|"}`; the keys of a feature are those of its class
            in `operators/`; multi_val_sep is the separator of those that have that key and do not give it.
        where: words that name the file in errors.
        read_file: returns the content of a file that a definition names (vocab_file); None: no file can be named.

    Raises:
        FeatureSpecError: with every fault at once: an unknown type or key, a bad value, a name given twice, an
            expression that is none or names no feature, a feature that needs inputs of two sides that no table holds
            together, features that share an embedding and contradict each other.
    """
    faults = [
        Fault(f"{where}, key {key}", f"one of: {', '.join(_KEYS)}", "an unknown key", "remove it or correct its spelling")
        for key in sorted(set(raw) - set(_KEYS))
    ]
    entries, reserves, separator = (raw.get(key) for key in _KEYS)
    if not isinstance(entries, list):
        faults.append(Fault(f"{where}, key features", "a list of features", repr(entries)[:80], "write a list"))
        entries = []
    if reserves is not None and not (isinstance(reserves, list) and all(isinstance(name, str) for name in reserves)):
        faults.append(Fault(f"{where}, key reserves", "a list of column names", repr(reserves)[:80], "write a list of names"))
    if separator is not None and not (isinstance(separator, str) and separator):
        faults.append(Fault(f"{where}, key multi_val_sep", "a text", repr(separator)[:80], "write what stands between values"))
        separator = None
    definitions: list[Operator | SequenceFeature] = []
    for position, entry in enumerate(entries):
        definition, found = parse_entry(with_separator(entry, separator), position, where, read_file)
        faults.extend(found)
        if definition is not None:
            definitions.append(definition)
    faults.extend(spec_checks.faults_between(definitions, where, output_names(entries)))
    if faults:
        raise FeatureSpecError(faults)
    return FgSpec(tuple(definitions), copy.deepcopy(dict(raw)))


def _all_inputs(operator: Operator, named: Mapping[str, Operator]) -> list[Expression]:
    found: list[Expression] = []
    for expression in operator.expressions:
        found.extend(_all_inputs(named[expression.name], named) if expression.source is Source.FEATURE else [expression])
    return found


def _sub_feature(sequence: SequenceFeature, sub: SubFeature) -> Feature:
    operator = sub.element_operator
    feature = _resolved(sequence.output_name(operator), operator, operator.expressions)
    return replace(feature, side=Side.USER, depth=operator.depth + 1, sequence=sequence, sub_feature=sub)


def _resolved(name: str, operator: Operator, inputs: Sequence[Expression]) -> Feature:
    columns = {expression.name for expression in inputs if expression.is_column}
    return Feature(
        name=name,
        side=side_of(expression.source for expression in inputs),
        kind=operator.kind,
        is_multi=operator.is_multi,
        depth=operator.depth,
        embedding_name=operator.embedding_name or name,
        inputs=tuple(sorted(columns)),
        operator=operator,
    )
