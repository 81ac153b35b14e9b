"""Counts the values of each feature on a day. The counts of a window's days are merged for its bins and vocabularies.

A counts table has one row per feature and distinct value: feature, value (float32) or value_hash (int64), count (int64),
sorted by feature and value. The last row of a feature has a null value and counts missing values. Merging adds integers per
key, so any order and any grouping of the days gives the same table.

The features of users and items are counted in their feature tables. Each row counts as often as samples use it. The result is
the same as counting samples with copied features, and costs less.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays import ragged
from dssm_assets.core.columns import COUNT, FEATURE, VALUE, VALUE_HASH
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features.column_values import insert_default
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.fg_tables import CATEGORY_VALUE_COUNTS, NUMERIC_VALUE_COUNTS
from dssm_assets.core.features.spec import Feature

Counts = np.ndarray[Any, np.dtype[np.int64]]

_SCHEMAS: Final = {Kind.NUMERIC: NUMERIC_VALUE_COUNTS.schema, Kind.CATEGORICAL: CATEGORY_VALUE_COUNTS.schema}

_COMPACT_ROWS: Final = 1 << 20
"""Up to so many rows, days are kept unmerged in memory and then merged at once."""


def merge_value_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """Sums one or more counts tables, all of numbers or all of categories.

    Memory holds the merged rows and about as many unmerged rows, whatever the number of tables. Merging is faster if the
    column `feature` is dictionary-encoded.
    """
    pending: list[pa.Table] = []
    merged_rows = 0
    for table in tables:
        names = table.column(FEATURE)
        coded_names = names if pa.types.is_dictionary(names.type) else names.dictionary_encode()
        pending.append(table.set_column(0, FEATURE, coded_names))
        if sum(part.num_rows for part in pending) - merged_rows > max(merged_rows, _COMPACT_ROWS):
            pending = [_sum(pending)]
            merged_rows = pending[0].num_rows
    merged = _sum(pending)
    merged = merged.cast(_SCHEMAS[Kind.NUMERIC if VALUE in merged.column_names else Kind.CATEGORICAL])
    return merged.sort_by([(name, "ascending") for name in merged.column_names[:2]]).combine_chunks()


def sort_by_frequency(merged: pa.Table) -> pa.Table:
    """Returns category counts sorted by feature, then frequency (highest first), then hash; nulls last."""
    return merged.sort_by([(FEATURE, "ascending"), (COUNT, "descending"), (VALUE_HASH, "ascending")]).combine_chunks()


def _sum(tables: Sequence[pa.Table]) -> pa.Table:
    """Adds up rows with equal feature and value. The result has no order; its feature column is dictionary-encoded."""
    rows = pa.concat_tables(tables).unify_dictionaries()
    names = rows.column_names
    summed = rows.group_by(names[:2], use_threads=False).aggregate([(COUNT, "sum")])
    return pa.table([summed.column(name) for name in (*names[:2], f"{COUNT}_sum")], names=names)


def count_values(kind: Kind, table: pa.Table, features: Sequence[Feature], uses: Counts | None = None) -> pa.Table:
    """Counts the values of all features of one kind in a table. The result is unsorted: `merge_value_counts` sorts it.

    Each value of a multi-valued feature counts. An empty list, or a NaN, counts as one missing value. -0.0 counts as 0.0.
    Features that share an embedding are counted separately.

    Args:
        uses: number of times that each row counts, above 0 [R]. None: each row counts once.

    Raises:
        SchemaError: a feature column is missing or has another type. All are named.
    """
    chosen = [feature for feature in features if feature.kind is kind]
    _check(table, chosen)
    weights = np.ones(table.num_rows, np.int64) if uses is None else uses
    schema = _SCHEMAS[kind]
    counted = [_count_column(feature.name, table.column(feature.name), weights, schema) for feature in chosen]
    return pa.concat_tables(counted) if counted else schema.empty_table()


def count_missing(kind: Kind, features: Sequence[Feature], count: int) -> pa.Table:
    """Returns the counts of `count` samples without any feature of this kind."""
    names = [feature.name for feature in features if feature.kind is kind] if count else []
    schema = _SCHEMAS[kind]
    return pa.table([names, pa.nulls(len(names), schema.types[1]), [count] * len(names)], schema=schema)


def _count_column(name: str, column: pa.ChunkedArray, weights: Counts, schema: pa.Schema) -> pa.Table:
    array = ragged.combine_chunks(column)
    if ragged.is_list(array.type):
        array, offsets = _flatten(array)
        weights = np.repeat(weights, np.diff(offsets))
    if pa.types.is_float32(array.type):
        numbers = array.fill_null(np.nan).to_numpy() + np.float32(0)
        array = ragged.mask_numbers(numbers, np.isnan(numbers))
    encoded = array.dictionary_encode(null_encoding="encode")
    # bincount adds weights as floats; their sums are exact below 2^53.
    counts = np.bincount(encoded.indices.to_numpy(), weights, len(encoded.dictionary)).astype(np.int64)
    return pa.table([pa.repeat(name, len(counts)), encoded.dictionary, counts], schema=schema)


def _flatten(array: pa.Array) -> tuple[pa.Array, ragged.Offsets]:
    """Returns the innermost values of lists, with a null for an empty list, and the offsets of the rows."""
    flat, offsets = ragged.flatten(array)
    if ragged.is_list(flat.type):
        values, inner_offsets = _flatten(flat)
        return values, inner_offsets[offsets]
    positions, filled_offsets = insert_default(np.arange(len(flat)), offsets, -1)
    return flat.take(ragged.mask_numbers(positions, positions < 0)), filled_offsets


def _check(table: pa.Table, features: Sequence[Feature]) -> None:
    faults = []
    remedy = "count tables written by feature generation with this fg.json"
    for feature in features:
        expected = "list of " * feature.depth + ("float" if feature.kind is Kind.NUMERIC else "int64")
        got = _describe_type(table.schema.field(feature.name).type) if feature.name in table.column_names else "no such column"
        if got != expected:
            faults.append(Fault(f"samples, feature {feature.name}", expected, got, remedy))
    SchemaError.raise_if(faults)


def _describe_type(kind: pa.DataType) -> str:
    """Returns a type as text. Leaves out the name of a list's element field, because it depends on the writer."""
    return f"list of {_describe_type(kind.value_type)}" if ragged.is_list(kind) else str(kind)
