"""Opens a vector store by its URI, from the configuration, an argument or an environment variable."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.extras.vector_stores.store import VectorStore
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.layout import lancedb_folder
from dssm_assets.storage.sources.table_source import need_library

_STORES: Final = {
    "lancedb": ("lancedb", "LanceDBStore"),
    "lancedb+s3": ("lancedb", "LanceDBStore"),
    "postgresql": ("pgvector", "PgvectorStore"),
    "postgres": ("pgvector", "PgvectorStore"),
    "qdrant": ("qdrant", "QdrantStore"),
    "qdrant+https": ("qdrant", "QdrantStore"),
    "milvus": ("milvus", "MilvusStore"),
    "milvus+https": ("milvus", "MilvusStore"),
}
"""Scheme -> module here, which is also the pip extra, and its class."""
_LIBRARIES: Final = {"lancedb": "lancedb", "pgvector": "psycopg", "qdrant": "qdrant_client", "milvus": "pymilvus"}


def open_configured(loaded: LoadedConfig) -> VectorStore:
    """Returns the store of a configuration, by default a LanceDB beside its tables; errors as `open_store`."""
    config = loaded.config
    return open_store(find_uri(loaded), config.name, config.storage.options)


def find_uri(loaded: LoadedConfig) -> str:
    chosen = loaded.config.vector_store
    if chosen is not None and chosen.uri is not None:
        return chosen.uri
    folder = lancedb_folder(loaded.root)
    return folder.replace("s3://", "lancedb+s3://", 1) if "://" in folder else f"lancedb://{folder}"


def open_store(uri: str, scene: str, options: Mapping[str, Any]) -> VectorStore:
    """Returns the store at a URI, which may be `env:NAME`.

    Args:
        scene: prefix of its tables.
        options: `storage.options`, of a LanceDB on S3.

    Raises:
        ConfigError: the variable is not set, the scheme is unknown, or the client is not installed. The URI is not shown.
    """
    name = uri.removeprefix("env:") if uri.startswith("env:") else ""
    given = os.environ.get(name, "").strip() if name else uri
    scheme = given.partition("://")[0]
    if scheme not in _STORES:
        where = f"vector store{f', environment variable {name}' if name else ''}"
        got = "another one, not shown as it may be secret" if given else "no value"
        remedy = f"export {name}=lancedb:///data/vectors, or another" if name else "write such as lancedb:///data/vectors"
        raise ConfigError(Fault(where, f"a URI of {'://, '.join(_STORES)}://", got, remedy))
    parts, (module, store) = urlsplit(given), _STORES[scheme]
    if module == "lancedb" and ("@" in parts.netloc or bool(parts.netloc) is (scheme == "lancedb")):
        remedy = "the login of a bucket is that of storage.options or of AWS_* variables"
        expected = "lancedb:///folder with a whole path, or lancedb+s3://bucket/folder without a login"
        raise ConfigError(Fault("vector store", expected, "another form", remedy))
    need_library(_LIBRARIES[module], module, f"vector store {scheme}://")
    found: VectorStore = getattr(importlib.import_module(f"{__package__}.{module}"), store)(parts, scene, options)
    return found
