"""Parses and checks fg.json: `parse_fg` returns the definitions of all features, or all faults of the file at once.

The keys of a feature type are in its class in `operators/`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.errors import Fault, FeatureSpecError
from dssm_assets.core.features.expressions import Expression, Kind, Side, Source, parse_expression, side_of
from dssm_assets.core.features.fg_files import CONTEXT_KEY, ReadFile
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS, Definition, Operator
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE, SequenceFeature, SubFeature

_KEYS: Final = ("features", "reserves", "multi_val_sep")
"""Keys of the file itself."""


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

_LONGEST_CHAIN: Final = 200
"""Longest chain of features that read one another. Each takes three nested calls, and Python allows 1,000."""
_TABLE_KEYS = ("embedding_dim", *VOCABULARY_KEYS, "default_bucketize_value", "boundaries")
"""Keys that shape an embedding table: features that share one must agree on them."""

D = TypeVar("D", bound=Definition)


@dataclass(frozen=True)
class Feature:
    """One feature, or one sub-feature of a sequence.

    Attributes:
        name: column of its values; `sequence__feature` for a sub-feature.
        side: the tower that reads it.
        inputs: the table columns that it needs, sorted, also through other features that it reads.
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
        FeatureSpecError: has every fault at once: an unknown type or key, a bad value, a repeated name, a malformed expression,
            a reference to an unknown feature, inputs of both towers in one feature, or features that share an embedding but
            disagree on its table.
    """
    faults = [
        Fault(f"fg.json, key {key}", f"one of: {', '.join(_KEYS)}", "an unknown key", "remove it or correct its spelling")
        for key in sorted(set(raw) - set(_KEYS))
    ]
    entries, reserves, separator = (raw.get(key) for key in _KEYS)
    if not isinstance(entries, list):
        faults.append(Fault("fg.json, key features", "a list of features", repr(entries)[:80], "write a list"))
        entries = []
    if reserves is not None and not (isinstance(reserves, list) and all(isinstance(name, str) for name in reserves)):
        faults.append(Fault("fg.json, key reserves", "a list of column names", repr(reserves)[:80], "write a list of names"))
    if separator is not None and not (isinstance(separator, str) and separator):
        got, remedy = repr(separator)[:80], "write the separator of values"
        faults.append(Fault("fg.json, key multi_val_sep", "a non-empty text", got, remedy))
        separator = None
    parser = _Parser(faults, read_file)
    found = [parser.entry(_with_separator(entry, separator), number) for number, entry in enumerate(entries, 1)]
    definitions = [definition for definition in found if definition is not None]
    faults.extend(_check_between(definitions, _output_names(entries)))
    FeatureSpecError.raise_if(faults)
    return FgSpec(tuple(definitions))


@dataclass(frozen=True)
class _Parser:
    """Parses entries of fg.json and collects their faults. Returns None for an entry with a fault."""

    faults: list[Fault]
    read_file: ReadFile | None

    def entry(self, entry: Any, number: int) -> Operator | SequenceFeature | None:
        if not isinstance(entry, Mapping):
            self._refuse(f"fg.json, feature number {number}", "a mapping", entry, "write its keys in braces")
            return None
        if entry.get("feature_type") != SEQUENCE_FEATURE:
            return self._operator(entry, f"fg.json, feature {entry.get('feature_name') or f'number {number}'}")
        place = f"fg.json, sequence {entry.get('sequence_name') or f'number {number}'}"
        given = entry.get("features")
        found = [self._sub_feature(item, n, place) for n, item in enumerate(given if isinstance(given, list) else [], 1)]
        subs = tuple(sub for sub in found if sub is not None)
        if found and not subs:
            return None
        return self._validate(SequenceFeature, {**entry, "features": subs} if subs else entry, place)

    def _sub_feature(self, entry: Any, number: int, sequence: str) -> SubFeature | None:
        name = (entry.get("feature_name") if isinstance(entry, Mapping) else None) or f"number {number}"
        place = f"{sequence}, feature {name}"
        if not isinstance(entry, Mapping):
            self._refuse(place, "a mapping", entry, "write its keys in braces")
            return None
        own = {key: entry[key] for key in ("sequence_fields",) if key in entry}
        operator = self._operator({key: entry[key] for key in entry if key not in own}, place)
        return None if operator is None else self._validate(SubFeature, {"operator": operator, **own}, place)

    def _operator(self, entry: Mapping[str, Any], place: str) -> Operator | None:
        operator_type = OPERATORS.get(_type_name(entry))
        if operator_type is None:
            expected = f"one of: {', '.join([*OPERATORS, SEQUENCE_FEATURE])}"
            remedy = "choose one of these (sequences cannot be nested), or name the module that registers it in the key plugins"
            self._refuse(f"{place}, key feature_type", expected, entry.get("feature_type"), remedy)
            return None
        return self._validate(operator_type, {**entry, "feature_type": _type_name(entry)}, place)

    def _validate(self, model: type[D], entry: Mapping[str, Any], place: str) -> D | None:
        spelled = {_SPELLINGS[key] if _SPELLINGS.get(key) in model.model_fields else key: value for key, value in entry.items()}
        try:
            return model.model_validate(spelled, context={CONTEXT_KEY: self.read_file})
        except ValidationError as error:
            self.faults.extend(_fault(model, item, place) for item in error.errors())
            return None

    def _refuse(self, place: str, expected: str, got: Any, remedy: str) -> None:
        self.faults.append(Fault(place, expected, repr(got)[:80], remedy))


def _fault(model: type[Definition], item: Any, place: str) -> Fault:
    location = ", key ".join([place, *([".".join(str(part) for part in item["loc"])] if item["loc"] else [])])
    if item["type"] == "extra_forbidden":
        known = ", ".join(sorted(model.model_fields))
        return Fault(location, f"one of: {known}", "an unknown key", "remove it or correct its spelling")
    if item["type"] == "missing":
        return Fault(location, "a value", "nothing", "add the key")
    message = item["msg"].removeprefix("Value error, ")
    if not item["loc"]:
        return Fault(location, "keys that agree with each other", message, "correct the definition")
    return Fault(location, "a valid value", f"{repr(item.get('input'))[:120]}: {message}", "correct the value")


def _type_name(entry: Mapping[str, Any]) -> str:
    given = str(entry.get("feature_type"))
    return _TYPE_SPELLINGS.get(given, given)


def _with_separator(entry: Any, separator: str | None) -> Any:
    """Adds the file's separator to an entry that has none, and to its sub-features, where the feature type has this key."""
    if separator is None or not isinstance(entry, Mapping):
        return entry
    if entry.get("feature_type") == SEQUENCE_FEATURE:
        subs = entry.get("features")
        return {**entry, "features": [_with_separator(sub, separator) for sub in subs]} if isinstance(subs, list) else entry
    operator_type = OPERATORS.get(_type_name(entry))
    has_key = operator_type is not None and "separator" in operator_type.model_fields
    return {**entry, "separator": separator} if has_key and "separator" not in entry else entry


