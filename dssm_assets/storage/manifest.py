"""The manifest: the small file that lists the files of a partition, its columns, its inputs and facts about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.columns import USER_ID

_ENCODER: Final = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class StoredFile:
    """One file of a partition: logical name, stored name, size and digest."""

    name: str
    path: str
    bytes: int
    sha256: str
    rows: int = 0


@dataclass(frozen=True)
class Column:
    """One stored column: its name, its Arrow type as text, and its meaning."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class ReplacedFile:
    """A file of a partition's earlier content.

    Attributes:
        path: see `StoredFile`.
        replaced_at: time of its replacement, in unix seconds.
        is_removed: whether the file has been removed from the store.
    """

    path: str
    replaced_at: float
    is_removed: bool = False


@dataclass(frozen=True)
class Erasure:
    """The removal of forgotten users' rows from a partition.

    Attributes:
        request: the request to forget the users.
        digest: digest of the content before the removal.
        bytes: size of the files before the removal.
        count: number of removed rows.
        rows: numbers of the removed rows, ascending, if other tables refer to rows of this table; else empty.
    """

    request: str
    digest: str
    bytes: int
    count: int
    rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The manifest of a partition: its files, columns, inputs and facts.

    Attributes:
        files: the files, in order.
        columns: columns of a table; columns of an artifact's tables, named `file: column`; else empty.
        inputs: "asset/ds" -> digest of each input partition.
        facts: small values that describe the partition (seed, counts).
        settings: digest of the step's settings, "" if not recorded.
        replaced: files of earlier contents. Some may still be stored and in use.
        erasures: oldest first. An asset built from the content before an erasure still counts as built from this partition.
    """

    asset: str
    ds: str
    files: tuple[StoredFile, ...]
    columns: tuple[Column, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    settings: str = field(default="", compare=False)
    replaced: tuple[ReplacedFile, ...] = field(default=(), compare=False)
    erasures: tuple[Erasure, ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        return f"{self.asset}/{self.ds}"

    @property
    def user_column(self) -> str | None:
        """Returns the column with the rows' users, named `file: column` for an artifact. None if rows belong to no user."""
        return next((column.name for column in self.columns if column.name.rpartition(" ")[2] == USER_ID), None)

    @property
    def is_table(self) -> bool:
        """Returns whether the files form one table. (An artifact with columns has several tables.)"""
        return bool(self.columns) and all(file.name.endswith(".parquet") for file in self.files)

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @cached_property
    def digest(self) -> str:
        """Returns the digest of the content. Inputs, facts, schema and time do not change it."""
        content = hashlib.sha256()
        for file in self.files:
            content.update(f"{file.name}\0{file.sha256}\n".encode())
        return content.hexdigest()

    def has_had(self, digest: str | None) -> bool:
        """Returns whether this digest is of the content now, or of the content before users were forgotten."""
        return digest in (self.digest, *(erasure.digest for erasure in self.erasures))

    def renumber(self, rows: npt.NDArray[np.int64], digest: str) -> npt.NDArray[np.int64]:
        """Converts row numbers of an earlier content (`digest`) to row numbers of the present content; -1 for removed rows and -1."""
        digests = [erasure.digest for erasure in self.erasures]
        for erasure in self.erasures[digests.index(digest) :] if digest in digests else ():
            gone = np.array(erasure.rows, np.int64)
            places = np.searchsorted(gone, rows)
            rows = np.where(np.isin(rows, gone), -1, rows - places)
        return rows

    def to_json(self) -> str:
        plain = {name: getattr(self, name) for name in ("asset", "ds", "digest", "rows", "settings")}
        lists = {name: [vars(one) for one in getattr(self, name)] for name in ("files", "columns", "replaced", "erasures")}
        body = {**plain, **lists, "inputs": dict(self.inputs), "facts": dict(self.facts)}
        # One line per entry, because indenting all levels takes a millisecond for each hundred values.
        lines = (f'"{name}": {_ENCODER.encode(body[name])}' for name in sorted(body))
        return "{" + ",\n ".join(lines) + "}\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Manifest:
        body = json.loads(text)
        return cls(
            asset=body["asset"],
            ds=body["ds"],
            files=tuple(StoredFile(**file) for file in body["files"]),
            columns=tuple(Column(**column) for column in body["columns"]),
            inputs=body["inputs"],
            facts=body["facts"],
            settings=body.get("settings", ""),
            replaced=tuple(ReplacedFile(**file) for file in body.get("replaced", ())),
            erasures=tuple(Erasure(**{**found, "rows": tuple(found["rows"])}) for found in body.get("erasures", ())),
        )
