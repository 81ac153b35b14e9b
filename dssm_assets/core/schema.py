"""Table contracts: the columns of a table, their meaning, the key, and checks of a table against its contract.

Belongs here: `ColumnSpec`, `TableSpec` and the checks. Does not belong here: the contract of one asset's table; each package
has its own module of contracts (`canonical_tables`, `raw_feature_tables`, `fg_tables`, `sample_tables`, `evaluation_tables`).
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.errors import Fault, SchemaError

ID_KINDS = "an integer or a string"
_BLOCK_ROWS = 1 << 20


@dataclass(frozen=True)
class ColumnSpec:
    """One column: its name, its Arrow type (None: the source decides, as for ids) and its meaning."""

    name: str
    type: pa.DataType | None
    description: str
    is_nullable: bool = False


@dataclass(frozen=True)
class TableSpec:
    """The contract of a table.

    Attributes:
        name: the asset's name, also the folder of the table.
        grain: one sentence, "one row per ...".
        key: columns that identify a row; rows are sorted by them.
        columns: columns that every partition has.
        extra: pattern of a column name -> meaning, for columns that depend on the configuration (statistics, features).
        is_hot: the whole table is read many times, so it is compressed for speed (a slower codec gains little on numbers).
    """

    name: str
    grain: str
    key: tuple[str, ...]
    columns: tuple[ColumnSpec, ...]
    extra: Mapping[str, str] = field(default_factory=dict)
    is_hot: bool = False

    @property
    def schema(self) -> pa.Schema:
        """Returns the columns as an Arrow schema. Every column must have a type."""
        return pa.schema([(column.name, column.type) for column in self.columns])

    def describe(self, column: str) -> str:
        """Returns the meaning of a column: by its name, else by the longest matching pattern, else ""."""
        for spec in self.columns:
            if spec.name == column:
                return spec.description
        fitting = [pattern for pattern in self.extra if fnmatch.fnmatchcase(column, pattern)]
        return self.extra[max(fitting, key=len)] if fitting else ""


def is_id_type(arrow_type: pa.DataType) -> bool:
    """Returns whether a column of this type may hold ids: integers or text, never floats."""
    return bool(pat.is_integer(arrow_type) or pat.is_string(arrow_type) or pat.is_large_string(arrow_type))


def missing_columns(where: str, present: Iterable[str], required: Iterable[str], remedy: str) -> list[Fault]:
    """Returns a fault for each required column that is missing."""
    existing = list(present)
    got = f"columns {', '.join(existing) or '(none)'}"
    missing = [name for name in dict.fromkeys(required) if name not in existing]
    return [Fault(f"{where}, column {name}", "the column to exist", got, remedy) for name in missing]


def check_schema(spec: TableSpec, schema: pa.Schema) -> None:
    """Raises a SchemaError with one fault per column of the contract that is missing or has the wrong type."""
    names = [column.name for column in spec.columns]
    faults = missing_columns(f"table {spec.name}", schema.names, names, "add it or map it in the configuration")
    for column in (column for column in spec.columns if column.name in schema.names):
        where, actual = f"table {spec.name}, column {column.name}", schema.field(column.name).type
        if column.type is None:
            if column.name.endswith("_id") and not is_id_type(actual):
                faults.append(Fault(where, ID_KINDS, str(actual), "cast the column before it is read"))
        elif actual != column.type:
            faults.append(Fault(where, str(column.type), str(actual), "write the column with this type"))
    SchemaError.raise_if(faults)


def check_no_nulls(spec: TableSpec, table: pa.Table) -> None:
    """Raises a SchemaError with one fault per column that has nulls and must not have any."""
    faults = []
    for column in spec.columns:
        nulls = table.column(column.name).null_count if column.name in table.column_names else 0
        if nulls and not column.is_nullable:
            where, got = f"table {spec.name}, column {column.name}", f"{nulls} nulls in {table.num_rows} rows"
            faults.append(Fault(where, "no nulls", got, "drop or fix those rows in the source"))
    SchemaError.raise_if(faults)


def has_repeated(ids: pa.Array) -> bool:
    """Returns whether an id occurs twice. Ids must not be null. They are sorted, because a hash table takes several times the memory."""
    order = pc.sort_indices(ids)
    for begin in range(0, len(ids) - 1, _BLOCK_ROWS):
        here = ids.take(order.slice(begin, _BLOCK_ROWS + 1))
        if pc.any(pc.equal(here.slice(0, len(here) - 1), here.slice(1))).as_py():
            return True
    return False
