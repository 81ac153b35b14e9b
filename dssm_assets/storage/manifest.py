"""The manifest: the small file that lists the files of a partition, its columns, its inputs and facts about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

_ENCODER: Final = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class StoredFile:
    """One file of a partition: logical name, stored name, size and digest of its bytes."""

    name: str
    path: str
    bytes: int
    sha256: str
    rows: int = 0


@dataclass(frozen=True)
class Column:
    """One column as stored: name, Arrow type as text, meaning."""

    name: str
    type: str
    description: str


@dataclass(frozen=True)
class ReplacedFile:
    """A file of an earlier content of the partition.

    Attributes:
        path: as in `StoredFile`.
        replaced_at: when it was replaced, in unix seconds.
        is_removed: it is no longer stored.
    """

    path: str
    replaced_at: float
    is_removed: bool = False


@dataclass(frozen=True)
class Manifest:
    """A partition.

    Attributes:
        files: in order.
        columns: schema of a table; empty for an artifact.
        inputs: "asset/ds" -> digest of each partition that it was built from.
        facts: small values that describe it (seed, counts).
        settings: digest of the settings that its step reads, "" where none was recorded.
        replaced: files of earlier contents; those that are still stored may be in use.
    """

    asset: str
    ds: str
    files: tuple[StoredFile, ...]
    columns: tuple[Column, ...] = ()
    inputs: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, object] = field(default_factory=dict)
    settings: str = field(default="", compare=False)
    replaced: tuple[ReplacedFile, ...] = field(default=(), compare=False)

    @property
    def key(self) -> str:
        """Returns "asset/ds", which identifies the partition in other manifests."""
        return f"{self.asset}/{self.ds}"

    @property
    def rows(self) -> int:
        return sum(file.rows for file in self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    @cached_property
    def digest(self) -> str:
        """Returns the digest of the content; it does not depend on inputs, facts, schema or time."""
        content = hashlib.sha256()
        for file in self.files:
            content.update(f"{file.name}\0{file.sha256}\n".encode())
        return content.hexdigest()

    def to_json(self) -> str:
        body: dict[str, object] = {
            "asset": self.asset,
            "ds": self.ds,
            "digest": self.digest,
            "rows": self.rows,
            "files": [vars(file) for file in self.files],
            "columns": [vars(column) for column in self.columns],
            "inputs": dict(self.inputs),
            "facts": dict(self.facts),
        }
        if self.settings:
            body["settings"] = self.settings
        if self.replaced:
            body["replaced"] = [vars(file) for file in self.replaced]
        # A line per entry: an indented text of all levels takes a millisecond for each hundred values.
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
        )
