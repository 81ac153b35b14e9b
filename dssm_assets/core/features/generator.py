"""Feature generation: the same call for ten million rows and for one request.

Belongs here: the public interface, and the forms in which values leave it. Does not belong here: what one operator
computes (`operators/`), how features feed each other (`feature_columns.py`), embedding indices from a window's
statistics (`bucketizer.py`).

Every row is computed from itself alone, so any batching gives the same rows. Values leave in three forms:
- `generate`: as they are: numbers float32, categories their text, several of them lists;
- `encode`: as tables store them: a category becomes the 64-bit hash of its text;
- `bucketize`: as the definitions alone decide: lists of bucket ids.
Null is missing; a multi-valued feature without values is an empty list.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.hashing import hash_values, signed
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import column_values, requests
from dssm_assets.core.features.buckets import FeatureBuckets
from dssm_assets.core.features.expressions import SEQUENCE, Expression, Side, Source, parse_expression
from dssm_assets.core.features.fg_files import ReadFile, read_fg_file
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature
from dssm_assets.core.features.spec import Feature, FgSpec, parse_fg

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
        self._group_bounds: dict[str, dict[str, ragged.Offsets]] = {}

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
            return ragged.combine_chunks(self._table.column(expression.name))
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
            array = column_values.as_lists(ragged.combine_chunks(self._table.column(name)), sequence.sequence_delim, where)
            flat[expression], bounds[name] = ragged.flatten(array)
            is_null |= ragged.null_mask(array)
        _check_lengths(feature.name, bounds)
        self._group_bounds[sequence.sequence_name] = dict(list(bounds.items())[:1])
        length = 0 if self._is_whole else sequence.sequence_length
        positions, offsets = column_values.kept(next(iter(bounds.values())), length, sequence.oldest_first)
        rows = pa.array(ragged.row_of_value(offsets))
        inputs = []
        for expression in feature.operator.expressions:
            if expression in of_elements:
                elements = flat[expression]
                inputs.append(elements if positions is None else elements.take(pa.array(positions)))
            elif expression.source is Source.CONST:
                inputs.append(_constant(expression.name, len(rows)))
            else:
                inputs.append(ragged.combine_chunks(self._table.column(expression.name)).take(rows))
        return ragged.build(feature.operator.compute(inputs), offsets, is_null)


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


def _check_lengths(feature: str, bounds: dict[str, ragged.Offsets]) -> None:
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


_SLICE_ROWS: Final = 1 << 18
"""Rows computed at once: bounds the memory of intermediate values, changes no result."""

Finish = Callable[[Feature, pa.Array], pa.Array]


class FeatureGenerator:
    """Generates the features of one specification. Holds no state beyond it."""

    def __init__(self, spec: FgSpec, hash_function: HashFunction = HashFunction.MURMUR) -> None:
        self.spec = spec
        self.hash_function = hash_function
        self._buckets = FeatureBuckets(hash_function)

    @classmethod
    def from_fg_json(
        cls,
        source: Mapping[str, Any] | str,
        *,
        hash_function: HashFunction = HashFunction.MURMUR,
        read_file: ReadFile | None = None,
    ) -> FeatureGenerator:
        """Returns the generator of a fg.json, given as a mapping or as a path.

        Args:
            source: the parsed file, or where it is. Files that it names are looked for beside it.
            hash_function: murmur_hash64a as the reference's feature generator, or farm_fingerprint64 as TensorFlow.
            read_file: returns the content of a file that a mapping names.

        Raises:
            FeatureSpecError: naming every fault of the definitions.
            OSError: if there is no such file.
        """
        if isinstance(source, Mapping):
            return cls(parse_fg(source, read_file=read_file), hash_function)
        raw, where, beside = read_fg_file(source)
        return cls(parse_fg(raw, where, read_file or beside), hash_function)

    def generate(self, batch: pa.Table | pa.RecordBatch, side: str | None = None) -> pa.Table:
        """Returns the values of features, as many rows as the batch, before anything becomes a bucket.

        A number is float32, a category its text (dictionary-encoded), several are lists, a sub-feature of a sequence
        is a list over its elements. A weighted feature has a column `feature__weights` beside it.

        Args:
            batch: the input columns: `user:x` reads column x.
            side: "user", "item" or "context": the features of that side; "sequence": the sub-features of sequences;
                None: everything.

        Raises:
            SchemaError: naming every column that is missing or has a type that a feature cannot use.
        """
        return self._run(batch, self._features(side), lambda _, values: values)

    def encode(self, batch: pa.Table | pa.RecordBatch, side: str | None = None, *, is_whole: bool = False) -> pa.Table:
        """Returns what `generate` does with the int64 hash of each category's text in its place.

        Args:
            batch: the input columns.
            side: as in `generate`.
            is_whole: keep sequences whole, whatever their sequence_length.

        Raises:
            SchemaError: as `generate`.
        """
        return self._run(batch, self._features(side), self._encoded, is_whole)

    def bucketize(self, batch: pa.Table | pa.RecordBatch, side: str | None = None) -> pa.Table:
        """Returns lists of bucket ids as the definitions alone decide them (`buckets.py`); missing is an empty list.

        A sequence has one place per element, null where the element is missing. A feature whose definition has no key
        that makes buckets keeps its values, in lists.

        Raises:
            SchemaError: as `generate`.
        """
        return self._run(batch, self._features(side), self._bucketized)

    def generate_one(self, request: Mapping[str, Any], side: str | None = None) -> dict[str, Any]:
        """Returns the values of one request by feature: a float, a text, None where missing, or a list of them.

        Args:
            request: value by input name: `{"x": 3}` for `user:x`. An input that is not given is missing.
            side: as in `generate`.

        Raises:
            SchemaError: naming every input whose value a feature cannot use.
        """
        return requests.first_row(self.generate(self._request_table(request, side), side))

    def encode_one(self, request: Mapping[str, Any], side: str | None = None, *, is_whole: bool = False) -> dict[str, Any]:
        """Returns the encoded values of one request, as `encode` does for a batch.

        Raises:
            SchemaError: as `generate_one`.
        """
        return requests.first_row(self.encode(self._request_table(request, side), side, is_whole=is_whole))

    def bucketize_one(self, request: Mapping[str, Any], side: str | None = None) -> dict[str, Any]:
        """Returns the list of bucket ids of each feature for one request, as `bucketize` does for a batch.

        Raises:
            SchemaError: as `generate_one`.
        """
        return requests.first_row(self.bucketize(self._request_table(request, side), side))

    def _features(self, side: str | None) -> tuple[Feature, ...]:
        if side is None:
            return (*self.spec.features, *self.spec.sequence_features)
        return self.spec.sequence_features if side == SEQUENCE else self.spec.features_of_side(Side(side))

    def _request_table(self, request: Mapping[str, Any], side: str | None) -> pa.Table:
        given = list(request)
        needed = {column: None for feature in self._features(side) for column in input_columns(feature, given)}
        return requests.request_table(request, needed)

    def _run(
        self, batch: pa.Table | pa.RecordBatch, features: Sequence[Feature], finish: Finish, is_whole: bool = False
    ) -> pa.Table:
        table = pa.Table.from_batches([batch]) if isinstance(batch, pa.RecordBatch) else batch
        check_inputs(table, features)
        by_name = {feature.name: feature for feature in features}
        parts = []
        for start in range(0, max(table.num_rows, 1), _SLICE_ROWS):
            columns = FeatureColumns(self.spec, self._buckets, table.slice(start, _SLICE_ROWS), is_whole).of(features)
            parts.append(
                {name: finish(by_name[name], values) if name in by_name else values for name, values in columns.items()}
            )
        return _joined(parts, table.num_rows)

    def _encoded(self, _: Feature, values: pa.Array) -> pa.Array:
        return ragged.map_leaves(values, self._hashed)

    def _hashed(self, values: pa.Array) -> pa.Array:
        if not pa.types.is_dictionary(values.type):
            return values
        return pa.array(signed(hash_values(values, self.hash_function)), mask=ragged.null_mask(values.indices))

    def _bucketized(self, feature: Feature, values: pa.Array) -> pa.Array:
        rule = self._buckets.rule(feature.operator)
        ids = values if rule is None else rule(values)
        if feature.sequence is not None or feature.operator.is_sequence:
            return ragged.build(*ragged.flatten(ids))
        return ragged.without_nulls(ids) if feature.depth else ragged.wrap_in_lists(ids)


def _joined(parts: Sequence[Mapping[str, pa.Array]], row_count: int) -> pa.Table:
    if parts[0]:
        return pa.concat_tables([pa.table(dict(part)) for part in parts]).unify_dictionaries()
    # A side without features: no columns, but still as many rows as the input.
    return pa.table({"rows": pa.nulls(row_count)}).select([])


_TABLES: Final = {
    "user": "user_all_feature",
    "item": "item_all_feature",
    "context": "sample",
    SEQUENCE: "user_history",
}
_REMEDIES: Final = {
    "user": "add it to the user table, or correct the expression",
    "item": "add it to the item table, or correct the expression",
    "context": "add it to tables.behavior.context_columns, or correct the expression",
    SEQUENCE: "add it to raw_features.history_columns, or correct the expression",
}


def missing_inputs(spec: FgSpec, columns: Mapping[str, Collection[str]]) -> list[Fault]:
    """Returns one fault per feature and column that it reads and its table will not have.

    Args:
        spec: the feature definitions.
        columns: side (user, item, context, sequence) -> the columns of the table that its features read; a side that is
            lacking is not checked.
    """
    faults = []
    for feature in (*spec.features, *spec.sequence_features):
        side = SEQUENCE if feature.sequence is not None else feature.side.value
        if side not in columns:
            continue
        for name in feature.inputs:
            if name not in columns[side]:
                there = ", ".join(sorted(columns[side]))
                shown = there if len(there) <= 400 else f"{there[:400]} ..."
                where = f"fg.json, feature {feature.name}"
                faults.append(Fault(where, f"a column of {_TABLES[side]}: {shown}", repr(name), _REMEDIES[side]))
    return faults
