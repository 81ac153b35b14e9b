"""fg.json parsed and checked: `parse_fg` returns the definitions of all features, or every fault of the file at once.

The keys of one feature type are those of its class in `operators/`.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
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
"""Spellings that files of the reference use, and the key that they mean in a feature type that has it."""

_TYPE_SPELLINGS: Final = {"bool_mask": "bool_mask_feature"}
"""Likewise, of feature types."""

D = TypeVar("D", bound=Definition)
Parsed = tuple[Operator | SequenceFeature | None, list[Fault]]


_TABLE_KEYS = ("embedding_dim", *VOCABULARY_KEYS, "default_bucketize_value", "boundaries")
"""Keys that shape an embedding table: features that share one must agree on them."""


@dataclass(frozen=True)
class Feature:
    """One feature, or one sub-feature of a sequence, with everything that follows from its definition.

    Attributes:
        name: column of its values; `sequence__feature` for a sub-feature.
        side: the tower that reads it.
        kind: number or category.
        is_multi: a row holds any number of values; for a sub-feature, each element does.
        depth: nesting of lists in its column: 0 for one value per row, 1 for a list, 2 for a list of lists.
        embedding_name: features of one name share a vocabulary and an embedding table.
        inputs: columns of the table that it is computed from, sorted, including those of features it refers to.
        operator: its definition; of a sub-feature, the definition that works on elements.
        sequence: the sequence that contains it, None for a feature of the row.
        sub_feature: its entry in that sequence.
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
        """Name of the column that holds the weights of its values, None for a feature without weights."""
        return feature_weights(self.name) if self.operator.is_weighted else None


@dataclass(frozen=True)
class FgSpec:
    """Checked feature definitions.

    Attributes:
        definitions: features and sequences in the order of fg.json.
        raw: the parsed fg.json.
    """

    definitions: tuple[Operator | SequenceFeature, ...]
    raw: Mapping[str, Any]

    @cached_property
    def features(self) -> tuple[Feature, ...]:
        """Features of a row in the order of fg.json, without stubs and without the sub-features of sequences."""
        operators = [item for item in self.definitions if isinstance(item, Operator) and not item.stub_type]
        return tuple(self._by_name[operator.feature_name] for operator in operators)

    @cached_property
    def sequence_features(self) -> tuple[Feature, ...]:
        """Sub-features of all sequences in the order of fg.json, without stubs."""
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
            FeatureSpecError: no feature has that name.
        """
        if name not in self._by_name:
            known = ", ".join(self._by_name) or "no features"
            raise FeatureSpecError(Fault(f"feature {name}", f"one of: {known}", "an unknown name", "define it in fg.json"))
        return self._by_name[name]

    def features_of_side(self, side: str | None) -> tuple[Feature, ...]:
        """Returns the features of a side without sub-features of sequences; those of all sides for None.

        Raises:
            ValueError: the side is unknown.
        """
        return self.features if side is None else tuple(feature for feature in self.features if feature.side is Side(side))

    def _feature(self, operator: Operator) -> Feature:
        named = {item.feature_name: item for item in self.definitions if isinstance(item, Operator)}
        inputs = _all_inputs(operator, named)
        return _resolved(operator.feature_name, operator, inputs)


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


def parse_fg(raw: Mapping[str, Any], where: str = "fg.json", read_file: ReadFile | None = None) -> FgSpec:
    """Returns the feature definitions of a parsed fg.json.

    Args:
        raw: `{"features": [...], "reserves": [...], "multi_val_sep": "|"}`. `multi_val_sep` is the separator of all
            features that have the key `separator` and do not set it.
        read_file: returns the content of a file that a definition names (`vocab_file`). None: definitions may not name
            files.

    Raises:
        FeatureSpecError: with every fault at once: an unknown type or key, a bad value, a repeated name, a malformed
            expression, a reference to an unknown feature, inputs of both towers in one feature, or features that share
            an embedding and disagree on its table.
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
        got, remedy = repr(separator)[:80], "write the separator of values"
        faults.append(Fault(f"{where}, key multi_val_sep", "a non-empty text", got, remedy))
        separator = None
    definitions: list[Operator | SequenceFeature] = []
    for position, entry in enumerate(entries):
        definition, found = _parse_entry(_with_separator(entry, separator), position, where, read_file)
        faults.extend(found)
        if definition is not None:
            definitions.append(definition)
    faults.extend(_check_between(definitions, where, _output_names(entries)))
    FeatureSpecError.raise_if(faults)
    return FgSpec(tuple(definitions), copy.deepcopy(dict(raw)))


