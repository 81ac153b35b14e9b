"""Value counts of a day: partial counts that are merged over a window, for its bins and vocabularies.

A counts table has one row per feature and distinct value: feature, value (float32) or value_hash (int64), count (int64),
sorted by feature and value. The last row of a feature has a null value and counts missing values. Merging adds integers per
key, so any order and any grouping of the days gives the same table.

The features of users and items are counted in their feature tables, each row as often as samples use it. That gives the
same numbers as counting samples that contain copies of the rows, and costs less.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.arrays.ragged import repeat_rows
from dssm_assets.core.columns import COUNT, FEATURE, VALUE, VALUE_HASH
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature

Counts = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]


@dataclass(frozen=True)
class Uses:
    """How often samples use each row of a table.

    Attributes:
        counts: number of uses of each row; None for one use of every row.
        without: number of samples without a row: each counts as one missing value.
    """

    counts: Counts | None = None
    without: int = 0

    @cached_property
    def used(self) -> tuple[Counts, Counts] | None:
        """The used rows and the number of uses of each; None for one use of every row."""
        if self.counts is None:
            return None
        rows = np.flatnonzero(self.counts)
        return rows, self.counts[rows]


ONCE: Final = Uses()
"""One use of every row."""


@dataclass(frozen=True)
class CodedValues:
    """The values of a column by codes: the innermost values of lists, and a null for every empty list.

    Attributes:
        distinct: the distinct values, ascending, followed by a null.
        codes: position of each value in `distinct` [n].
        offsets: offsets of the rows [R + 1]; None for one value per row.
    """

    distinct: pa.Array
    codes: Codes
    offsets: ragged.Offsets | None = None

    @classmethod
    def from_column(cls, column: pa.Array | pa.ChunkedArray) -> CodedValues:
        """Returns the values of an encoded column: float32, int64 or lists of them. NaN is missing, -0.0 is 0.0."""
        array = ragged.combine_chunks(column)
        values, offsets = _flatten(array) if ragged.is_list(array.type) else (array, None)
        if pa.types.is_float32(values.type):
            numbers = values.fill_null(np.nan).to_numpy() + np.float32(0)
            values = ragged.mask_numbers(numbers, np.isnan(numbers))
        encoded = values.dictionary_encode()
        none = len(encoded.dictionary)
        order = np.append(np.argsort(encoded.dictionary.to_numpy(zero_copy_only=False)), none)
        positions = np.empty(none + 1, np.min_scalar_type(none))
        positions[order] = np.arange(none + 1, dtype=positions.dtype)
        codes = positions[encoded.indices.fill_null(none).to_numpy(zero_copy_only=False)]
        distinct = pa.concat_arrays([encoded.dictionary, pa.nulls(1, values.type)]).take(pa.array(order))
        return cls(distinct, codes, offsets)

    def count(self, uses: Uses) -> tuple[pa.Array, Counts]:
        """Returns the distinct values of the used rows, ascending with null last, and the count of each."""
        codes, weights = self.codes, None
        if uses.used is not None:
            rows, weights = uses.used
            if self.offsets is not None:
                starts, lengths = self.offsets[rows], np.diff(self.offsets)[rows]
                codes, weights = codes[ragged.ranges(starts, lengths)], np.repeat(weights, lengths)
            else:
                codes = codes[rows]
        # bincount adds weights as floats, which is exact below 2^53.
        counts = np.bincount(codes, weights=weights, minlength=len(self.distinct)).astype(np.int64)
        counts[-1] += uses.without
        present = np.flatnonzero(counts)
        return self.distinct.take(pa.array(present)), counts[present]


def _flatten(array: pa.Array) -> tuple[pa.Array, ragged.Offsets]:
    """Returns the innermost values of lists, with a null for an empty list, and the offsets of the rows."""
    flat, offsets = ragged.flatten(array)
    if ragged.is_list(flat.type):
        values, inner_offsets = _flatten(flat)
        return values, inner_offsets[offsets]
    lengths = np.diff(offsets)
    filled_offsets = ragged.offsets_of(np.maximum(lengths, 1))
    if len(flat) == filled_offsets[-1]:
        return flat, filled_offsets
    positions = np.full(filled_offsets[-1], -1, np.int64)
    positions[ragged.ranges(filled_offsets[:-1], lengths)] = np.arange(len(flat))
    return flat.take(pa.array(positions, mask=positions < 0)), filled_offsets


NUMERIC_COUNTS: Final = pa.schema([(FEATURE, pa.string()), (VALUE, pa.float32()), (COUNT, pa.int64())])
CATEGORY_COUNTS: Final = pa.schema([(FEATURE, pa.string()), (VALUE_HASH, pa.int64()), (COUNT, pa.int64())])

CodedTable: TypeAlias = Mapping[str, CodedValues]
"""feature -> its coded column."""

_COMPACT_ROWS: Final = 1 << 20
"""Unmerged rows that may always be kept in memory: up to this number, days are merged at once."""


def merge_value_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """Returns the sum of counts tables of one kind: the counts of all their samples.

    Memory is that of the merged rows plus about as many unmerged ones, whatever the number of tables. Merging is faster
    where the column feature is dictionary-encoded.

    Raises:
        SchemaError: there is no table, or the tables are not counts of one kind.
    """
    pending: list[pa.Table] = []
    schema: pa.Schema | None = None
    merged_rows = 0
    for table in tables:
        schema = _schema_of(table, [NUMERIC_COUNTS, CATEGORY_COUNTS] if schema is None else [schema])
        names = table.column(FEATURE)
        coded_names = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
        pending.append(table.set_column(0, FEATURE, coded_names))
        if sum(part.num_rows for part in pending) - merged_rows > max(merged_rows, _COMPACT_ROWS):
            pending = [_sum(pending)]
            merged_rows = pending[0].num_rows
    if schema is None:
        raise SchemaError(Fault("value counts", "at least one table", "none", "merge the days of a window"))
    merged = _sum(pending).cast(schema)
    keys = [(name, "ascending") for name in schema.names[:2]]
    return merged.take(pc.sort_indices(merged, sort_keys=keys)).combine_chunks()


def cast_counts(table: pa.Table, schemas: Sequence[pa.Schema]) -> pa.Table:
    """Returns the table cast to the schema among `schemas` that has its names and types.

    Raises:
        SchemaError: no schema has them.
    """
    return table.cast(_schema_of(table, schemas))


def _schema_of(table: pa.Table, schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Returns the schema that has the names and types of a table; dictionary-encoded text counts as text."""
    types = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in table.schema.types]
    for schema in schemas:
        if table.schema.names == schema.names and types == schema.types:
            return schema
    expected = " or ".join(str(schema) for schema in schemas).replace("\n", ", ")
    got = str(table.schema.remove_metadata()).replace("\n", ", ")
    raise SchemaError(Fault("value counts", expected, got, "give tables of value counts of one kind"))


