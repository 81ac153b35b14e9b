"""Value counts: the day's mergeable partials from which a window's binning and vocabularies follow.

Belongs here: counting the encoded values of samples, merging counts, ordering them by frequency. Does not belong
here: boundaries (`binning.py`), vocabularies (`vocabulary.py`).

Features of a user are counted in the rows of users, each as often as samples use it: the same numbers as counting in
samples that carry copies, for less.

A counts table has one row per feature and distinct value: feature, value (float32) or value_hash (int64), count
(int64), sorted by feature and value with the null row, which counts missing values, last. Merging is a sum of
integers per key: any order and any grouping of the days gives the same table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays import ragged
from dssm_assets.core.columns import COUNT, FEATURE, VALUE, VALUE_HASH
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature

Counts = np.ndarray[Any, np.dtype[np.int64]]
Codes = np.ndarray[Any, np.dtype[np.unsignedinteger[Any]]]


@dataclass(frozen=True)
class Uses:
    """How often each row of a table counts.

    Attributes:
        counts: of each row; None: every row once.
        without: samples that have no row at all: each counts as one without any value.
    """

    counts: Counts | None = None
    without: int = 0

    @cached_property
    def used(self) -> tuple[Counts, Counts] | None:
        """The rows that count at all, and how often each does; None: every row once."""
        if self.counts is None:
            return None
        rows = np.flatnonzero(self.counts)
        return rows, self.counts[rows]


ONCE: Final = Uses()


@dataclass(frozen=True)
class CodedValues:
    """The values of a column: innermost ones of lists, and a null for every list without any.

    Attributes:
        distinct: the different values, ascending, a null last.
        codes: of each value its place in `distinct`.
        bounds: where the values of each row begin, and the end; None: one value per row.
    """

    distinct: pa.Array
    codes: Codes
    bounds: ragged.Offsets | None = None

    @classmethod
    def from_column(cls, column: pa.Array | pa.ChunkedArray) -> CodedValues:
        """Returns the values of an encoded column: float32 or int64, or lists of them. NaN is missing, -0.0 is 0.0."""
        array = ragged.combine_chunks(column)
        values, bounds = _values(array) if ragged.is_list(array.type) else (array, None)
        if pa.types.is_float32(values.type):
            numbers = values.to_numpy(zero_copy_only=False) + np.float32(0)
            values = pa.array(numbers, pa.float32(), mask=np.isnan(numbers))
        encoded = values.dictionary_encode()
        none = len(encoded.dictionary)
        order = np.append(np.argsort(encoded.dictionary.to_numpy(zero_copy_only=False)), none)
        places = np.empty(none + 1, np.min_scalar_type(none))
        places[order] = np.arange(none + 1, dtype=places.dtype)
        codes = places[encoded.indices.fill_null(none).to_numpy(zero_copy_only=False)]
        distinct = pa.concat_arrays([encoded.dictionary, pa.nulls(1, values.type)]).take(pa.array(order))
        return cls(distinct, codes, bounds)

    def count(self, uses: Uses) -> tuple[pa.Array, Counts]:
        """Returns the distinct values that count, ascending with null last, and how often each does."""
        codes, weights = self.codes, None
        if uses.used is not None:
            rows, weights = uses.used
            if self.bounds is not None:
                starts, lengths = self.bounds[rows], np.diff(self.bounds)[rows]
                codes, weights = codes[ragged.ranges(starts, lengths)], np.repeat(weights, lengths)
            else:
                codes = codes[rows]
        # bincount sums weights as floats, exactly as long as they stay below 2^53.
        counts = np.bincount(codes, weights=weights, minlength=len(self.distinct)).astype(np.int64)
        counts[-1] += uses.without
        there = np.flatnonzero(counts)
        return self.distinct.take(pa.array(there)), counts[there]


def _values(array: pa.Array) -> tuple[pa.Array, ragged.Offsets]:
    """Returns the innermost values of lists, a null in the place of a list without any, and the bounds of each row's."""
    flat, offsets = ragged.flatten(array)
    if ragged.is_list(flat.type):
        values, bounds = _values(flat)
        return values, bounds[offsets]
    lengths = np.diff(offsets)
    bounds = ragged.offsets_of(np.maximum(lengths, 1))
    if len(flat) == bounds[-1]:
        return flat, bounds
    places = np.full(bounds[-1], -1, np.int64)
    places[ragged.ranges(bounds[:-1], lengths)] = np.arange(len(flat))
    return flat.take(pa.array(places, mask=places < 0)), bounds