def _parse_entry(entry: Any, position: int, where: str, read_file: ReadFile | None = None) -> Parsed:
    """Returns the definition of the entry at a position (from 0) of the list `features`, and every fault of the entry.

    The definition is None where the valid keys do not suffice for one.
    """
    if not isinstance(entry, Mapping):
        return None, [_not_a_mapping(f"{where}, feature number {position + 1}", entry)]
    if entry.get("feature_type") != SEQUENCE_FEATURE:
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


def _with_separator(entry: Any, separator: str | None) -> Any:
    """Returns an entry with the separator of the file wherever a feature type has that key and the entry does not set it."""
    if separator is None or not isinstance(entry, Mapping):
        return entry
    if entry.get("feature_type") == SEQUENCE_FEATURE:
        subs = entry.get("features")
        return {**entry, "features": [_with_separator(sub, separator) for sub in subs]} if isinstance(subs, list) else entry
    operator_type = OPERATORS.get(_type_name(entry))
    has_key = operator_type is not None and "separator" in operator_type.model_fields
    return {**entry, "separator": separator} if has_key and "separator" not in entry else entry


def _output_names(entries: list[Any]) -> list[str]:
    """Returns the names of all features and sub-features, including those of faulty entries.

    So a reference to a faulty feature is not reported as a reference to an unknown one.
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


def _parse_sub_feature(entry: Any, place: str, read_file: ReadFile | None) -> tuple[SubFeature | None, list[Fault]]:
    if not isinstance(entry, Mapping):
        return None, [_not_a_mapping(place, entry)]
    own = {key: value for key, value in entry.items() if key == "sequence_fields"}
    operator, faults = _parse_operator({key: value for key, value in entry.items() if key not in own}, place, read_file)
    return (None, faults) if operator is None else _validated(SubFeature, {"operator": operator, **own}, place, read_file)


def _parse_operator(entry: Any, place: str, read_file: ReadFile | None) -> tuple[Operator | None, list[Fault]]:
    operator_type = OPERATORS.get(_type_name(entry))
    if operator_type is None:
        known = ", ".join([*OPERATORS, SEQUENCE_FEATURE])
        remedy = "choose one of these (sequences cannot be nested), or name the module that registers it in the key plugins"
        return None, [Fault(f"{place}, key feature_type", f"one of: {known}", repr(entry.get("feature_type")), remedy)]
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
        return None, [_fault(model, item, place) for item in error.errors()]


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


def _not_a_mapping(place: str, entry: Any) -> Fault:
    return Fault(place, "a mapping", repr(entry)[:80], "write its keys in braces")


def _check_between(
    definitions: Sequence[Operator | SequenceFeature], where: str, all_names: Collection[str]
) -> Iterator[Fault]:
    """Yields the faults between definitions: repeated names, references, inputs of two towers, shared embeddings.

    Args:
        definitions: the features and sequences that could be parsed.
        all_names: one name per feature and sub-feature of the file, including those that could not be parsed.
    """
    operators = [item for item in definitions if isinstance(item, Operator)]
    sequences = [item for item in definitions if isinstance(item, SequenceFeature)]
    for name, count in sorted(Counter(all_names).items()):
        if count > 1:
            yield Fault(f"{where}, feature {name}", "a unique name", f"{count} features of that name", "rename the others")
    for weighted in (operator for operator in operators if operator.is_weighted):
        column = feature_weights(weighted.feature_name)
        if column in all_names:
            got = f"the name of the weights column of {weighted.feature_name}"
            yield Fault(f"{where}, feature {column}", "a unique name", got, "rename it")
    named = {operator.feature_name: operator for operator in operators}
    of_sequences = {sequence.output_name(sub.operator) for sequence in sequences for sub in sequence.features}
    for operator in operators:
        yield from _reference_faults(operator, named, all_names, of_sequences=of_sequences, where=where)
    for sequence in sequences:
        yield from _sequence_faults(sequence, where)
    yield from _sharing_faults(operators, sequences, where)


def _reference_faults(
    operator: Operator, named: Mapping[str, Operator], all_names: Collection[str], *, of_sequences: set[str], where: str
) -> Iterator[Fault]:
    place = f"{where}, feature {operator.feature_name}"
    inputs: list[Expression] = []
    seen = {operator.feature_name}
    waiting = list(operator.expressions)
    while waiting:
        expression = waiting.pop(0)
        if expression.source is not Source.FEATURE:
            inputs.append(expression)
        elif expression.name == operator.feature_name:
            yield Fault(place, "a feature that does not depend on itself", str(expression), "break the cycle")
        elif expression.name in named and expression.name not in seen:
            seen.add(expression.name)
            waiting.extend(named[expression.name].expressions)
        elif expression.name in of_sequences - set(named) and expression in operator.expressions:
            got, remedy = f"{expression}, a sub-feature of a sequence", "define a feature of the row and refer to that"
            yield Fault(place, "a feature of the row", got, remedy)
        elif expression.name not in all_names and expression in operator.expressions:
            yield Fault(place, "a feature of this file", str(expression), "define that feature or correct the name")
    yield from _crossing_faults(inputs, place)


def _crossing_faults(inputs: Sequence[Expression], place: str) -> Iterator[Fault]:
    sources = {expression.source for expression in inputs}
    if Source.ITEM not in sources:
        return
    for other in (Source.USER, Source.CONTEXT):
        if other in sources:
            crossing = ", ".join(sorted({str(e) for e in inputs if e.source in (Source.ITEM, other)}))
            yield Fault(
                f"{place}, inputs", "inputs of one tower", f"{other} and item inputs together ({crossing})",
                f"split it into one feature on the {other} side and one on the item side, since no tower sees both",
            )  # fmt: skip


def _sequence_faults(sequence: SequenceFeature, where: str) -> Iterator[Fault]:
    place = f"{where}, sequence {sequence.sequence_name}"
    if sequence.sequence_pk is not None and not parse_expression(sequence.sequence_pk).is_column:
        yield Fault(f"{place}, key sequence_pk", "an input column", repr(sequence.sequence_pk), "name the column of its ids")
    for sub in sequence.features:
        inside = f"{place}, feature {sub.operator.feature_name}"
        stray = sorted(str(e) for e in sub.operator.expressions if e.source is Source.FEATURE)
        if stray:
            remedy = "read columns: a feature inside a sequence cannot refer to another feature"
            yield Fault(f"{inside}, inputs", "columns and constants", ", ".join(stray), remedy)
        if sub.operator.is_weighted:
            yield Fault(
                f"{inside}, key weighted", "false inside a sequence", "true", "use it in a feature outside the sequence"
            )
        if sub.operator.depth > 1 or sub.operator.is_sequence:
            remedy = "use id_feature or raw_feature: the group makes sequences of them"
            yield Fault(
                f"{inside}, key feature_type", "a type that is not a sequence itself", sub.operator.feature_type, remedy
            )


def _sharing_faults(operators: Sequence[Operator], sequences: Sequence[SequenceFeature], where: str) -> Iterator[Fault]:
    groups: dict[str, list[tuple[str, Operator]]] = defaultdict(list)
    members = [(operator.feature_name, operator) for operator in operators]
    members += [(sequence.output_name(sub.operator), sub.operator) for sequence in sequences for sub in sequence.features]
    for name, operator in members:
        groups[operator.embedding_name or name].append((name, operator))
    for embedding, group in groups.items():
        if len(group) == 1:
            continue
        place = f"{where}, embedding {embedding}"
        names = ", ".join(name for name, _ in group)
        if len({operator.kind for _, operator in group}) > 1:
            yield Fault(
                place, "features of one kind", f"numbers and categories ({names})", "give each kind its own embedding_name"
            )
            continue
        if group[0][1].kind is Kind.NUMERIC and any(_table_keys(operator).get("boundaries") is None for _, operator in group):
            yield Fault(
                place,
                "boundaries in every number that shares it",
                names,
                "write the same boundaries in each, or do not share it",
            )
        yield from _contradictions(group, place)


def _contradictions(group: Sequence[tuple[str, Operator]], place: str) -> Iterator[Fault]:
    given = {key: {name: str(_table_keys(op)[key]) for name, op in group if key in _table_keys(op)} for key in _TABLE_KEYS}
    for key, values in given.items():
        if len(set(values.values())) > 1:
            got = ", ".join(f"{name}: {value[:60]}" for name, value in values.items())
            yield Fault(f"{place}, key {key}", "one value for all features that share it", got, "agree on one")
    # A tokenizer has both keys: its vocab_file determines its num_buckets.
    sizes = [key for key in VOCABULARY_KEYS if given[key] and not (key == "vocab_file" and given["num_buckets"])]
    if len(sizes) > 1:
        yield Fault(place, "one kind of vocabulary", " and ".join(sizes), "keep one of them")


def _table_keys(operator: Operator) -> dict[str, object]:
    found = {key: getattr(operator, key, None) for key in _TABLE_KEYS}
    return {key: value for key, value in found.items() if value is not None}