def sort_by_frequency(merged: pa.Table) -> pa.Table:
    """Returns category counts sorted by feature, then frequency (highest first), then hash; nulls last."""
    order = [(FEATURE, "ascending"), (COUNT, "descending"), (VALUE_HASH, "ascending")]
    return merged.take(pc.sort_indices(merged, sort_keys=order)).combine_chunks()


def _sum(tables: Sequence[pa.Table]) -> pa.Table:
    """Returns one row per feature and value, in no order; the feature stays dictionary-encoded."""
    rows = pa.concat_tables(tables).unify_dictionaries()
    names = rows.column_names
    summed = rows.group_by(names[:2], use_threads=False).aggregate([(COUNT, "sum")])
    return pa.table([summed.column(name) for name in (*names[:2], f"{COUNT}_sum")], names=names)


def code_columns(table: pa.Table, features: Sequence[Feature]) -> CodedTable:
    """Returns the features of a table in a form in which they can be counted repeatedly at little cost.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    _check(table, features)
    return {feature.name: CodedValues.from_column(table.column(feature.name)) for feature in features}


def count_values(kind: Kind, groups: Iterable[tuple[pa.Table | CodedTable, Sequence[Feature], Uses]]) -> pa.Table:
    """Returns the counts of all features of one kind in several tables, each feature in one of them.

    Each value of a multi-valued feature counts; an empty list counts as one missing value. Features that share an embedding
    are counted separately.

    Args:
        groups: tables of encoded rows, plain or coded, the features that each contains, and how often samples use its rows.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    counts_of: dict[str, tuple[pa.Array, Counts]] = {}
    for table, features, uses in groups:
        chosen = [feature for feature in features if feature.kind is kind]
        if isinstance(table, pa.Table):
            counts_of |= _count_rows(table, chosen, uses)
        else:
            counts_of |= {feature.name: table[feature.name].count(uses) for feature in chosen}
    return _counts_table(kind, counts_of)


