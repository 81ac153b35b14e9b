"""Which columns of a parquet file are stored as codes of a dictionary, and which are compressed.

Belongs here: that choice. Does not belong here: writing (`table_store.py`).
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

_SEEN_ROWS = 16_384
_REPEATING_FRAC = 0.75
"""Share of different values, among the first rows seen, up to which numbers get a dictionary."""


def repeating_columns(first: pa.Table) -> bool | list[str]:
    """Returns the parquet columns that are stored as codes of a dictionary, by the first row group; True: all.

    Numbers that hardly ever repeat (ids of users, times) are stored as they are: their dictionary would be larger than
    they are and cost more than all the rest of writing them.
    """
    seen = first.slice(0, _SEEN_ROWS)
    numbers = [field.name for field in seen.schema if pa.types.is_primitive(field.type) and field.type.bit_width >= 32]
    odd = {name for name in numbers if pc.count_distinct(seen.column(name)).as_py() > _REPEATING_FRAC * seen.num_rows}
    odd |= {field.name for field in seen.schema if _is_vector(field.type)}
    return [path for field in seen.schema if field.name not in odd for path in _leaves(field.name, field.type)] if odd else True


def compression_by_column(schema: pa.Schema, codec: str) -> dict[str, str]:
    """Returns the codec of every parquet column: none for vectors, whose floats lose a tenth of their size for most of the
    time that it takes to write and to read them."""
    return {path: "none" if _is_vector(field.type) else codec for field in schema for path in _leaves(field.name, field.type)}


def _is_vector(kind: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_list(kind) and pa.types.is_floating(kind.value_type))


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """Returns the parquet columns that a column consists of: one, but for nested ones."""
    if pa.types.is_struct(kind):
        return [leaf for field in kind for leaf in _leaves(f"{path}.{field.name}", field.type)]
    if pa.types.is_map(kind):
        return [f"{path}.key_value.key", *_leaves(f"{path}.key_value.value", kind.item_type)]
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return _leaves(f"{path}.list.element", kind.value_type) if is_list else [path]