def _output_names(entries: list[Any]) -> list[str]:
    """Returns the names of all features and sub-features.

    Faulty entries are included, so that a reference to such a feature is not reported as unknown.
    """
    found: list[str] = []
    for entry in (entry for entry in entries if isinstance(entry, Mapping)):
        subs = entry.get("features") if entry.get("feature_type") == SEQUENCE_FEATURE else None
        if isinstance(subs, list):
            named = [sub.get("feature_name") for sub in subs if isinstance(sub, Mapping)]
            found.extend(f"{entry.get('sequence_name')}__{name}" for name in named if name is not None)
        elif isinstance(entry.get("feature_name"), str):
            found.append(entry["feature_name"])
    return found


def _check_between(definitions: Sequence[Operator | SequenceFeature], all_names: Collection[str]) -> Iterator[Fault]:
    """Yields the faults between definitions: repeated names, references, inputs of two towers, shared embeddings.

    Args:
        definitions: the features and sequences that could be parsed.
        all_names: the names of all features and sub-features of the file, also of entries that could not be parsed.
    """
    operators = [item for item in definitions if isinstance(item, Operator)]
    sequences = [item for item in definitions if isinstance(item, SequenceFeature)]
    for name, count in sorted(Counter(all_names).items()):
        if count > 1:
            yield Fault(f"fg.json, feature {name}", "a unique name", f"{count} features of that name", "rename the others")
    for weighted in (operator for operator in operators if operator.is_weighted):
        column = feature_weights(weighted.feature_name)
        if column in all_names:
            got = f"the name of the weights column of {weighted.feature_name}"
            yield Fault(f"fg.json, feature {column}", "a unique name", got, "rename it")
    named = {operator.feature_name: operator for operator in operators}
    if long := _find_long_chain(named):
        expected, remedy = f"at most {_LONGEST_CHAIN} features that read one another", "read columns, or write longer formulas"
        yield Fault(f"fg.json, feature {long}", expected, "more", remedy)
        return
    of_sequences = {sequence.output_name(sub.operator) for sequence in sequences for sub in sequence.features}
    for operator in operators:
        yield from _reference_faults(operator, named, all_names, of_sequences)
    for sequence in sequences:
        yield from _sequence_faults(sequence)
    yield from _sharing_faults(operators, sequences)