def _counts_table(kind: Kind, counts_of: Mapping[str, tuple[pa.Array, Counts]]) -> pa.Table:
    """Returns feature -> values and their counts as a table."""
    schema = NUMERIC_COUNTS if kind is Kind.NUMERIC else CATEGORY_COUNTS
    names = sorted(counts_of)
    lengths = [len(counts_of[name][0]) for name in names]
    columns = [
        pa.array(names, pa.string()).take(pa.array(repeat_rows(lengths))),
        pa.concat_arrays([pa.nulls(0, schema.types[1]), *(counts_of[name][0] for name in names)]),
        pa.array(np.concatenate([np.zeros(0, np.int64), *(counts_of[name][1] for name in names)])),
    ]
    return pa.table(columns, schema=schema)


def count_days(kind: Kind, days: Sequence[Sequence[tuple[pa.Table, Sequence[Feature], Uses]]]) -> list[pa.Table]:
    """Returns for each day what `count_values` would; each column is coded once for all days.

    Args:
        days: for each day its tables, with the same columns and features on all days.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    counts_of: dict[str, tuple[pa.Array, Counts]] = {}
    days_of: dict[str, Counts] = {}
    for groups in zip(*days, strict=True):
        chosen = [feature for feature in groups[0][1] if feature.kind is kind]
        parts, counts = zip(*(_used_part(table, chosen, uses) for table, _, uses in groups), strict=True)
        rows, weights = pa.concat_tables(parts), np.concatenate(counts)
        day_of_row = repeat_rows([part.num_rows for part in parts])
        without = np.array([uses.without for _, _, uses in groups], np.int64)
        for feature in chosen:
            coded = CodedValues.from_column(rows.column(feature.name))
            days_of[feature.name], values, sums = _count_by_day(coded, day_of_row, weights, without)
            counts_of[feature.name] = values, sums
    table = _counts_table(kind, counts_of)
    day = np.concatenate([np.zeros(0, np.int64), *(days_of[name] for name in sorted(days_of))])
    order = np.argsort(day, kind="stable")
    ordered, ends = table.take(pa.array(order)), np.searchsorted(day[order], np.arange(len(days) + 1))
    return [ordered.slice(first, end - first) for first, end in itertools.pairwise(ends.tolist())]


def _used_part(table: pa.Table, features: Sequence[Feature], uses: Uses) -> tuple[pa.Table, Counts]:
    """Returns the used rows of some features, and the number of uses of each."""
    _check(table, features)
    rows = table.select([feature.name for feature in features])
    if uses.used is None:
        return rows, np.ones(table.num_rows, np.int64)
    used, counts = uses.used
    return rows.take(pa.array(used)), counts


def _count_by_day(coded: CodedValues, day_of_row: Counts, weights: Counts, without: Counts) -> tuple[Counts, pa.Array, Counts]:
    """Returns day, value and count, ascending by day and then by value, with null last.

    Args:
        coded: the values of R rows.
        day_of_row: from 0 [R].
        weights: the uses of each row [R].
        without: missing values of each day besides [D].
    """
    if coded.offsets is not None:
        lengths = np.diff(coded.offsets)
        day_of_row, weights = np.repeat(day_of_row, lengths), np.repeat(weights, lengths)
    size = len(coded.distinct)
    missing = np.flatnonzero(without)
    keys, numbers = np.unique(np.concatenate([day_of_row * size + coded.codes, missing * size + size - 1]), return_inverse=True)
    # bincount adds weights as floats, which is exact below 2^53.
    counts = np.bincount(numbers, np.concatenate([weights, without[missing]]), len(keys)).astype(np.int64)
    return keys // size, coded.distinct.take(pa.array(keys % size)), counts


def _count_rows(table: pa.Table, features: Sequence[Feature], uses: Uses) -> dict[str, tuple[pa.Array, Counts]]:
    """Returns feature -> its values and their counts, reading used rows only."""
    rows, counts = _used_part(table, features, uses)
    uses = uses if uses.used is None else Uses(counts, uses.without)
    return {feature.name: CodedValues.from_column(rows.column(feature.name)).count(uses) for feature in features}


def _check(table: pa.Table, features: Sequence[Feature]) -> None:
    faults = []
    for feature in features:
        expected = pa.float32() if feature.kind is Kind.NUMERIC else pa.int64()
        actual = table.schema.field(feature.name).type if feature.name in table.column_names else None
        # Writers give the element field of lists different names, so only its type is compared.
        element, depth = actual, 0
        while element is not None and ragged.is_list(element):
            element, depth = element.value_type, depth + 1
        if element != expected or depth != feature.depth:
            wanted = "list of " * feature.depth + str(expected)
            got = "no such column" if actual is None else str(actual)
            remedy = "count tables that feature generation wrote with this fg.json"
            faults.append(Fault(f"samples, feature {feature.name}", wanted, got, remedy))
    SchemaError.raise_if(faults)
