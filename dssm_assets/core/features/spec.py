"""Parses and checks fg.json: `parse_fg` returns the definitions of all features, or all faults of the file at once.

The keys of a feature type are in its class in `operators/`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeVar

from pydantic import Field, ValidationError

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.config.section import describe_fault
from dssm_assets.core.errors import Fault, FeatureSpecError
from dssm_assets.core.features.expressions import Expression, Kind, Side, Source, side_of
from dssm_assets.core.features.fg_files import CONTEXT_KEY, ReadFile
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS, Definition, Operator
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE, SequenceFeature, SubFeature

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
"""Spellings in files of the reference -> our key, for feature types with this key."""

_TYPE_SPELLINGS: Final = {"bool_mask": "bool_mask_feature"}
"""Spellings of feature types in files of the reference -> our feature_type."""

_TABLE_KEYS = ("embedding_dim", *VOCABULARY_KEYS, "default_bucketize_value", "boundaries")
"""Keys that shape an embedding table; features of one table must agree."""

D = TypeVar("D", bound=Definition)


class _File(Definition):
    """The keys of the file itself."""

    features: list[Any]
    reserves: list[str] | None = None
    multi_val_sep: str | None = Field(default=None, min_length=1)


@dataclass(frozen=True)
class Feature:
    """One feature, or one sub-feature of a sequence.

    Attributes:
        name: column of its values; `sequence__feature` for a sub-feature.
        side: the tower that reads it.
        inputs: the table columns that it needs, sorted, also through `feature:` inputs.
        operator: its definition; a sub-feature's definition for single elements.
        sequence: the sequence that contains it, None for a feature of the row.
        sub_feature: its entry in this sequence.
    """

    name: str
    side: Side
    inputs: tuple[str, ...]
    operator: Operator
    sequence: SequenceFeature | None = None
    sub_feature: SubFeature | None = None

    @property
    def kind(self) -> Kind:
        return self.operator.kind

    @property
    def is_multi(self) -> bool:
        return self.operator.is_multi

    @property
    def depth(self) -> int:
        """Nesting of lists in its column: 0 for one value per row, 1 for a list, 2 for a list of lists."""
        return self.operator.depth + (self.sequence is not None)

    @property
    def embedding_name(self) -> str:
        """Features with the same embedding_name share a vocabulary and an embedding table."""
        return self.operator.embedding_name or self.name

    @property
    def weights_name(self) -> str | None:
        """Name of the column with the weights of its values; None for a feature without weights."""
        return feature_weights(self.name) if self.operator.is_weighted else None


@dataclass(frozen=True)
class FgSpec:
    """Checked feature definitions.

    Attributes:
        definitions: features and sequences in the order of fg.json.
    """

    definitions: tuple[Operator | SequenceFeature, ...]

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """Features of a row in the order of fg.json, without stubs and without the sub-features of sequences."""
        return tuple(feature for feature in self._of_rows.values() if not feature.operator.stub_type)

    @cached_property
    def sequence_features(self) -> tuple[Feature, ...]:
        """Sub-features of all sequences in the order of fg.json, without stubs."""
        found = []
        for sequence in (item for item in self.definitions if isinstance(item, SequenceFeature)):
            for sub in sequence.features:
                operator = sub.element_operator
                inputs, name = _columns_of(operator.expressions), sequence.output_name(operator)
                if not operator.stub_type:
                    found.append(Feature(name, Side.USER, inputs, operator, sequence, sub))
        return tuple(found)

    @cached_property
    def _of_rows(self) -> Mapping[str, Feature]:
        named = {item.feature_name: item for item in self.definitions if isinstance(item, Operator)}
        inputs = {name: _list_read(operator, named) for name, operator in named.items()}
        sides = {name: side_of(expression.source for expression in inputs[name]) for name in named}
        return {name: Feature(name, sides[name], _columns_of(inputs[name]), operator) for name, operator in named.items()}

    @cached_property
    def _by_name(self) -> Mapping[str, Feature]:
        return {**self._of_rows, **{feature.name: feature for feature in self.sequence_features}}

    def feature(self, name: str) -> Feature:
        """Returns the feature or sub-feature with this name.

        Raises:
            FeatureSpecError: no feature has that name.
        """
        if name not in self._by_name:
            known = ", ".join(self._by_name) or "no features"
            raise FeatureSpecError(Fault(f"feature {name}", f"one of: {known}", "an unknown name", "define it in fg.json"))
        return self._by_name[name]

    def features_of_side(self, side: str) -> tuple[Feature, ...]:
        """Returns the features of a side without sub-features of sequences.

        Raises:
            ValueError: the side is unknown.
        """
        return tuple(feature for feature in self.features if feature.side is Side(side))


def _list_read(operator: Operator, named: Mapping[str, Operator]) -> list[Expression]:
    found = list(dict.fromkeys(operator.expressions))
    seen = set(found)
    for expression in found:  # the list grows while it is read
        is_known = expression.source is Source.FEATURE and expression.name in named
        inner = named[expression.name].expressions if is_known else ()
        found += [new for new in dict.fromkeys(inner) if new not in seen]
        seen.update(inner)
    return found


def _columns_of(inputs: Iterable[Expression]) -> tuple[str, ...]:
    return tuple(sorted({expression.name for expression in inputs if expression.is_column}))


def parse_fg(raw: Mapping[str, Any], read_file: ReadFile | None = None) -> FgSpec:
    """Returns the feature definitions of a parsed fg.json.

    Args:
        raw: `{"features": [...], "reserves": [...], "multi_val_sep": "|"}`. `multi_val_sep` is the default of the key `separator`.
        read_file: returns the content of a file that a definition names (`vocab_file`). None: definitions may not name files.

    Raises:
        FeatureSpecError: has every unknown type, unknown key and bad value at once. Without any, it has every fault between
            definitions: a repeated name, a reference to an unknown feature, inputs of both towers in one feature, features
            that share an embedding but disagree on its table.
    """
    parser = _Parser(read_file)
    file = parser.validate(_File, raw, "fg.json")
    parser.separator = None if file is None else file.multi_val_sep
    given = raw.get("features")
    found = [parser.read_entry(entry, number) for number, entry in enumerate(given if isinstance(given, list) else [], 1)]
    FeatureSpecError.raise_if(parser.faults)
    definitions = tuple(definition for definition in found if definition is not None)
    FeatureSpecError.raise_if(_check_between(definitions))
    return FgSpec(definitions)


@dataclass
class _Parser:
    """Parses entries of fg.json and collects their faults. Returns None for an entry with a fault."""

    read_file: ReadFile | None
    separator: str | None = None
    """Default of the key `separator`."""
    faults: list[Fault] = field(default_factory=list)

    def read_entry(self, entry: Any, number: int) -> Operator | SequenceFeature | None:
        if not isinstance(entry, Mapping) or entry.get("feature_type") != SEQUENCE_FEATURE:
            return self._operator(entry, number, "fg.json")
        place = f"fg.json, sequence {entry.get('sequence_name') or f'number {number}'}"
        given = entry.get("features")
        found = [self._sub_feature(item, n, place) for n, item in enumerate(given if isinstance(given, list) else [], 1)]
        subs = tuple(sub for sub in found if sub is not None)
        if found and not subs:
            return None
        return self.validate(SequenceFeature, {**entry, "features": subs} if subs else entry, place)

    def _sub_feature(self, entry: Any, number: int, sequence: str) -> SubFeature | None:
        own = {key: entry[key] for key in ("sequence_fields",) if isinstance(entry, Mapping) and key in entry}
        operator = self._operator({key: entry[key] for key in entry if key not in own} if own else entry, number, sequence)
        place = f"{sequence}, feature {operator and operator.feature_name}"
        return None if operator is None else self.validate(SubFeature, {"operator": operator, **own}, place)

    def _operator(self, entry: Any, number: int, within: str) -> Operator | None:
        place = f"{within}, feature {(isinstance(entry, Mapping) and entry.get('feature_name')) or f'number {number}'}"
        if not isinstance(entry, Mapping):
            self.faults.append(Fault(place, "a mapping", repr(entry)[:80], "write its keys in braces"))
            return None
        name = _TYPE_SPELLINGS.get(str(entry.get("feature_type")), str(entry.get("feature_type")))
        if name not in OPERATORS:
            expected = f"one of: {', '.join([*OPERATORS, SEQUENCE_FEATURE])}"
            remedy = "choose one of these (sequences cannot be nested), or name the module that registers it in the key plugins"
            got = repr(entry.get("feature_type"))[:80]
            self.faults.append(Fault(f"{place}, key feature_type", expected, got, remedy))
            return None
        return self.validate(OPERATORS[name], {**entry, "feature_type": name}, place)

    def validate(self, model: type[D], entry: Mapping[str, Any], place: str) -> D | None:
        spelled = {_SPELLINGS[key] if _SPELLINGS.get(key) in model.model_fields else key: value for key, value in entry.items()}
        if self.separator is not None and "separator" in model.model_fields:
            spelled = {"separator": self.separator} | spelled
        try:
            return model.model_validate(spelled, context={CONTEXT_KEY: self.read_file})
        except ValidationError as error:
            self.faults.extend(_fault(model, item, place) for item in error.errors())
            return None


def _fault(model: type[Definition], item: Any, place: str) -> Fault:
    if not item["loc"]:
        got = item["msg"].removeprefix("Value error, ")
        return Fault(place, "keys that agree with each other", got, "correct the definition")
    return describe_fault(item, f"{place}, key {'.'.join(map(str, item['loc']))}", model.model_fields)


def _check_between(definitions: Sequence[Operator | SequenceFeature]) -> Iterator[Fault]:
    """Yields the faults between definitions: repeated names, references, inputs of two towers, shared embeddings."""
    operators = [item for item in definitions if isinstance(item, Operator)]
    sequences = [item for item in definitions if isinstance(item, SequenceFeature)]
    rows = [(operator.feature_name, operator) for operator in operators]
    subs = [(sequence.output_name(sub.operator), sub.operator) for sequence in sequences for sub in sequence.features]
    names = Counter(name for name, _ in (*rows, *subs))
    for name, count in sorted(names.items()):
        if count > 1:
            yield Fault(f"fg.json, feature {name}", "a unique name", f"{count} features of that name", "rename the others")
    for operator in operators:
        if operator.is_weighted and (column := feature_weights(operator.feature_name)) in names:
            got = f"the name of the weights column of {operator.feature_name}"
            yield Fault(f"fg.json, feature {column}", "a unique name", got, "rename it")
    for operator in operators:
        yield from _reference_faults(operator, dict(rows), {name for name, _ in subs})
    groups: dict[str, dict[str, Operator]] = defaultdict(dict)
    for name, operator in (*rows, *subs):
        groups[operator.embedding_name or name][name] = operator
    for embedding, group in groups.items():
        if len(group) > 1:
            yield from _contradictions(group, f"fg.json, embedding {embedding}")


def _reference_faults(operator: Operator, named: Mapping[str, Operator], subs: Collection[str]) -> Iterator[Fault]:
    place = f"fg.json, feature {operator.feature_name}"
    inputs = _list_read(operator, named)
    for expression in (expression for expression in inputs if expression.source is Source.FEATURE):
        if expression.name == operator.feature_name:
            yield Fault(place, "a feature that does not depend on itself", str(expression), "break the cycle")
        elif expression.name not in named and expression in operator.expressions:
            in_sequence = ", a sub-feature of a sequence" if expression.name in subs else ""
            remedy = "define a feature of the row with that name, or correct the name"
            yield Fault(place, "a feature of a row of this file", f"{expression}{in_sequence}", remedy)
    sources = {expression.source for expression in inputs}
    for other in (other for other in (Source.USER, Source.CONTEXT) if {Source.ITEM, other} <= sources):
        crossing = ", ".join(sorted({str(e) for e in inputs if e.source in (Source.ITEM, other)}))
        got = f"{other} and item inputs together ({crossing})"
        remedy = f"split it into one feature on the {other} side and one on the item side, since no tower sees both"
        yield Fault(f"{place}, inputs", "inputs of one tower", got, remedy)


def _contradictions(group: Mapping[str, Operator], place: str) -> Iterator[Fault]:
    names = ", ".join(group)
    kinds = {operator.kind for operator in group.values()}
    if len(kinds) > 1:
        remedy = "give each kind its own embedding_name"
        yield Fault(place, "features of one kind", f"numbers and categories ({names})", remedy)
        return
    keys = {key: {name: getattr(operator, key, None) for name, operator in group.items()} for key in _TABLE_KEYS}
    given = {key: {name: str(value) for name, value in values.items() if value is not None} for key, values in keys.items()}
    if Kind.NUMERIC in kinds and len(given["boundaries"]) < len(group):
        remedy = "write the same boundaries in each, or do not share it"
        yield Fault(place, "boundaries in every number that shares it", names, remedy)
    for key, values in given.items():
        if len(set(values.values())) > 1:
            got = ", ".join(f"{name}: {value[:60]}" for name, value in values.items())
            yield Fault(f"{place}, key {key}", "one value for all features that share it", got, "agree on one")
    # A tokenizer has both keys: its vocab_file determines its num_buckets.
    sizes = [key for key in VOCABULARY_KEYS if given[key] and not (key == "vocab_file" and given["num_buckets"])]
    if len(sizes) > 1:
        yield Fault(place, "one kind of vocabulary", " and ".join(sizes), "keep one of them")
