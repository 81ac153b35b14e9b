"""The interface of a vector store for publishing and search. A store is opened by its URI.

    version    the vectors of one whole bundle, either complete or absent. Its revision is this bundle or its latest applied delta
    draft      rows being written. Readers do not see them before they become a version
    alias      <scene>_item and <scene>_user, for other programs. Both always point to one complete version

All stores compare by inner product. A cosine model's vectors have unit length. If a model has a prior, it is the last entry of
each item vector. A user with several interests has one row per interest.
"""

from __future__ import annotations

import importlib
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import ConfigError, DssmError, Fault, PartitionMissingError, StorageError
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.layout import LANCEDB, inside
from dssm_assets.storage.sources.table_source import hide_secrets, need_library

INTEREST: Final = "interest"
DAY: Final = "ds"
MODEL_DIGEST: Final = "model_digest"
KEYS: Final[Mapping[VectorTable, tuple[str, ...]]] = {
    VectorTable.ITEM: (col.ITEM_ID,),
    VectorTable.USER: (col.USER_ID, INTEREST),
}
"""Table -> the columns that identify a row. The first one is the id."""
VECTORS: Final[Mapping[VectorTable, str]] = {VectorTable.ITEM: col.ITEM_TOWER_EMB, VectorTable.USER: col.USER_TOWER_EMB}
"""Table -> name of its vector column."""
RESERVED: Final = frozenset({col.ITEM_ID, col.ITEM_TOWER_EMB, DAY, MODEL_DIGEST})
"""Names that a filter column cannot have."""
_HERE: Final = "dssm_assets.extras.vector_stores"
STORES: Final[dict[str, str]] = {
    "lancedb": f"{_HERE}.lancedb:LanceDBStore",
    "lancedb+s3": f"{_HERE}.lancedb:LanceDBStore",
    "postgresql": f"{_HERE}.pgvector:PgvectorStore",
    "postgres": f"{_HERE}.pgvector:PgvectorStore",
    "qdrant": f"{_HERE}.qdrant:QdrantStore",
    "qdrant+https": f"{_HERE}.qdrant:QdrantStore",
    "milvus": f"{_HERE}.milvus:MilvusStore",
    "milvus+https": f"{_HERE}.milvus:MilvusStore",
}
"""Scheme of a URI -> "module:class". The class is called with the split URI, and with scene, options and seconds of `open_store`.

A plug-in adds its own store: `STORES["mystore"] = "my_project.my_store:MyStore"` (docs/platform.md).
"""
_LIBRARIES: Final = {"lancedb": "lancedb", "pgvector": "psycopg", "qdrant": "qdrant_client", "milvus": "pymilvus"}
"""Module in this folder (also the name of the pip extra) -> the library that it needs."""


@dataclass(frozen=True)
class Rows:
    """Rows to write: the columns of `KEYS`, vectors, `ds`, `model_digest`, and for items the filter columns. Batches can be read once."""

    schema: pa.Schema
    count: int
    batches: Iterable[pa.RecordBatch]


@dataclass(frozen=True)
class Changes:
    """The changes that a revision makes to a table: rows to add (or to replace, by key), and ids to remove."""

    rows: pa.Table
    gone: pa.Array


Found = tuple[pa.Array, npt.NDArray[np.float32]]
"""A list of ids and their inner products, best first."""


class StoredVectors(ABC):
    """The rows of a version or a draft. Stays valid if the version is written again. Safe for any number of threads."""

    @abstractmethod
    def count(self) -> int:
        """Returns the number of rows."""

    @abstractmethod
    def read(self, ids: pa.Array) -> pa.Table:
        """Returns the rows of some ids: at least the columns of `KEYS`, `VECTORS` and `model_digest`, in the written types."""

    @abstractmethod
    def search(self, vectors: Vectors, k: int, *, is_exact: bool = False) -> list[Found]:
        """Returns, for each vector [N, D], the k rows with the highest inner product.

        Args:
            is_exact: compares every row instead of searching by the index.

        Raises:
            StorageError: the search takes longer than the store's time limit.
        """


class VectorStore(ABC):
    """The vector store of a scene. All methods raise a StorageError if the store cannot be reached or refuses the request.

    Attributes:
        where: the name and address of the store for errors, without user and password.
    """

    where: str

    @abstractmethod
    def find_versions(self) -> dict[str, str]:
        """Returns the bundle id of each stored version -> its revision. "": an update was not finished."""

    @abstractmethod
    def find_served(self) -> str | None:
        """Returns the bundle id of the version that the aliases point to, None if they do not exist."""

    @abstractmethod
    def write(self, table: VectorTable, rows: Rows) -> str:
        """Writes a draft (with an index if the rows are items) and returns its name."""

    @abstractmethod
    def open(self, table: VectorTable, name: str) -> StoredVectors:
        """Returns the rows of a version (by bundle id) or of a draft.

        Raises:
            PartitionMissingError: there is no such version or draft.
        """

    @abstractmethod
    def add(self, version: str, revision: str, drafts: Mapping[VectorTable, str]) -> None:
        """Makes drafts the tables of a version. The former tables of the version become drafts."""

    @abstractmethod
    def serve(self, version: str) -> None:
        """Points the aliases to a stored version. Each alias changes in one step."""

    @abstractmethod
    def update(self, version: str, revision: str, changes: Mapping[VectorTable, Changes]) -> None:
        """Applies the changes of a revision to a stored version, then records the revision."""

    @abstractmethod
    def find_removable(self, kept: Collection[str], before: float) -> list[str]:
        """Returns the versions that are neither kept nor served, and the drafts begun before a unix time."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a version or draft that `find_removable` returned. Does nothing if it is gone."""


