"""What steps ask of a table engine: it runs Ibis expressions over stored partitions, and kernels over the parts of one.

Belongs here: what an engine is, and what is the same for all. Does not belong here: the expressions and kernels, which are
written once for every engine; the engines: DuckDB (`duckdb_engine.py`), Spark (`spark_engine.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import ibis
import pyarrow as pa

from dssm_assets.core.schema import TableSpec
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import TableStore


@dataclass(frozen=True)
class ByDay:
    """Several days of one table, read as one with a column `ds` that says which day a row is of."""

    manifests: tuple[Manifest, ...]


Bindable: TypeAlias = Manifest | list[Manifest] | ByDay | pa.Table
"""A partition, several partitions of one table (read as one, with or without their day), or a table in memory."""


BatchKernel: TypeAlias = Callable[[pa.RecordBatch], pa.RecordBatch]
"""A function of record batches, row by row independent: any cut of the rows gives the same rows."""
PartKernel: TypeAlias = Callable[[pa.Table, int], tuple[pa.Table, Any]]
"""A function of some consecutive rows of a partition and the position of the first: what it makes of them, and a report."""
ReportKernel: TypeAlias = Callable[[pa.Table, int], Any]
"""A function of some consecutive rows of a partition and the position of the first: a report."""
Acceptance: TypeAlias = Callable[[Sequence[Any]], bool]
"""Tells by a kernel's reports whether what it made is good."""


@dataclass(frozen=True)
class Target:
    """The partition that an engine writes.

    Attributes:
        spec: the table's contract.
        ds: the day.
        inputs: "asset/ds" -> digest of what it is made from.
        facts: kept in its manifest.
        is_shared: its files may be named by other days too.
        by_key: the column by which a query's rows are ordered and that they follow from, each from the inputs' rows of the
            same key alone (an input without such a column is there for all keys), so that keys may be taken in ranges.
    """

    spec: TableSpec
    ds: str
    inputs: Mapping[str, str]
    facts: Mapping[str, object] = field(default_factory=dict)
    is_shared: bool = False
    by_key: str | None = None


class Engine(Protocol):
    """What steps ask of an engine. Whichever it is, equal rows in equal order give equal files.

    Attributes:
        is_distributed: rows are worked on in processes elsewhere, and are better not brought here.
    """

    is_distributed: ClassVar[bool]

    def write_query(
        self,
        target: Target,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        arguments: Mapping[str, Any],
        kernel: BatchKernel | None = None,
    ) -> Manifest:
        """Writes the result of `expression(**tables, **arguments)`, each batch of it passed through the kernel."""
        ...

    def write_mapped(
        self,
        target: Target,
        source: Manifest,
        kernel: PartKernel,
        *,
        as_dictionaries: Sequence[str] = (),
        is_whole: bool = False,
        accepts: Acceptance | None = None,
    ) -> tuple[Manifest, list[Any]]:
        """Writes what a kernel makes of the rows of a partition, in their order; returns the reports too, in that order.

        Args:
            target: what is written.
            source: the partition that is read.
            kernel: also called with no rows, for the types of its columns.
            as_dictionaries: text columns that the kernel takes dictionary-encoded as they are stored.
            is_whole: the kernel costs less on many rows: where one process does all the work, it is given them at once.
            accepts: what it finds bad does not take the place of a partition that stands, which is then returned.
        """
        ...

    def reports(self, source: Manifest, kernel: ReportKernel, columns: Sequence[str]) -> list[Any]:
        """Returns what a kernel reports on the rows of a partition, in their order, some columns of them; writes nothing."""
        ...


def partition_to_keep(store: TableStore, target: Target, accepts: Acceptance | None, reports: Sequence[Any]) -> Manifest | None:
    """Returns the partition that kept in the place of what a accepts finds bad; None: what was made takes the place."""
    return None if accepts is None or accepts(reports) else store.partitions.find(target.spec.name, target.ds)


def manifests_of(value: Manifest | list[Manifest] | ByDay) -> list[Manifest]:
    """Returns the partitions that a bindable value consists of."""
    return list(value.manifests) if isinstance(value, ByDay) else value if isinstance(value, list) else [value]


def contract_of(result: ibis.Table) -> pa.Schema:
    """Returns the types that every engine writes: the expression's own, `large_` and nullability variants folded."""
    return pa.schema([pa.field(column.name, _plain(column.type)) for column in result.schema().to_pyarrow()])


def kernel_schema(schema: pa.Schema, kernel: BatchKernel | None) -> pa.Schema:
    """Returns the types of what a kernel makes of batches of a schema."""
    return schema if kernel is None else kernel(pa.RecordBatch.from_pylist([], schema=schema)).schema


def _plain(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_large_list(kind) or pa.types.is_list(kind):
        return pa.list_(_plain(kind.value_type))
    return pa.string() if pa.types.is_large_string(kind) else kind
