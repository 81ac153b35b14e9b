"""Feature generation: FG columns from input columns, the same call for ten million rows and for one request.

Belongs here: which columns a side needs, features made from features, the encoding of values (float32, 64-bit
hashes). Does not belong here: what one operator computes (`operators/`) and embedding indices (`bucketizer.py`).

Every row is computed from itself alone, so any batching gives the same rows. Encoded: a number is float32, a
category int64 (its text's MurmurHash64A), a multi-valued category list<int64>. Null is missing; a multi-valued
feature without values is an empty list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import lists
from dssm_assets.core.features.expressions import Expression, Source, parse_expression
from dssm_assets.core.features.hashing import murmur_hash64a, signed
from dssm_assets.core.features.operators.base import Operator
from dssm_assets.core.features.operators.sequence_feature import SequenceFeature
from dssm_assets.core.features.spec import Feature, FgSpec, parse_fg

_SLICE_ROWS: Final = 1 << 18
"""Rows computed at once: bounds the memory of intermediate values, changes no result."""


class FeatureGenerator:
    """Generates the features of one specification. Holds no state beyond it."""

    def __init__(self, spec: FgSpec) -> None:
        self.spec = spec

    @classmethod
    def from_fg_json(cls, raw: Mapping[str, Any], where: str = "fg.json") -> FeatureGenerator:
        """Returns the generator of a parsed fg.json.

        Raises:
            FeatureSpecError: naming every fault of the definitions.
        """
        return cls(parse_fg(raw, where))

    def generate(self, table: pa.Table | pa.RecordBatch, side: str | None = None) -> pa.Table:
        """Returns the feature columns of a side ("user", "item", "context"; None: all), as many rows as the table.

        Columns are in the order of fg.json and named as the features. The input `user:x` reads column x.

        Raises:
            SchemaError: naming every column that is missing or has a type that a feature cannot use.
        """
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        features = self.spec.of_side(side)
        _check_columns(whole, features)
        return _joined([self._generate_slice(part, features) for part in _slices(whole)], whole.num_rows)

    def generate_sequence(self, table: pa.Table | pa.RecordBatch) -> pa.Table:
        """Returns the sub-feature columns `sequence__feature`, list<int64>, of a table of users' pasts.

        Inputs are list columns (or text joined by sequence_delim). A list has as many elements as its inputs' lists,
        null where an element is missing; a null list stays null.

        Raises:
            SchemaError: naming every column that is missing or has no lists, and every row count of lists that differ.
        """
        whole = pa.Table.from_batches([table]) if isinstance(table, pa.RecordBatch) else table
        features = self.spec.sequence_features
        _check_columns(whole, features)
        return _joined([_sequence_slice(part, features) for part in _slices(whole)], whole.num_rows)

    def _generate_slice(self, table: pa.Table, features: Sequence[Feature]) -> pa.Table:
        columns: dict[Expression, pa.Array] = {}
        faults: list[Fault] = []
        arrays: dict[str, pa.Array] = {}
        for feature in features:
            try:
                arrays[feature.name] = encode(self._values(feature.operator, table, columns))
            except SchemaError as error:
                faults.extend(error.faults)
        if faults:
            raise SchemaError(list({str(fault): fault for fault in faults}.values()))
        return pa.table(arrays)

    def _values(self, operator: Operator, table: pa.Table, columns: dict[Expression, pa.Array]) -> pa.Array:
        """Returns a feature's values, computing features it refers to once; `columns` remembers them."""
        own = Expression(Source.FEATURE, operator.feature_name)
        if own not in columns:
            inputs = [self._input(expression, table, columns) for expression in operator.expressions]
            columns[own] = operator.compute(inputs)
        return columns[own]

    def _input(self, expression: Expression, table: pa.Table, columns: dict[Expression, pa.Array]) -> pa.Array:
        if expression.source is Source.FEATURE:
            return self._values(self.spec.feature(expression.name).operator, table, columns)
        if expression.source is Source.CONST:
            return _constant(expression.name, table.num_rows)
        return lists.one_array(table.column(expression.name))


