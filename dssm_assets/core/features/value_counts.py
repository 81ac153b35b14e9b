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

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import COUNT, FEATURE, VALUE, VALUE_HASH
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import lists
from dssm_assets.core.features.expressions import Kind
from dssm_assets.core.features.spec import Feature

NUMERIC_COUNTS: Final = pa.schema([(FEATURE, pa.string()), (VALUE, pa.float32()), (COUNT, pa.int64())])
CATEGORY_COUNTS: Final = pa.schema([(FEATURE, pa.string()), (VALUE_HASH, pa.int64()), (COUNT, pa.int64())])

Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Uses:
    """How often each row of a table counts.

    Attributes:
        counts: of each row; None: every row once.
        without: samples that have no row at all: each counts as one without any value.
    """

    counts: Counts | None = None
    without: int = 0


ONCE: Final = Uses()

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

    Holds the merged rows plus about as many unmerged ones, however many tables there are.

    Raises:
        SchemaError: if there is no table, or the tables are not all counts of the same kind.
    """
    held: list[pa.Table] = []
    merged_rows = 0
    for table in tables:
        held.append(as_counts(table, [held[0].schema] if held else [NUMERIC_COUNTS, CATEGORY_COUNTS]))
        if sum(part.num_rows for part in held) - merged_rows > max(merged_rows, _COMPACT_ROWS):
            held = [_merged(held)]
            merged_rows = held[0].num_rows
    if not held:
        raise SchemaError(Fault("value counts", "at least one table", "none", "merge the days of a window"))
    return _merged(held)


def as_counts(table: pa.Table, schemas: Sequence[pa.Schema]) -> pa.Table:
    """Returns the table with the one of the schemas whose names and types it has.

    Raises:
        SchemaError: if it has none of them.
    """
    for schema in schemas:
        if table.schema.names == schema.names and table.schema.types == schema.types:
            return pa.table(table.columns, schema=schema)
    expected = " or ".join(str(schema) for schema in schemas).replace("\n", ", ")
    got = str(table.schema.remove_metadata()).replace("\n", ", ")
    raise SchemaError(Fault("value counts", expected, got, "give tables of value counts of one kind"))


def by_frequency(merged: pa.Table) -> pa.Table:
    """Returns category counts sorted by feature, then the most frequent first, then the smaller hash; nulls last."""
    order = [(FEATURE, "ascending"), (COUNT, "descending"), (VALUE_HASH, "ascending")]
    return merged.take(pc.sort_indices(merged, sort_keys=order)).combine_chunks()


def _merged(tables: Sequence[pa.Table]) -> pa.Table:
    together = pa.concat_tables(tables)
    key = together.column_names[1]
    summed = together.group_by([FEATURE, key], use_threads=False).aggregate([(COUNT, "sum")])
    table = pa.table([summed.column(FEATURE), summed.column(key), summed.column(f"{COUNT}_sum")], schema=together.schema)
    keys = [(FEATURE, "ascending"), (key, "ascending")]
    return table.take(pc.sort_indices(table, sort_keys=keys)).combine_chunks()


def count_values(kind: Kind, groups: Iterable[tuple[pa.Table, Sequence[Feature], Uses]]) -> pa.Table:
    """Returns the counts of all features of one kind in several tables, each feature in one of them.

    Args:
        kind: numbers or categories.
        groups: tables of encoded rows, the features that stand in each, and how often its rows count.

    Raises:
        SchemaError: naming every feature column that is missing or has another type.
    """
    counted: dict[str, tuple[pa.Array, Counts]] = {}
    for table, features, uses in groups:
        chosen = [feature for feature in features if feature.kind is kind]
        _check(table, chosen)
        is_used = None if uses.counts is None else np.flatnonzero(uses.counts)
        rows = table if is_used is None else table.select([feature.name for feature in chosen]).take(pa.array(is_used))
        weights = np.ones(table.num_rows, np.int64) if uses.counts is None else uses.counts[is_used]
        for feature in chosen:
            counted[feature.name] = _value_counts(*_values(rows.column(feature.name), weights), uses.without)
    schema = NUMERIC_COUNTS if kind is Kind.NUMERIC else CATEGORY_COUNTS
    names = sorted(counted)
    lengths = [len(counted[name][0]) for name in names]
    columns = [
        pa.array(names, pa.string()).take(pa.array(np.repeat(np.arange(len(names)), lengths))),
        pa.concat_arrays([pa.nulls(0, schema.types[1]), *(counted[name][0] for name in names)]),
        pa.array(np.concatenate([np.zeros(0, np.int64), *(counted[name][1] for name in names)])),
    ]
    return pa.table(columns, schema=schema)


def _value_counts(values: pa.Array, weights: Counts, without: int) -> tuple[pa.Array, Counts]:
    """Returns the distinct values, ascending with null last, and how often each counts; `without` nulls come on top."""
    if pa.types.is_float32(values.type):
        numbers = values.to_numpy(zero_copy_only=False) + np.float32(0)
        values = pa.array(numbers, pa.float32(), mask=np.isnan(numbers))
    encoded = values.dictionary_encode()
    none = len(encoded.dictionary)
    codes = encoded.indices.fill_null(none).to_numpy(zero_copy_only=False)
    # bincount sums weights as floats, exactly as long as they stay below 2^53.
    counts = np.bincount(codes, weights=weights, minlength=none + 1).astype(np.int64)
    counts[none] += without
    order = np.append(np.argsort(encoded.dictionary.to_numpy(zero_copy_only=False)), none)
    order = order[counts[order] > 0]
    distinct = pa.concat_arrays([encoded.dictionary, pa.nulls(1, values.type)])
    return distinct.take(pa.array(order)), counts[order]


def _values(column: pa.ChunkedArray, weights: Counts) -> tuple[pa.Array, Counts]:
    """Returns the innermost values and a null for every list without any, each with the weight of its row."""
    array = lists.one_array(column)
    while lists.is_list(array.type):
        flat, offsets = lists.flatten(array)
        lengths = np.diff(offsets)
        if not lists.is_list(flat.type):
            flat = pa.concat_arrays([flat, pa.nulls(int((lengths == 0).sum()), flat.type)])
            return flat, np.concatenate([np.repeat(weights, lengths), weights[lengths == 0]])
        array, weights = flat, np.repeat(weights, lengths)
    return array, weights


def _check(table: pa.Table, features: Sequence[Feature]) -> None:
    faults = []
    for feature in features:
        expected = pa.float32() if feature.kind is Kind.NUMERIC else pa.int64()
        actual = table.schema.field(feature.name).type if feature.name in table.column_names else None
        # The name of a list's element field differs between writers, so only its type is compared.
        element, depth = actual, 0
        while element is not None and lists.is_list(element):
            element, depth = element.value_type, depth + 1
        if element != expected or depth != feature.depth:
            wanted = "list of " * feature.depth + str(expected)
            got = "no such column" if actual is None else str(actual)
            remedy = "count tables that feature generation wrote with this fg.json"
            faults.append(Fault(f"samples, feature {feature.name}", wanted, got, remedy))
    if faults:
        raise SchemaError(faults)