NUMERIC_COUNTS: Final = pa.schema([(FEATURE, pa.string()), (VALUE, pa.float32()), (COUNT, pa.int64())])
CATEGORY_COUNTS: Final = pa.schema([(FEATURE, pa.string()), (VALUE_HASH, pa.int64()), (COUNT, pa.int64())])

CodedTable: TypeAlias = Mapping[str, CodedValues]
"""The coded columns of a table by feature."""

_COMPACT_ROWS: Final = 1 << 20
"""Unmerged rows that are always worth holding: below it, days are merged in one go."""


def numeric_value_counts(table: pa.Table, features: Sequence[Feature], uses: Uses = ONCE) -> pa.Table:
    """Returns feature, value, count of the numeric ones of the features of an encoded table; NaN counts as missing.

    Args:
        table: encoded rows.
        features: those whose values stand in the table.
        uses: how often each row counts.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    return count_values(Kind.NUMERIC, [(table, features, uses)])


def category_value_counts(table: pa.Table, features: Sequence[Feature], uses: Uses = ONCE) -> pa.Table:
    """Returns feature, value_hash, count of the categorical ones of the features of an encoded table.

    Each value of a multi-valued feature counts; a list without values counts as one missing. Features that share an
    embedding are counted apart.

    Args:
        table: encoded rows.
        features: those whose values stand in the table.
        uses: how often each row counts.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    return count_values(Kind.CATEGORICAL, [(table, features, uses)])


def merge_value_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """Returns the sum of counts tables of one kind: the counts of all their samples together.

    Holds the merged rows plus about as many unmerged ones, however many tables there are. Tables whose feature is
    dictionary-encoded are merged at less cost.

    Raises:
        SchemaError: if there is no table, or the tables are not all counts of the same kind.
    """
    held: list[pa.Table] = []
    schema: pa.Schema | None = None
    merged_rows = 0
    for table in tables:
        schema = _schema_of(table, [NUMERIC_COUNTS, CATEGORY_COUNTS] if schema is None else [schema])
        names = table.column(FEATURE)
        coded_names = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
        held.append(table.set_column(0, FEATURE, coded_names))
        if sum(part.num_rows for part in held) - merged_rows > max(merged_rows, _COMPACT_ROWS):
            held = [_summed(held)]
            merged_rows = held[0].num_rows
    if schema is None:
        raise SchemaError(Fault("value counts", "at least one table", "none", "merge the days of a window"))
    merged = _summed(held).cast(schema)
    keys = [(name, "ascending") for name in schema.names[:2]]
    return merged.take(pc.sort_indices(merged, sort_keys=keys)).combine_chunks()


def cast_counts(table: pa.Table, schemas: Sequence[pa.Schema]) -> pa.Table:
    """Returns the table with the one of the schemas whose names and types it has.

    Raises:
        SchemaError: if it has none of them.
    """
    return table.cast(_schema_of(table, schemas))


