"""Looking ids up by their distinct values: a column that is stored dictionary-encoded repeats each id many times.

Belongs here: dictionary-encoded columns of ids. Does not belong here: the index itself (`id_index.py`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.samples.id_index import Column, IdIndex


def rows_of(index: IdIndex, ids: Column, *, where: str) -> npt.NDArray[np.int32]:
    """Returns what `index.lookup` does, also of a dictionary-encoded column, of which each distinct id is looked up once.

    The dictionaries must be such as parquet files have: no value comes twice in one.

    Raises:
        SchemaError: as `IdIndex.lookup`.
    """
    if not pa.types.is_dictionary(ids.type):
        return index.lookup(ids, where=where)
    encoded = ids if isinstance(ids, pa.ChunkedArray) else pa.chunked_array([ids])
    # A null may stand in the dictionary's values too, which null_count does not see.
    has_null = encoded.null_count > 0 or any(chunk.dictionary.null_count for chunk in encoded.chunks)
    if has_null or not encoded.num_chunks:
        return index.lookup(encoded.cast(ids.type.value_type), where=where)
    chunks = encoded.unify_dictionaries().chunks
    distinct = chunks[0].dictionary
    is_few = len(distinct) < len(index) and distinct.type == index.ids.type
    rows = _rows_of_few(index.ids, distinct) if is_few else index.lookup(distinct, where=where)
    found: npt.NDArray[np.int32] = np.concatenate([rows[chunk.indices.to_numpy()] for chunk in chunks])
    return found


def _rows_of_few(ids: pa.Array, distinct: pa.Array) -> npt.NDArray[np.int32]:
    """Returns the row of each distinct id: the fewer ones are hashed, the many are looked up among them."""
    places = pc.index_in(ids, value_set=distinct)
    found = np.flatnonzero(places.is_valid())
    rows = np.full(len(distinct), -1, np.int32)
    rows[places.drop_null().to_numpy()] = found
    return rows
