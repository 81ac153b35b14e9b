"""The values of features for one slice of a table: features made from features, and sequences.

Belongs here: which arrays an operator gets and in what order. Does not belong here: what an operator computes
(`operators/`), slicing and the forms in which values leave (`generator.py`).

What a feature hands to a feature that refers to it is its bucket where its definition says what that is, as in the
reference (age in bins crossed with gender), else its value.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import lists, sequences
from dssm_assets.core.features.expressions import Expression, Source, parse_expression
from dssm_assets.core.features.feature_buckets import FeatureBuckets
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature
from dssm_assets.core.features.spec import Feature, FgSpec

Columns = dict[str, pa.Array]


class FeatureColumns:
    """Computes features of one slice, each once."""

    def __init__(self, spec: FgSpec, buckets: FeatureBuckets, table: pa.Table, is_whole: bool = False) -> None:
        """Prepares a slice; with is_whole sequences are not cut to their sequence_length."""
        self._spec = spec
        self._buckets = buckets
        self._table = table
        self._is_whole = is_whole
        self._values: Columns = {}
        self._weights: Columns = {}
        self._group_bounds: dict[str, dict[str, lists.Offsets]] = {}

    def of(self, features: Iterable[Feature]) -> Columns:
        """Returns the columns of features: values, and weights beside those of weighted ones.

        Raises:
            SchemaError: naming every input that has a type which a feature cannot use.
        """
        columns: Columns = {}
        faults: dict[str, Fault] = {}
        for feature in features:
            try:
                columns[feature.name] = self._column(feature)
            except SchemaError as error:
                faults |= {str(fault): fault for fault in error.faults}
                continue
            if feature.weights_name is not None:
                columns[feature.weights_name] = self._weights[feature.name]
        if faults:
            raise SchemaError(list(faults.values()))
        return columns

    def _column(self, feature: Feature) -> pa.Array:
        if feature.sequence is not None:
            return self._sub_feature(feature, feature.sequence)
        return self._of_operator(feature.operator)

    def _of_operator(self, operator: Operator) -> pa.Array:
        name = operator.feature_name
        if name not in self._values:
            inputs = [self._input(expression) for expression in operator.expressions]
            if operator.is_weighted:
                self._values[name], self._weights[name] = operator.compute_weighted(inputs)
            else:
                self._values[name] = operator.compute(inputs)
        return self._values[name]

    def _input(self, expression: Expression) -> pa.Array:
        if expression.source is Source.CONST:
            return _constant(expression.name, self._table.num_rows)
        if expression.source is not Source.FEATURE:
            return lists.one_array(self._table.column(expression.name))
        operator = self._spec.feature(expression.name).operator
        values = self._of_operator(operator)
        rule = self._buckets.rule(operator)
        return values if rule is None else rule(values)

    def _sub_feature(self, feature: Feature, sequence: SequenceFeature) -> pa.Array:
        assert feature.sub_feature is not None
        of_elements = feature.sub_feature.sequence_inputs
        pk = () if sequence.sequence_pk is None else (parse_expression(sequence.sequence_pk),)
        flat: dict[Expression, pa.Array] = {}
        # The bounds of the group's first sequence come first: all others are compared with them.
        bounds = dict(self._group_bounds.get(sequence.sequence_name, {}))
        is_null = np.zeros(self._table.num_rows, dtype=bool)
        for expression in dict.fromkeys((*of_elements, *pk)):
            name = sequence.column(expression, self._table.column_names)
            where = f"feature {feature.name}, input {expression}"
            array = sequences.as_lists(lists.one_array(self._table.column(name)), sequence.sequence_delim, where)
            flat[expression], bounds[name] = lists.flatten(array)
            is_null |= lists.null_mask(array)
        _check_lengths(feature.name, bounds)
        self._group_bounds[sequence.sequence_name] = dict(list(bounds.items())[:1])
        length = 0 if self._is_whole else sequence.sequence_length
        positions, offsets = sequences.kept(next(iter(bounds.values())), length, sequence.oldest_first)
        rows = pa.array(lists.row_of_value(offsets))
        inputs = []
        for expression in feature.operator.expressions:
            if expression in of_elements:
                elements = flat[expression]
                inputs.append(elements if positions is None else elements.take(pa.array(positions)))
            elif expression.source is Source.CONST:
                inputs.append(_constant(expression.name, len(rows)))
            else:
                inputs.append(lists.one_array(self._table.column(expression.name)).take(rows))
        return lists.build(feature.operator.compute(inputs), offsets, is_null)


def check_inputs(table: pa.Table, features: Iterable[Feature]) -> None:
    """Checks that a table has every column that features read.

    Raises:
        SchemaError: naming every column that is missing and the features that read it.
    """
    present = table.column_names
    needed: dict[str, list[str]] = {}
    for feature in features:
        for column in input_columns(feature, present):
            needed.setdefault(column, []).append(feature.name)
    faults = [
        Fault(f"input column {column}", "the column to exist", f"columns {', '.join(present) or '(none)'}",
              f"add it or change the features that read it: {', '.join(names)}")
        for column, names in sorted(needed.items())
        if column not in present
    ]  # fmt: skip
    if faults:
        raise SchemaError(faults)


def input_columns(feature: Feature, columns: Sequence[str]) -> list[str]:
    """Returns which of a table's columns a feature reads, sorted; missing ones by the plain name of the input."""
    if feature.sequence is None or feature.sub_feature is None:
        return list(feature.inputs)
    of_elements = feature.sub_feature.sequence_inputs
    found = {feature.sequence.column(expression, columns) for expression in of_elements}
    found |= {e.name for e in feature.operator.expressions if e.is_column and e not in of_elements}
    if feature.sequence.sequence_pk is not None:
        found.add(feature.sequence.column(parse_expression(feature.sequence.sequence_pk), columns))
    return sorted(found)


def _check_lengths(feature: str, bounds: dict[str, lists.Offsets]) -> None:
    first_name, offsets = next(iter(bounds.items()))
    differing = [
        Fault(
            f"feature {feature}, input {name}",
            f"lists as long as those of {first_name}",
            f"{int((np.diff(other) != np.diff(offsets)).sum())} rows where they differ",
            "write both lists from the same events",
        )
        for name, other in bounds.items()
        if not np.array_equal(other, offsets)
    ]
    if differing:
        raise SchemaError(differing)


def _constant(text: str, row_count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(row_count, dtype=np.int32)), pa.array([text], pa.string()))
