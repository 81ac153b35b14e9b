"""The databases that tests read: SQLite, and a PostgreSQL and a MariaDB that run as long as the tests of this package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dssm_assets_tests.extras.databases.servers import Server, Shop, run_mariadb, run_postgres


@pytest.fixture(scope="package")
def postgres() -> Iterator[Server]:
    """Yields a running PostgreSQL."""
    with run_postgres() as server:
        yield server


@pytest.fixture(scope="package")
def mariadb() -> Iterator[Server]:
    """Yields a running MariaDB."""
    with run_mariadb() as server:
        yield server


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.slow) for name in ("postgres", "mariadb"))])
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """Returns each of the databases, empty, its URI in the environment variable SHOP_DB; the default suite uses SQLite."""
    if request.param == "sqlite":
        (tmp_path / "shop.db").touch()
        opened = Shop("sqlite", f"sqlite:///{tmp_path / 'shop.db'}")
    else:
        server: Server = request.getfixturevalue(request.param)
        opened = Shop(request.param, server.uri, server.password)
        opened.run("DROP TABLE IF EXISTS users, items, clicks")
    monkeypatch.setenv("SHOP_DB", opened.uri)
    return opened
