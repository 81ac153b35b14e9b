"""The interface of a table engine. It runs Ibis expressions over stored partitions, and kernels over the rows of a partition.

Belongs here: the interface, and code shared by all engines. Does not belong here: the engines (`duckdb.py`, `spark.py`);
expressions and kernels, because these are written once for all engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import pyarrow as pa

from dssm_assets.core.schema import TableSpec
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import TableStore

if TYPE_CHECKING:
    import ibis

DAY: Final = "ds"
"""If several days are read as one table, this column has the day of a row."""


@dataclass(frozen=True)
class ByDay:
    """Several days of a table, read as one table. A text column `ds` has each row's day."""

    manifests: tuple[Manifest, ...]


Bindable: TypeAlias = Manifest | list[Manifest] | ByDay | pa.Table
"""A partition, several partitions of a table (read as one table, with or without their day), or a table in memory."""


BatchKernel: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch]
"""A function of record batches. It gets each batch once, in order. The batches' sizes must not change its rows."""
PartKernel: TypeAlias = Callable[[pa.Table, int], tuple[pa.Table, Any]]
"""A function of consecutive rows of a partition and the first row's position. Returns a table and a report."""
ReportKernel: TypeAlias = Callable[[pa.Table, int], Any]
"""A function of consecutive rows of a partition and the first row's position. Returns a report."""
Acceptance: TypeAlias = Callable[[Sequence[Any]], bool]
"""Decides by a kernel's reports whether its result is published."""


@dataclass(frozen=True)
class Target:
    """The partition that an engine writes.

    Attributes:
        inputs: "asset/ds" -> digest of every input.
        is_shared: other days' manifests may list its files too.
        by_key: the ordering column, if each row depends only on input rows with the same key and on inputs without this
            column. The query may then run range by range of keys.
    """

    spec: TableSpec
    ds: str
    inputs: Mapping[str, str]
    facts: Mapping[str, object] = field(default_factory=dict)
    is_shared: bool = False
    by_key: str | None = None


class Engine(Protocol):
    """A table engine. With every engine, equal rows in equal order give equal files."""

    def write_query(
        self,
        target: Target,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
        kernel: BatchKernel | None = None,
    ) -> Manifest:
        """Writes the result of `expression(**tables, **arguments)`, with the kernel applied to each batch.

        Args:
            expression: a pure function of tables and arguments. An argument `ds` is a `QueryDay`.
            arguments: hashable values.
        """
        ...

    def write_mapped(
        self,
        target: Target,
        source: Manifest,
        kernel: PartKernel,
        *,
        as_dictionaries: Sequence[str] = (),
        accepts: Acceptance | None = None,
    ) -> tuple[Manifest, list[Any]]:
        """Applies a kernel to the rows of a partition, and writes the returned tables in order. Returns manifest and reports.

        Args:
            kernel: also called without rows, to learn the types of its columns.
            as_dictionaries: text columns to pass dictionary-encoded, as they are stored.
            accepts: judges the reports. If it refuses, and the partition exists already, the existing partition is kept.
        """
        ...

    def reports(self, source: Manifest, kernel: ReportKernel, columns: Sequence[str]) -> list[Any]:
        """Returns a kernel's reports on some columns of a partition, in row order. Writes nothing."""
        ...


def partition_to_keep(store: TableStore, target: Target, accepts: Acceptance | None, reports: Sequence[Any]) -> Manifest | None:
    """Returns the existing partition if the new result is refused. None: publish the new result."""
    return None if accepts is None or accepts(reports) else store.partitions.find(target.spec.name, target.ds)


def manifests_of(value: Bindable) -> list[Manifest]:
    """Returns the partitions of an input; none for a table in memory."""
    if isinstance(value, pa.Table):
        return []
    return list(value.manifests) if isinstance(value, ByDay) else value if isinstance(value, list) else [value]


def stored_inputs(inputs: Mapping[str, Bindable]) -> list[Manifest]:
    return [stored for value in inputs.values() for stored in manifests_of(value)]


def contract_of(result: ibis.Table) -> pa.Schema:
    """Returns the types that every engine writes: the expression's types, without `large_` variants and nullability."""
    return pa.schema([pa.field(column.name, _plain(column.type)) for column in result.schema().to_pyarrow()])


def kernel_schema(schema: pa.Schema, kernel: BatchKernel | None) -> pa.Schema:
    return schema if kernel is None else kernel(pa.RecordBatch.from_pylist([], schema=schema)).schema


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) else kind