def _schema_of(table: pa.Table, schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Returns the one of the schemas whose names and types a table has; dictionary-encoded text is text."""
    types = [kind.value_type if pa.types.is_dictionary(kind) else kind for kind in table.schema.types]
    for schema in schemas:
        if table.schema.names == schema.names and types == schema.types:
            return schema
    expected = " or ".join(str(schema) for schema in schemas).replace("\n", ", ")
    got = str(table.schema.remove_metadata()).replace("\n", ", ")
    raise SchemaError(Fault("value counts", expected, got, "give tables of value counts of one kind"))


def sort_by_frequency(merged: pa.Table) -> pa.Table:
    """Returns category counts sorted by feature, then the most frequent first, then the smaller hash; nulls last."""
    order = [(FEATURE, "ascending"), (COUNT, "descending"), (VALUE_HASH, "ascending")]
    return merged.take(pc.sort_indices(merged, sort_keys=order)).combine_chunks()


def _summed(tables: Sequence[pa.Table]) -> pa.Table:
    """Returns one row per feature and value, in no order; the feature stays dictionary-encoded."""
    together = pa.concat_tables(tables).unify_dictionaries()
    names = together.column_names
    summed = together.group_by(names[:2], use_threads=False).aggregate([(COUNT, "sum")])
    return pa.table([summed.column(name) for name in (*names[:2], f"{COUNT}_sum")], names=names)


def code_columns(table: pa.Table, features: Sequence[Feature]) -> CodedTable:
    """Returns the features of a table in the form that is counted again and again at little cost.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    _check(table, features)
    return {feature.name: CodedValues.from_column(table.column(feature.name)) for feature in features}


def count_values(kind: Kind, groups: Iterable[tuple[pa.Table | CodedTable, Sequence[Feature], Uses]]) -> pa.Table:
    """Returns the counts of all features of one kind in several tables, each feature in one of them.

    Args:
        kind: numbers or categories.
        groups: tables of encoded rows, as they are or coded, the features that stand in each, and how often its rows count.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    counted: dict[str, tuple[pa.Array, Counts]] = {}
    for table, features, uses in groups:
        chosen = [feature for feature in features if feature.kind is kind]
        if isinstance(table, pa.Table):
            counted |= _counted_rows(table, chosen, uses)
        else:
            counted |= {feature.name: table[feature.name].count(uses) for feature in chosen}
    schema = NUMERIC_COUNTS if kind is Kind.NUMERIC else CATEGORY_COUNTS
    names = sorted(counted)
    lengths = [len(counted[name][0]) for name in names]
    columns = [
        pa.array(names, pa.string()).take(pa.array(np.repeat(np.arange(len(names)), lengths))),
        pa.concat_arrays([pa.nulls(0, schema.types[1]), *(counted[name][0] for name in names)]),
        pa.array(np.concatenate([np.zeros(0, np.int64), *(counted[name][1] for name in names)])),
    ]
    return pa.table(columns, schema=schema)


def _counted_rows(table: pa.Table, features: Sequence[Feature], uses: Uses) -> dict[str, tuple[pa.Array, Counts]]:
    """Returns the values of features and their counts; only rows that count are looked at."""
    _check(table, features)
    rows, of_rows = table.select([feature.name for feature in features]), uses
    if uses.used is not None:
        used, counts = uses.used
        rows, of_rows = rows.take(pa.array(used)), Uses(counts, uses.without)
    return {feature.name: CodedValues.from_column(rows.column(feature.name)).count(of_rows) for feature in features}


def _check(table: pa.Table, features: Sequence[Feature]) -> None:
    faults = []
    for feature in features:
        expected = pa.float32() if feature.kind is Kind.NUMERIC else pa.int64()
        actual = table.schema.field(feature.name).type if feature.name in table.column_names else None
        # The name of a list's element field differs between writers, so only its type is compared.
        element, depth = actual, 0
        while element is not None and ragged.is_list(element):
            element, depth = element.value_type, depth + 1
        if element != expected or depth != feature.depth:
            wanted = "list of " * feature.depth + str(expected)
            got = "no such column" if actual is None else str(actual)
            remedy = "count tables that feature generation wrote with this fg.json"
            faults.append(Fault(f"samples, feature {feature.name}", wanted, got, remedy))
    if faults:
        raise SchemaError(faults)
