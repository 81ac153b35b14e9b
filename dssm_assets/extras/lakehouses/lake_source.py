"""What Delta and Iceberg tables share: one piece, read as of the version at which the table was opened, and what bounds of its files tell.

Belongs here: days, newest times, errors. Does not belong here: calls of deltalake and pyiceberg (`delta_source.py`, `iceberg_source.py`).
"""

from __future__ import annotations

import importlib
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.config.pipeline import Layout
from dssm_assets.core.errors import ConfigError, Fault, InputError
from dssm_assets.storage.sources.source import DayBounds, Source, SourcePiece, find_day
from dssm_assets.storage.sources.source_columns import DS
from dssm_assets.storage.sources.source_files import SourceMissingError

Bounds = tuple[Any, Any] | None
"""The smallest and the largest value of a column in a file, None where only reading it tells."""
_LONGEST: Final = 300
_SECRET: Final = re.compile(r"secret|token|password|key|credential|uri", re.IGNORECASE)
_LOGIN: Final = re.compile(r"(?<=//)[^/@\s]*@")
_ANSI: Final = re.compile(r"\x1b\[[0-9;]*m")
_S3_OPTIONS: Final = ("endpoint_url", "key", "secret", "token", "region_name")
_KEPT: Final = (
    "see that the table is there and that its files outlive a run (vacuum, expire_snapshots), then launch the run again: "
    "what was stored before is unchanged"
)


class LakehouseError(InputError):
    """A Delta or Iceberg table cannot be read as of a version: a file or a snapshot is gone, or its library lacks a feature of it."""


@dataclass(frozen=True)
class LakeSource(Source):
    """A Delta or Iceberg table as of one version."""

    @property
    def where(self) -> str:
        return f"table {self.name}, {f'{self.table.table} of catalog ' if self.table.table else ''}{self.table.uri}"

    @abstractmethod
    def schema(self) -> pa.Schema:
        """Returns the columns."""

    @abstractmethod
    def read(self, columns: Sequence[str], days: DayBounds | None = None, ds: Any = None) -> Iterator[pa.RecordBatch]:
        """Yields columns of all rows, of those of some days, or of those with a value of `ds`; opens no file that cannot have any."""

    @abstractmethod
    def bounds(self, column: str) -> list[Bounds]:
        """Returns the bounds of a column in each file."""

    def days(self) -> dict[str, list[str]]:
        """Returns day -> its values of the column `ds`, as text; a file with one value is not opened."""
        with self.reading():
            if DS not in self.schema().names:
                return {}
            values, bounds = set(), self.bounds(DS)
            if all(found is not None and found[0] == found[1] for found in bounds):
                values = {found[0] for found in bounds if found is not None}
            else:
                for batch in self.read([DS]):
                    values.update(batch.column(0).unique().to_pylist())
        days: dict[str, list[str]] = {}
        for value in sorted(map(str, values)):
            if (day := find_day(value)) is not None:
                days.setdefault(day, []).append(value)
        return dict(sorted(days.items()))

    def pieces(self, folder: str | None = None) -> list[LakePiece]:
        return [LakePiece(self.table, self.name, self.table.table or self.table.uri, self, folder)]

    @contextmanager
    def reading(self) -> Iterator[None]:
        with reading(self.where, self.table.storage_options, self.version):
            yield


@dataclass(frozen=True)
class LakePiece(SourcePiece):
    """The rows of a table, or those with a value of `ds`."""

    source: LakeSource
    ds: str | None = None

    @property
    def where(self) -> str:
        return self.source.where

    def schema(self) -> pa.Schema:
        with self.source.reading():
            return self.source.schema()

    def blocks(self, columns: list[str], days: DayBounds | None = None) -> Iterator[pa.Table]:
        kinds = self.schema()
        wanted = pa.schema([kinds.field(name) for name in columns])
        ds = None if self.ds is None else pa.scalar(self.ds).cast(kinds.field(DS).type).as_py()
        with self.source.reading():
            for batch in self.source.read(columns, days, ds):
                yield pa.Table.from_batches([batch]).select(columns).cast(wanted)

    def newest(self, column: str) -> Any:
        with self.source.reading():
            bounds = self.source.bounds(column)
        return max((found[1] for found in bounds if found is not None), default=None) if all(bounds) else None


def find_layout(source: LakeSource) -> Layout:
    """Returns how a table is divided into days: by its column `ds` if it has days as dates or texts, else not at all."""
    schema = source.schema()
    is_day = DS in schema.names and (pat.is_date(schema.field(DS).type) or pat.is_string(schema.field(DS).type))
    return Layout.DS_FOLDERS if is_day and source.days() else Layout.SNAPSHOT


def find_smallest(bounds: Sequence[Bounds]) -> Any:
    """Returns the smallest value of some files; None without any, or if it is unknown of one."""
    return min((found[0] for found in bounds if found is not None), default=None) if all(bounds) else None


def raise_made_again(where: str, got: str) -> NoReturn:
    """Raises LakehouseError for a table that was dropped and made again since the sensor's last look."""
    remedy = "if it is the right one, set the sensor's cursor to the last day that is made; materialize the days that differ"
    raise LakehouseError(Fault(where, "the table of the last look, with later versions", got, remedy))


def rename_s3_options(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Returns storage options of fsspec's form by a library's names for endpoint, key, secret, token and region; others stay as they are."""
    given = {**options, **dict(options.get("client_kwargs") or {})}
    given.pop("client_kwargs", None)
    renamed = dict(zip(_S3_OPTIONS, names, strict=True))
    return {renamed.get(key, key): str(value) for key, value in given.items()}


def need_library(module: str, extra: str, where: str) -> None:
    """Checks that a library is installed.

    Raises:
        ConfigError: it is not; names the pip extra.
    """
    try:
        importlib.import_module(module)
    except ImportError:
        remedy = f"run pip install 'dssm-assets[{extra}]'"
        raise ConfigError(Fault(where, f"the package {module}", "not installed", remedy)) from None


@contextmanager
def reading(
    where: str, options: Mapping[str, Any], version: str = "", missing: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Turns errors of a library into ours, without logins and secrets.

    Raises:
        SourceMissingError: in place of `missing`.
        LakehouseError: in place of any other.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        text = " ".join(_ANSI.sub("", str(error)).split())
        for key, value in {**options, **dict(options.get("client_kwargs") or {})}.items():
            text = text.replace(str(value), "***") if _SECRET.search(key) and value else text
        got = f"{type(error).__name__}: {_LOGIN.sub('***@', text)[:_LONGEST]}"
        if isinstance(error, missing):
            raise SourceMissingError(Fault(where, "a table", got, "create it, or correct its location")) from None
        expected = f"all rows of its version, {version}" if version else "a table that can be opened"
        raise LakehouseError(Fault(where, expected, got, _KEPT)) from None
