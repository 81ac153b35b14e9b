"""Converts feature columns to embedding indices, with the weights of weighted features."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from dssm_assets.core.arrays.ragged import build_lists, combine_chunks, flatten
from dssm_assets.core.columns import feature_weights
from dssm_assets.core.samples.sample_tables import require_columns

Bucketize = Callable[[str, pa.Array], pa.Array]
"""Turns the encoded values of a feature into embedding indices, 0 for a missing value.

The result has no nulls: int32 for a column of single values, list<int32> for a column of lists.
"""


@dataclass(frozen=True)
class IndexedFeatures:
    """Converts some features of a table to embedding indices.

    Attributes:
        bucketize: returns the embedding indices of a feature's values.
        names: the features. Each is a column of the table.
        weighted: the weighted features among them. Each has a second column with its weights.
    """

    bucketize: Bucketize
    names: Sequence[str]
    weighted: Collection[str] = ()

    @property
    def columns(self) -> list[str]:
        """Returns the columns to read: each feature, followed by its weights if it has any."""
        weights = {name: [feature_weights(name)] for name in self.weighted}
        return [column for name in self.names for column in (name, *weights.get(name, []))]

    def to_indices(self, table: pa.Table, where: str) -> dict[str, pa.Array]:
        """Returns column -> embedding indices (int32 or list<int32>) or weights (list<float32> of equal lengths).

        Args:
            table: has the columns in `columns`. A null list counts as an empty list.

        Raises:
            SchemaError: a column is missing.
        """
        require_columns(where, table.column_names, self.columns)
        found: dict[str, pa.Array] = {}
        for name in self.names:
            found[name] = self.bucketize(name, combine_chunks(table.column(name)))
            if name in self.weighted:
                column = feature_weights(name)
                found[column] = build_lists(*flatten(combine_chunks(table.column(column))))
        return found

    def to_table(self, rows: pa.Table | pa.RecordBatch, where: str) -> pa.Table:
        """Returns the columns of `to_indices` as a table. It has the same number of rows, even without any feature."""
        table = rows if isinstance(rows, pa.Table) else pa.Table.from_batches([rows])
        indices = self.to_indices(table, where)
        return pa.Table.from_arrays([*indices.values()], [*indices]) if indices else table.select([])

    def types(self, encoded: pa.Schema, where: str) -> dict[str, pa.DataType]:
        """Returns column -> type of the result of `to_indices` for a table with this schema. Other columns are ignored."""
        return {name: column.type for name, column in self.to_indices(encoded.empty_table(), where).items()}
