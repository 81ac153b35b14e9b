"""Feature columns as embedding indices, with the weights of weighted features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ids import Column
from dssm_assets.core.arrays.ragged import build_lists, combine_chunks, flatten, is_list, list_lengths
from dssm_assets.core.columns import feature_weights
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.samples.sample_tables import refuse_collisions, require_columns

MULTI = pa.list_(pa.int32())
WEIGHTS = pa.list_(pa.float32())


class Bucketize(Protocol):
    """Turns the encoded values of a feature into embedding indices, 0 for a missing value."""

    def __call__(self, feature: str, column: pa.Array, /) -> pa.Array:
        """Returns int32 for a column of single values and list<int32> for a column of lists, without nulls."""


@dataclass(frozen=True)
class IndexedFeatures:
    """Features of a table that become embedding indices.

    Attributes:
        bucketize: returns the embedding indices of a feature's values.
        names: the features, which are columns of the table.
        weighted: the features among them that have a column of weights.
    """

    bucketize: Bucketize
    names: Sequence[str]
    weighted: Collection[str] = ()

    @property
    def columns(self) -> list[str]:
        """The columns that are read and returned: each feature, followed by its weights if it has any."""
        return [column for name in self.names for column in self._columns_of(name)]

    def to_indices(self, table: pa.Table, where: str) -> dict[str, pa.Array]:
        """Returns column -> embedding indices (int32 or list<int32>) or weights (list<float32> of equal lengths).

        Args:
            table: holds the columns; a null list is an empty one.

        Raises:
            SchemaError: a column is missing, two features need one column, or weights do not fit the values.
        """
        refuse_collisions(where, {f"feature {name}": self._columns_of(name) for name in self.names})
        require_columns(where, table.column_names, self.columns)
        found: dict[str, pa.Array] = {}
        for name in self.names:
            found[name] = self.bucketize(name, combine_chunks(table.column(name)))
            if name in self.weighted:
                column = feature_weights(name)
                found[column] = _check_weights(table.column(column), found[name], f"{where}, column {column}")
        return found

    def types(self, encoded: pa.Schema, where: str) -> dict[str, pa.DataType]:
        """Returns column -> type of what `to_indices` returns for a table of this schema, which may have more columns.

        Raises:
            SchemaError: as `to_indices`.
        """
        return {name: column.type for name, column in self.to_indices(encoded.empty_table(), where).items()}

    def _columns_of(self, name: str) -> list[str]:
        return [name, feature_weights(name)] if name in self.weighted else [name]


def _check_weights(column: Column, indices: pa.Array, where: str) -> pa.Array:
    """Returns the weights, one per value, with an empty list for null."""
    weights = combine_chunks(column)
    if not is_list(weights.type) or weights.type.value_type != pa.float32() or indices.type != MULTI:
        got = f"{weights.type} for {indices.type}"
        raise SchemaError(Fault(where, f"{WEIGHTS} for {MULTI}", got, "write what feature generation returned"))
    flat, offsets = flatten(weights)
    differing = int(np.count_nonzero(np.diff(offsets) != list_lengths(indices)))
    if differing or flat.null_count:
        got = f"another number in {differing} rows, {flat.null_count} nulls"
        raise SchemaError(Fault(where, "one weight per value", got, "write a feature and its weights together"))
    return build_lists(flat, offsets)
