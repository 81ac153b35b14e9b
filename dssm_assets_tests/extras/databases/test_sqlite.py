"""SQLite's types, which are those of values, and what is said before any database is asked: addresses and drivers."""

from __future__ import annotations

import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import ConfigError, SchemaError
from dssm_assets.extras.databases.sql_source import read_url
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage.sources.source import SourceMissingError
from dssm_assets.storage.sources.source_files import open_source
from dssm_assets.storage.sources.table_source import TableError, hide_secrets
from dssm_assets_tests import worlds
from dssm_assets_tests.programs import needs_extras


def write(path: Path, **columns: list[Any]) -> SourceTable:
    """Writes a table `users` of columns without declared types; returns its configuration."""
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE users ({', '.join(columns)})")
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO users VALUES ({marks})", zip(*columns.values(), strict=True))
    return SourceTable(uri=f"sqlite:///{path}", format="sql", table="users")


def read(table: SourceTable, column: str) -> tuple[str, list[Any]]:
    (piece,) = open_source(table, "user_table").pieces()
    values = [value for block in piece.blocks([column]) for value in block.column(0).to_pylist()]
    return str(piece.schema().field(column).type), values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, 2], "int64"),
        ([1, 2.5], "double"),
        ([None, None], "null"),
        ([*[None] * 70_000, "x"], "string"),  # a driver that infers types from the first rows fails here
    ],
)
def test_a_column_has_the_type_of_all_its_values(tmp_path: Path, values: list[Any], kind: str) -> None:
    assert read(write(tmp_path / "shop.db", a=values), "a") == (kind, values)


def test_columns_of_several_types_are_all_named_also_if_values_come_later(tmp_path: Path) -> None:
    table = write(tmp_path / "shop.db", a=[1, "x"], b=[b"\xff", None], c=[1.5, "x"], d=[1, 2])
    (piece,) = open_source(table, "user_table").pieces()
    found = r"(?s)3 faults.*column a: expected values of type string, got .*'int'.*column b: .*xff.*column c: .*'float'"
    with pytest.raises(SchemaError, match=found):
        list(piece.blocks(["a", "b", "c", "d"]))
    assert read(table, "d") == ("int64", [1, 2])
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("INSERT INTO users (d) VALUES ('x')")
    with pytest.raises(SchemaError, match="column d: expected values of type int64, got"):
        list(piece.blocks(["d"]))


@pytest.mark.parametrize("content", [None, b"no database at all"])
def test_a_file_that_is_no_database_is_one_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "shop.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableError, match=r"sqlite:///.*shop\.db, users: expected a .* got .*(open|not a database)"):
        open_source(SourceTable(uri=f"sqlite:///{path}", format="sql", table="users"), "user_table").pieces()
    assert path.exists() is (content is not None)  # none is made


@needs_extras("starter")
def test_paths_of_sqlite_are_relative_to_the_folder_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a shop.db", ds=["2026-03-02"])
    monkeypatch.chdir(tmp_path)
    found = load_extra("starter", "table_survey").survey_uri("sqlite:///a shop.db#users", "user_table")
    assert (found.uri, found.table, found.layout) == (f"sqlite:///{tmp_path}/a shop.db", "users", "ds_folders")
    with pytest.raises(SourceMissingError, match="there are: users"):
        load_extra("starter", "table_survey").survey_uri("sqlite:///a shop.db#user", "user_table")


@pytest.mark.parametrize(
    ("uri", "user", "password", "host", "database"),
    [
        ("postgres://sh%40p:s%2Fc%3At@db/prod?sslmode=require", "sh@p", "s/c:t", "db", "prod"),
        ("mysql+pymysql://shop:p@ss/w#rd?x@db/prod", "shop", "p@ss/w#rd?x", "db", "prod"),
        ("mariadb://shop@db", "shop", None, "db", None),
        ("postgresql:///prod?host=/run/postgresql", None, None, None, "prod"),
        ("sqlite:////data/a@b/shop.db", None, None, None, "/data/a@b/shop.db"),
    ],
)
def test_parts_of_a_uri(uri: str, user: Any, password: Any, host: Any, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", uri)
    found = read_url("env:SHOP_DB", "here")
    assert (found.username, found.password, found.host, found.database) == (user, password, host, database)
    assert not password or password not in repr(found)


def test_a_message_loses_every_form_of_a_secret() -> None:
    text = 'in "a/b c", a%2Fb c,\n a%2Fb+c, a%2Fb%20c: http://me:x@host, x://me:h/@sh@host.'
    assert hide_secrets(text, ["a/b c", ""]) == 'in "***", ***, ***, ***: http://***@host, x://***@host'


def test_the_location_of_a_table_and_faults_of_its_section_show_no_login(tmp_path: Path) -> None:
    table = {"uri": "oracle://me:hush@db/x", "format": "sql"}
    with pytest.raises(ConfigError, match=r"user_table, oracle://\*\*\*@db/x, t: .*not shown") as caught:
        open_source(SourceTable.model_validate(table | {"table": "t"}), "user_table")
    assert "hush" not in str(caught.value)
    for given in (table, table | {"table": "t", "storage_options": ["hush"]}):
        with pytest.raises(ConfigError, match="not shown") as caught:
            worlds.write_config(tmp_path, {"tables": {"user": given}})
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("given", ["", "oracle://shop:hushhush@db/prod", "shop:hushhush", "mysql://shop:hushhush@db:port/x"])
def test_a_variable_without_a_uri_is_named_and_its_value_is_not(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", given)
    got = "another URI, not shown" if given else "no value"
    with pytest.raises(ConfigError, match=rf"variable SHOP_DB: postgresql://.* got {got}.*export SHOP_DB=") as caught:
        read_url("env:SHOP_DB", "here")
    assert "hushhush" not in str(caught.value)


@needs_extras("starter")
@pytest.mark.parametrize(
    "given",
    [
        "mysql://me:hush@db/x#clicks",
        "postgresql+psycopg2://me:hush@db/x#clicks",
        "postgres://me@db/x?password=hush#clicks",
        "mysql://me@db/x?passwd=hush#clicks",
        "mysql://me:hush#hush@db/x",
        "mysql://hush",
    ],
)
def test_a_uri_with_a_password_or_without_a_table_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(ConfigError, match="expected DATABASE#TABLE without a password") as caught:
        load_extra("starter", "table_survey").survey_uri(given, "user_table")
    assert "hush" not in str(caught.value) and caught.value.__suppress_context__


@pytest.mark.parametrize(("uri", "driver"), [("postgres://x", "adbc_driver_postgresql.dbapi"), ("mysql://x", "pymysql")])
def test_a_driver_that_is_not_installed_is_named(uri: str, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(
        ConfigError, match=r"the package (pymysql|adbc_driver_postgresql), got .*pip install 'dssm-assets\[sql\]'"
    ):
        open_source(SourceTable(uri=uri, format="sql", table="clicks"), "user_table")