def _find_long_chain(named: Mapping[str, Operator]) -> str | None:
    """Returns the first feature with a chain of inputs longer than `_LONGEST_CHAIN`, or a feature of a cycle of this length."""
    below = {name: [e.name for e in item.expressions if e.source is Source.FEATURE] for name, item in named.items()}
    lengths: dict[str, int] = {}
    try:
        for name in TopologicalSorter(below).static_order():
            lengths[name] = 1 + max((lengths[other] for other in below.get(name, ())), default=0)
            if lengths[name] > _LONGEST_CHAIN:
                return name
    except CycleError as error:
        cycle: list[str] = error.args[1]
        return cycle[0] if len(cycle) > _LONGEST_CHAIN else None
    return None


def _reference_faults(
    operator: Operator, named: Mapping[str, Operator], all_names: Collection[str], of_sequences: set[str]
) -> Iterator[Fault]:
    place = f"fg.json, feature {operator.feature_name}"
    inputs = _list_read(operator, named)
    for expression in (expression for expression in inputs if expression.source is Source.FEATURE):
        if expression.name == operator.feature_name:
            yield Fault(place, "a feature that does not depend on itself", str(expression), "break the cycle")
        elif expression.name in of_sequences - set(named) and expression in operator.expressions:
            got, remedy = f"{expression}, a sub-feature of a sequence", "define a feature of the row and refer to that"
            yield Fault(place, "a feature of the row", got, remedy)
        elif expression.name not in all_names and expression in operator.expressions:
            yield Fault(place, "a feature of this file", str(expression), "define that feature or correct the name")
    sources = {expression.source for expression in inputs}
    for other in (other for other in (Source.USER, Source.CONTEXT) if {Source.ITEM, other} <= sources):
        crossing = ", ".join(sorted({str(e) for e in inputs if e.source in (Source.ITEM, other)}))
        got = f"{other} and item inputs together ({crossing})"
        remedy = f"split it into one feature on the {other} side and one on the item side, since no tower sees both"
        yield Fault(f"{place}, inputs", "inputs of one tower", got, remedy)


def _sequence_faults(sequence: SequenceFeature) -> Iterator[Fault]:
    place = f"fg.json, sequence {sequence.sequence_name}"
    if sequence.sequence_pk is not None and not parse_expression(sequence.sequence_pk).is_column:
        yield Fault(f"{place}, key sequence_pk", "an input column", repr(sequence.sequence_pk), "name the column of its ids")
    for operator in (sub.operator for sub in sequence.features):
        inside = f"{place}, feature {operator.feature_name}"
        stray = sorted(str(e) for e in operator.expressions if e.source is Source.FEATURE)
        if stray:
            remedy = "read columns: a feature inside a sequence cannot refer to another feature"
            yield Fault(f"{inside}, inputs", "columns and constants", ", ".join(stray), remedy)
        if operator.is_weighted:
            remedy = "use it in a feature outside the sequence"
            yield Fault(f"{inside}, key weighted", "false inside a sequence", "true", remedy)
        if operator.depth > 1 or operator.is_sequence:
            expected = "a type that is not a sequence itself"
            remedy = "use id_feature or raw_feature: the group makes sequences of them"
            yield Fault(f"{inside}, key feature_type", expected, operator.feature_type, remedy)


def _sharing_faults(operators: Sequence[Operator], sequences: Sequence[SequenceFeature]) -> Iterator[Fault]:
    groups: dict[str, dict[str, Operator]] = defaultdict(dict)
    members = [(operator.feature_name, operator) for operator in operators]
    members += [(sequence.output_name(sub.operator), sub.operator) for sequence in sequences for sub in sequence.features]
    for name, operator in members:
        groups[operator.embedding_name or name][name] = operator
    for embedding, group in groups.items():
        if len(group) > 1:
            yield from _contradictions(group, f"fg.json, embedding {embedding}")


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
