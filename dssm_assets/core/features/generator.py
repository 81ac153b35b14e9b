"""Feature generation: the same computation for a table of ten million rows and for one request.

A row's features depend on this row alone, so every batch size gives the same values. Three methods return three forms:
- `generate`: float32 numbers, texts of categories, lists;
- `encode`: the form that tables store: a category is the 64-bit hash of its text;
- `bucketize`: lists of bucket ids, where the definition alone determines them.
Null is missing. A multi-valued feature without values is an empty list.

Does not belong here: the computation of one feature type (`operators/`), and embedding indices, because these need the
statistics of a window (`core/statistics/bucketizer.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets.core.arrays.ragged import Offsets
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import column_values, requests
from dssm_assets.core.features.buckets import BucketRule, bucket_rule
from dssm_assets.core.features.expressions import SEQUENCE, Expression, Source, parse_expression
from dssm_assets.core.features.fg_files import ReadFile
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature
from dssm_assets.core.features.spec import Feature, FgSpec, parse_fg

Columns = dict[str, pa.Array]
Finish = Callable[[Feature, pa.Array], pa.Array]

_SLICE_ROWS: Final = 1 << 18
"""Rows computed at once: limits the memory of intermediate values and does not change results."""


class FeatureGenerator:
    """Generates the features of one fg.json. Its only state is the definitions.

    Every method raises a SchemaError for unusable inputs. It names each input that is missing or has a wrong type or value.
    """

    def __init__(self, spec: FgSpec, hash_function: HashFunction = HashFunction.MURMUR) -> None:
        self.spec = spec
        self.hash_function = hash_function
        self._rules: dict[str, BucketRule | None] = {}

    @classmethod
    def from_fg_json(
        cls, fg: Mapping[str, Any], *, hash_function: HashFunction = HashFunction.MURMUR, read_file: ReadFile | None = None
    ) -> FeatureGenerator:
        """Returns the generator of a parsed fg.json.

        Args:
            hash_function: murmur_hash64a as in the reference, or farm_fingerprint64 as in TensorFlow.
            read_file: returns the content of a file that the definitions name.

        Raises:
            FeatureSpecError: the definitions have faults; all are listed.
        """
        return cls(parse_fg(fg, read_file=read_file), hash_function)

    def generate(self, batch: pa.Table | pa.RecordBatch, side: str | None = None) -> pa.Table:
        """Returns the values of features, one row per row of the batch.

        A number is float32, a category its text (dictionary-encoded), several values are a list. A sub-feature of a sequence
        is a list with one entry per element. A weighted feature has a second column, `feature__weights`.

        Args:
            batch: the input columns; `user:x` reads column x.
            side: "user", "item" or "context" for the features of that side, "sequence" for the sub-features of sequences,
                None for all.
        """
        return self._compute(batch, self._features(side), lambda _, values: values)

    def encode(self, batch: pa.Table | pa.RecordBatch, side: str | None = None, *, is_whole: bool = False) -> pa.Table:
        """Returns the values of `generate`, with int64 hashes in place of texts.

        Args:
            batch: the input columns.
            side: see `generate`.
            is_whole: keep whole sequences instead of cutting them to their sequence_length.
        """
        return self._compute(
            batch, self._features(side), lambda _, values: ragged.map_leaves(values, self._hash_texts), is_whole
        )

    def bucketize(self, batch: pa.Table | pa.RecordBatch, side: str | None = None) -> pa.Table:
        """Returns lists of bucket ids, computed from the definitions alone (`buckets.py`). A missing value is an empty list.

        A sequence has one bucket id per element, null for a missing element. A feature without keys for buckets
        keeps its values, in lists.
        """
        return self._compute(batch, self._features(side), self._bucketize_values)

    def generate_one(self, request: Mapping[str, Any], side: str | None = None) -> dict[str, Any]:
        """Returns feature -> value for one request: a float, a text, a list of these, or None if missing.

        Args:
            request: input name -> value, such as `{"x": 3}` for `user:x`. Absent inputs are missing.
            side: see `generate`.
        """
        return requests.first_row(self.generate(self._request_table(request, side), side))

    def encode_one(self, request: Mapping[str, Any], side: str | None = None, *, is_whole: bool = False) -> dict[str, Any]:
        """Returns feature -> encoded value of one request. For a batch see `encode`."""
        return requests.first_row(self.encode(self._request_table(request, side), side, is_whole=is_whole))

    def bucketize_one(self, request: Mapping[str, Any], side: str | None = None) -> dict[str, Any]:
        """Returns feature -> list of bucket ids of one request. For a batch see `bucketize`."""
        return requests.first_row(self.bucketize(self._request_table(request, side), side))

    def _features(self, side: str | None) -> tuple[Feature, ...]:
        if side is None:
            return (*self.spec.features, *self.spec.sequence_features)
        return self.spec.sequence_features if side == SEQUENCE else self.spec.features_of_side(side)

    def _request_table(self, request: Mapping[str, Any], side: str | None) -> pa.Table:
        given = list(request)
        needed = {column: None for feature in self._features(side) for column in input_columns(feature, given)}
        return requests.request_rows([request], needed)

    def _compute(
        self, batch: pa.Table | pa.RecordBatch, features: Sequence[Feature], finish: Finish, is_whole: bool = False
    ) -> pa.Table:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        check_inputs(table, features)
        by_name = {feature.name: feature for feature in features}
        if not features:  # a table without columns still needs the number of rows
            return pa.table({"rows": pa.nulls(table.num_rows)}).select([])
        parts = []
        for start in range(0, max(table.num_rows, 1), _SLICE_ROWS):
            columns = FeatureColumns(self.spec, self._rule_for, table.slice(start, _SLICE_ROWS), is_whole).compute(features)
            finished = {name: finish(by_name[name], columns[name]) for name in by_name}
            parts.append(pa.table(columns | finished))
        return pa.concat_tables(parts).unify_dictionaries()

    def _hash_texts(self, values: pa.Array) -> pa.Array:
        if not pa.types.is_dictionary(values.type):
            return values
        return ragged.mask_numbers(hash_values(values, self.hash_function).view(np.int64), ragged.null_mask(values.indices))

    def _rule_for(self, feature: Feature) -> BucketRule | None:
        """Returns the bucket rule of a feature, built once. None if the definition does not suffice."""
        if feature.name not in self._rules:
            self._rules[feature.name] = bucket_rule(feature.operator, self.hash_function)
        return self._rules[feature.name]

    def _bucketize_values(self, feature: Feature, values: pa.Array) -> pa.Array:
        rule = self._rule_for(feature)
        ids = values if rule is None else rule(values)
        if feature.sequence is not None or feature.operator.is_sequence:
            return ragged.build_lists(*ragged.flatten(ids))
        return ragged.without_nulls(ids) if feature.depth else ragged.wrap_in_lists(ids)


def check_inputs(table: pa.Table, features: Iterable[Feature]) -> None:
    """Raises a SchemaError that names each missing column and the features that read it."""
    present = table.column_names
    needed: dict[str, list[str]] = {}
    for feature in features:
        for column in input_columns(feature, present):
            needed.setdefault(column, []).append(feature.name)
    SchemaError.raise_if(
        Fault(f"input column {column}", "the column to exist", f"columns {', '.join(present) or '(none)'}",
              f"add it or change the features that read it: {', '.join(names)}")
        for column, names in sorted(needed.items())
        if column not in present
    )  # fmt: skip


def input_columns(feature: Feature, columns: Sequence[str]) -> list[str]:
    """Returns the columns that a feature reads, sorted. A sequence input x reads `sequence__x` if the table has it, else `x`."""
    if feature.sequence is None or feature.sub_feature is None:
        return list(feature.inputs)
    sequence_inputs = feature.sub_feature.sequence_inputs
    found = {feature.sequence.column(expression, columns) for expression in sequence_inputs}
    found |= {e.name for e in feature.operator.expressions if e.is_column and e not in sequence_inputs}
    if feature.sequence.sequence_pk is not None:
        found.add(feature.sequence.column(parse_expression(feature.sequence.sequence_pk), columns))
    return sorted(found)


class FeatureColumns:
    """Computes the features of one slice of a table. Each is computed once, even if other features read it."""

    def __init__(self, spec: FgSpec, rule_for: Callable[[Feature], BucketRule | None], table: pa.Table, is_whole: bool) -> None:
        """Prepares a slice. With is_whole, sequences keep their whole length."""
        self._spec, self._rule_for, self._table, self._is_whole = spec, rule_for, table, is_whole
        self._columns: Columns = {}
        self._values: Columns = {}
        self._weights: Columns = {}
        self._group_offsets: dict[str, dict[str, Offsets]] = {}

    def compute(self, features: Iterable[Feature]) -> Columns:
        """Returns the columns of features: their values, and the weights of weighted features.

        Raises:
            SchemaError: a feature cannot use the type of an input; all such inputs are named.
        """
        columns: Columns = {}
        faults: dict[str, Fault] = {}
        for feature in features:
            try:
                if feature.sequence is None:
                    columns[feature.name] = self._compute_operator(feature.operator)
                else:
                    columns[feature.name] = self._compute_sub_feature(feature, feature.sequence)
            except SchemaError as error:
                faults |= {str(fault): fault for fault in error.faults}
                continue
            if feature.weights_name is not None:
                columns[feature.weights_name] = self._weights[feature.name]
        SchemaError.raise_if(faults.values())
        return columns

    def _compute_operator(self, operator: Operator) -> pa.Array:
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
            return self._column(expression.name)
        feature = self._spec.feature(expression.name)
        values, rule = self._compute_operator(feature.operator), self._rule_for(feature)
        return values if rule is None else rule(values)

    def _column(self, name: str) -> pa.Array:
        if name not in self._columns:
            self._columns[name] = ragged.combine_chunks(self._table.column(name))
        return self._columns[name]

    def _compute_sub_feature(self, feature: Feature, sequence: SequenceFeature) -> pa.Array:
        assert feature.sub_feature is not None
        sequence_inputs = feature.sub_feature.sequence_inputs
        pk = () if sequence.sequence_pk is None else (parse_expression(sequence.sequence_pk),)
        flat: dict[Expression, pa.Array] = {}
        # The first sequence's offsets come first, because `_check_lengths` compares the others with them.
        offsets_by_input = dict(self._group_offsets.get(sequence.sequence_name, {}))
        is_null = np.zeros(self._table.num_rows, dtype=bool)
        for expression in dict.fromkeys((*sequence_inputs, *pk)):
            name = sequence.column(expression, self._table.column_names)
            where = f"feature {feature.name}, input {expression}"
            array = column_values.as_lists(self._column(name), sequence.sequence_delim, where)
            flat[expression], offsets_by_input[name] = ragged.flatten(array)
            is_null |= ragged.null_mask(array)
        _check_lengths(feature.name, offsets_by_input)
        self._group_offsets[sequence.sequence_name] = dict(list(offsets_by_input.items())[:1])
        length = 0 if self._is_whole else sequence.sequence_length
        positions, offsets = column_values.keep_recent(next(iter(offsets_by_input.values())), length, sequence.oldest_first)
        rows = pa.array(ragged.row_of_value(offsets))
        inputs = []
        for expression in feature.operator.expressions:
            if expression in sequence_inputs:
                inputs.append(flat[expression].take(pa.array(positions)))
            elif expression.source is Source.CONST:
                inputs.append(_constant(expression.name, len(rows)))
            else:
                inputs.append(self._column(expression.name).take(rows))
        return ragged.build_lists(feature.operator.compute(inputs), offsets, is_null)


def _check_lengths(feature: str, offsets_by_input: dict[str, Offsets]) -> None:
    first_name, offsets = next(iter(offsets_by_input.items()))
    expected, remedy = f"lists as long as those of {first_name}", "write both lists from the same events"
    differing = {name: int((np.diff(other) != np.diff(offsets)).sum()) for name, other in offsets_by_input.items()}
    SchemaError.raise_if(
        Fault(f"feature {feature}, input {name}", expected, f"{count} rows where they differ", remedy)
        for name, count in differing.items()
        if count
    )


def _constant(text: str, row_count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(row_count, np.int32)), pa.array([text], pa.string()))
