"""Checks between feature definitions: names, references, sides and shared embeddings.

Belongs here: what no single feature can know about itself. Does not belong here: the keys of one feature type, which
its class checks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.errors import Fault
from dssm_assets.core.features.expressions import Expression, Kind, Source, parse_expression
from dssm_assets.core.features.operators.base import VOCABULARY_KEYS, Operator
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature

_TABLE_KEYS = ("embedding_dim", *VOCABULARY_KEYS, "default_bucketize_value", "boundaries")
"""Keys that decide what an embedding table looks like: features that share one may not contradict each other."""


def faults_between(
    definitions: Sequence[Operator | SequenceFeature], where: str, all_names: Collection[str]
) -> Iterator[Fault]:
    """Yields what is wrong between definitions that are right by themselves.

    Args:
        definitions: the features and sequences that could be parsed.
        where: words that name the file.
        all_names: one name per feature and sub-feature of the file, those that could not be parsed included.
    """
    operators = [item for item in definitions if isinstance(item, Operator)]
    sequences = [item for item in definitions if isinstance(item, SequenceFeature)]
    for name, count in sorted(Counter(all_names).items()):
        if count > 1:
            yield Fault(f"{where}, feature {name}", "a name of its own", f"the name {count} times", "rename the others")
    for weighted in (operator for operator in operators if operator.is_weighted):
        column = feature_weights(weighted.feature_name)
        if column in all_names:
            taken = f"the column of the weights of {weighted.feature_name}"
            yield Fault(f"{where}, feature {column}", "a name of its own", taken, "rename it")
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
            yield Fault(place, "no feature that is made from itself", str(expression), "break the circle")
        elif expression.name in named and expression.name not in seen:
            seen.add(expression.name)
            waiting.extend(named[expression.name].expressions)
        elif expression.name in of_sequences - set(named) and expression in operator.expressions:
            got, remedy = f"{expression}, a feature of a sequence", "define a feature of the row and name that"
            yield Fault(place, "a feature of a row, not one of a sequence", got, remedy)
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
                f"split it into one feature on the {other} side and one on the item side; no tower sees both",
            )  # fmt: skip


def _sequence_faults(sequence: SequenceFeature, where: str) -> Iterator[Fault]:
    place = f"{where}, sequence {sequence.sequence_name}"
    if sequence.sequence_pk is not None and not parse_expression(sequence.sequence_pk).is_column:
        yield Fault(f"{place}, key sequence_pk", "an input column", repr(sequence.sequence_pk), "name the column of its ids")
    for sub in sequence.features:
        inside = f"{place}, feature {sub.operator.feature_name}"
        stray = sorted(str(e) for e in sub.operator.expressions if e.source is Source.FEATURE)
        if stray:
            remedy = "read columns; a feature inside a sequence refers to no other"
            yield Fault(f"{inside}, inputs", "columns and constants", ", ".join(stray), remedy)
        if sub.operator.is_weighted:
            yield Fault(f"{inside}, key weighted", "false inside a sequence", "true", "use it in a feature of its own")
        if sub.operator.depth > 1 or sub.operator.feature_type.startswith("sequence_"):
            remedy = "use id_feature or raw_feature: the group makes it a sequence"
            yield Fault(f"{inside}, key feature_type", "no sequence in a sequence", sub.operator.feature_type, remedy)


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
                place, "features of one kind", f"numbers and categories ({names})", "give them embedding_names of their own"
            )
            continue
        if group[0][1].kind is Kind.NUMERIC and any(_table_keys(operator).get("boundaries") is None for _, operator in group):
            yield Fault(
                place, "boundaries in every number that shares it", names, "write the same boundaries in each, or do not share"
            )
        yield from _contradictions(group, place)


def _contradictions(group: Sequence[tuple[str, Operator]], place: str) -> Iterator[Fault]:
    given = {key: {name: str(_table_keys(op)[key]) for name, op in group if key in _table_keys(op)} for key in _TABLE_KEYS}
    for key, values in given.items():
        if len(set(values.values())) > 1:
            got = ", ".join(f"{name}: {value[:60]}" for name, value in values.items())
            yield Fault(f"{place}, key {key}", "one value for all features that share it", got, "agree on one")
    # A tokenizer's file gives num_buckets: it is no second vocabulary.
    sizes = [key for key in VOCABULARY_KEYS if given[key] and not (key == "vocab_file" and given["num_buckets"])]
    if len(sizes) > 1:
        yield Fault(place, "one kind of vocabulary", " and ".join(sizes), "keep one of them")


def _table_keys(operator: Operator) -> dict[str, object]:
    found = {key: getattr(operator, key, None) for key in _TABLE_KEYS}
    return {key: value for key, value in found.items() if value is not None}
