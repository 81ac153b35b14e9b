"""Opens a table or query of a database as a source table (`format: sql`): its URI, from the configuration or an environment variable."""

from __future__ import annotations

import os
from typing import Final

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.extras.databases.database import DatabaseSource
from dssm_assets.extras.databases.mysql import MysqlSource
from dssm_assets.extras.databases.postgresql import PostgresSource
from dssm_assets.extras.databases.sqlite import SqliteSource
from dssm_assets.storage.sources.table_source import name_table, need_library

_SOURCES: Final[dict[str, type[DatabaseSource]]] = {
    **dict.fromkeys(("postgresql", "postgres"), PostgresSource),
    **dict.fromkeys(("mysql", "mariadb"), MysqlSource),
    "sqlite": SqliteSource,
}
"""Scheme of a URI -> how its tables are read."""


def open_source(table: SourceTable, name: str) -> DatabaseSource:
    """Returns a table or query of a database.

    Raises:
        ConfigError: its URI is in no environment variable of that name or of an unknown kind, or the driver is not installed.
    """
    where = name_table(table, name)
    url = read_url(table.uri, where)
    source = _SOURCES[url.get_backend_name()]
    return source(table, name, url, need_library(source.driver_name, "sql", where))


def read_url(uri: str, where: str) -> URL:
    """Returns the URI of a database, that of the environment variable for `env:NAME`; a password may have any characters up to the last @.

    Raises:
        ConfigError: the variable is not set, or it has another scheme. The URI is not shown.
    """
    name = uri.removeprefix("env:") if uri.startswith("env:") else ""
    given = os.environ.get(name, "").strip() if name else uri
    login, mark, rest = given.rpartition("@")
    try:
        url = make_url(login.replace("@", "%40") + mark + rest)
        if url.get_backend_name() in _SOURCES:
            return url
    except (ArgumentError, ValueError):  # of a port that is no number
        pass
    expected = f"a URI of a database{f' in the environment variable {name}' if name else ''}: {'://, '.join(_SOURCES)}://"
    got = "another one, not shown as it may be secret" if given else "no value"
    raise ConfigError(Fault(where, expected, got, f"export {name or 'NAME'}=postgresql://USER:PASSWORD@HOST/DATABASE"))