def encode(values: pa.Array) -> pa.Array:
    """Returns an operator's values as FG stores them: float32, int64 hashes, or lists of them."""
    if pa.types.is_float32(values.type):
        return values
    if lists.is_list(values.type):
        flat, offsets = lists.flatten(values)
        return lists.build(pa.array(signed(murmur_hash64a(flat))), offsets)
    return pa.array(signed(murmur_hash64a(values)), mask=lists.null_mask(values.indices))


def _sequence_slice(table: pa.Table, features: Sequence[Feature]) -> pa.Table:
    arrays: dict[str, pa.Array] = {}
    faults: list[Fault] = []
    for feature in features:
        if feature.sequence is None:
            continue
        try:
            arrays[feature.name] = _sub_feature(table, feature, feature.sequence)
        except SchemaError as error:
            faults.extend(error.faults)
    if faults:
        raise SchemaError(faults)
    return pa.table(arrays)


def _sub_feature(table: pa.Table, feature: Feature, sequence: SequenceFeature) -> pa.Array:
    flat: dict[Expression, pa.Array] = {}
    bounds: dict[str, lists.Offsets] = {}
    is_null = np.zeros(table.num_rows, dtype=bool)
    wanted = [expression for expression in feature.operator.expressions if expression.is_column]
    if sequence.sequence_pk is not None:
        wanted.append(parse_expression(sequence.sequence_pk))
    for expression in dict.fromkeys(wanted):
        where = f"feature {feature.name}, input {expression}"
        array = _as_lists(lists.one_array(table.column(expression.name)), sequence.sequence_delim, where)
        flat[expression], bounds[expression.name] = lists.flatten(array)
        is_null |= lists.null_mask(array)
    first_name, offsets = next(iter(bounds.items()))
    differing = [
        Fault(
            f"feature {feature.name}, input {name}",
            f"lists as long as those of {first_name}",
            f"{int((np.diff(other) != np.diff(offsets)).sum())} rows where they differ",
            "write both lists from the same events",
        )
        for name, other in bounds.items()
        if not np.array_equal(other, offsets)
    ]
    if differing:
        raise SchemaError(differing)
    count = int(offsets[-1])
    inputs = [flat[e] if e.is_column else _constant(e.name, count) for e in feature.operator.expressions]
    return lists.build(encode(feature.operator.compute(inputs)), offsets, is_null)


def _as_lists(array: pa.Array, delimiter: str, where: str) -> pa.Array:
    if lists.is_list(array.type):
        return array
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        text = array.cast(pa.string())
        parts = pc.split_pattern(text, delimiter)
        # An empty text is a sequence without elements, not one whose only element is empty.
        return pc.if_else(pc.equal(text, ""), pa.scalar([], parts.type), parts)
    raise SchemaError(Fault(where, "lists or text", str(array.type), "write one list per user"))


def _check_columns(table: pa.Table, features: Iterable[Feature]) -> None:
    needed: dict[str, list[str]] = {}
    for feature in features:
        pk = feature.sequence.sequence_pk if feature.sequence is not None else None
        columns = feature.inputs if pk is None else {*feature.inputs, parse_expression(pk).name}
        for column in sorted(columns):
            needed.setdefault(column, []).append(feature.name)
    present = set(table.column_names)
    faults = [
        Fault(f"input column {column}", "the column to exist", f"columns {', '.join(table.column_names) or '(none)'}",
              f"add it or change the features that read it: {', '.join(names)}")
        for column, names in needed.items()
        if column not in present
    ]  # fmt: skip
    if faults:
        raise SchemaError(faults)


def _slices(table: pa.Table) -> list[pa.Table]:
    return [table.slice(start, _SLICE_ROWS) for start in range(0, max(table.num_rows, 1), _SLICE_ROWS)]


def _constant(text: str, row_count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(row_count, dtype=np.int32)), pa.array([text], pa.string()))


def _joined(parts: Sequence[pa.Table], row_count: int) -> pa.Table:
    if parts[0].num_columns:
        return pa.concat_tables(parts)
    # A side without features: no columns, but still as many rows as the input.
    return pa.table({"rows": pa.nulls(row_count)}).select([])
