"""What this package asks of a bucketizer, and the check of what it returns.

Belongs here: the protocol and its guard. Does not belong here: how a value becomes a bucket
(`core/features/bucketizer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.samples.id_index import Column, one_array

SINGLE = pa.int32()
MULTI = pa.list_(pa.int32())


class Bucketize(Protocol):
    """Turns encoded values of a feature into embedding indices, 0 for a missing value."""

    def __call__(self, feature: str, column: pa.Array, /) -> pa.Array:
        """Returns int32 for a column of single values and list<int32> for a column of lists, without nulls."""


def embedding_index(bucketize: Bucketize, feature: str, column: Column) -> pa.Array:
    """Returns the embedding indices of a column, int32 or list<int32>, as many as the column has rows and none null.

    Raises:
        SchemaError: the bucketizer returned another type, another number of rows, or nulls.
    """
    whole = one_array(column)
    found = one_array(bucketize(feature, whole))
    where = f"feature {feature}, embedding indices"
    is_list = pa.types.is_list(found.type) or pa.types.is_large_list(found.type)
    values_type = found.type.value_type if is_list else found.type
    if values_type != SINGLE:
        raise SchemaError(Fault(where, f"{SINGLE} or {MULTI}", str(found.type), "mend the bucketizer"))
    if len(found) != len(whole):
        raise SchemaError(Fault(where, f"{len(whole)} rows", f"{len(found)} rows", "mend the bucketizer"))
    null_count = found.null_count + (found.flatten().null_count if is_list else 0)
    if null_count:
        raise SchemaError(Fault(where, "0 for a missing value", f"{null_count} nulls", "mend the bucketizer"))
    return found.cast(MULTI) if is_list else found


def embedding_indices(bucketize: Bucketize, features: Sequence[str], table: pa.Table) -> dict[str, pa.Array]:
    """Returns feature -> embedding indices for the given columns of a table, in the given order."""
    return {feature: embedding_index(bucketize, feature, table.column(feature)) for feature in features}