def open_configured(loaded: LoadedConfig) -> VectorStore:
    """Opens the configured store, by default a LanceDB beside the tables. Raises the errors of `open_store`."""
    config = loaded.config
    return open_store(find_uri(loaded), config.name, config.storage.options)


def find_uri(loaded: LoadedConfig) -> str:
    chosen = loaded.config.vector_store
    return default_uri(loaded) if chosen is None or chosen.uri is None else chosen.uri


def default_uri(loaded: LoadedConfig) -> str:
    """Returns the URI of the LanceDB beside the tables."""
    folder = inside(loaded.root, LANCEDB)
    return folder.replace("s3://", "lancedb+s3://", 1) if "://" in folder else f"lancedb://{folder}"


def open_store(uri: str, scene: str, options: Mapping[str, Any], seconds: float | None = None) -> VectorStore:
    """Opens the store at a URI. `env:NAME` reads the URI from an environment variable.

    Args:
        scene: prefix of the store's table names.
        options: `storage.options`, for a LanceDB on S3.
        seconds: time limit of each request of a search. The whole search ends after twice as long. None: no limit.

    Raises:
        ConfigError: the variable is not set, the scheme is unknown, or the client is not installed. The URI is not shown.
    """
    name = uri.removeprefix("env:") if uri.startswith("env:") else ""
    given = os.environ.get(name, "").strip() if name else uri
    scheme = given.partition("://")[0]
    if scheme not in STORES:
        where = f"vector store{f', environment variable {name}' if name else ''}"
        got = "another URI, not shown because it may be secret" if given else "no value"
        remedy = f"export {name}=lancedb:///data/vectors, for example" if name else "write a URI, as lancedb:///data/vectors"
        raise ConfigError(Fault(where, f"a URI of {'://, '.join(STORES)}://", got, remedy))
    parts, (module, _, store) = urlsplit(given), STORES[scheme].partition(":")
    extra = module.removeprefix(f"{_HERE}.")
    if extra == "lancedb" and ("@" in parts.netloc or bool(parts.netloc) is (scheme == "lancedb")):
        remedy = "give the login of a bucket in storage.options or in AWS_* variables"
        expected = "lancedb:///folder with an absolute path, or lancedb+s3://bucket/folder without a login"
        raise ConfigError(Fault("vector store", expected, "another form", remedy))
    if extra in _LIBRARIES:
        need_library(_LIBRARIES[extra], extra, f"vector store {scheme}://")
    found: VectorStore = getattr(importlib.import_module(module), store)(parts, scene, options, seconds)
    return found


def new_token() -> str:
    """Returns a unique ending for a draft's name: the time in seconds, and a random number."""
    return f"{int(time.time()):08x}{secrets.token_hex(3)}"


def begun_at(name: str) -> float:
    """Returns when a draft was begun, in unix seconds, from the token at the end of its name."""
    return float(int(name[-14:-6], 16))


def missing_version(where: str, table: VectorTable, name: str, known: Collection[str]) -> PartitionMissingError:
    """Returns the error to raise if a version is not stored."""
    remedy = f"materialize vector_store of {name[:10]} with this store in the configuration"
    return PartitionMissingError(
        Fault(f"{where}, table {table}", f"vectors of bundle {name}", f"those of {', '.join(sorted(known)) or 'none'}", remedy)
    )


class Deadline:
    """A time limit after which a search may start no request. Each request has the same limit, so a search takes at most twice as long."""

    def __init__(self, where: str, seconds: float | None) -> None:
        self._where, self._seconds, self._begun = where, seconds, time.monotonic()

    def check(self) -> None:
        """Raises a StorageError after the time limit."""
        if self._seconds is not None and time.monotonic() - self._begun > self._seconds:
            expected, remedy = (
                f"a search within {self._seconds:g} seconds",
                "find out why the store is slow, or raise request_seconds",
            )
            raise StorageError(str(Fault(self._where, expected, "a longer one", remedy)))


@contextmanager
def store_errors(where: str, passwords: Iterable[str] = ()) -> Iterator[None]:
    """Turns errors of a client into a StorageError without passwords. Our own errors pass unchanged."""
    try:
        yield
    except DssmError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {hide_secrets(str(error), passwords)}"
        remedy = "run again once the store answers, or correct its URI"
        raise StorageError(str(Fault(where, "a vector store that answers", got, remedy))) from None
