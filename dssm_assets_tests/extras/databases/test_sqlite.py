"""SQLite's types, which are those of values, and what is said before any database is asked: addresses and drivers."""

from __future__ import annotations

import re
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.cli import main
from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import ConfigError, InputError, SchemaError
from dssm_assets.extras.databases.address import read_address
from dssm_assets.extras.databases.sql_source import survey
from dssm_assets.storage.sources.source import open_source
from dssm_assets.storage.sources.source_files import SourceMissingError
from dssm_assets_tests.programs import needs_extras

SCHEMES = ("postgresql", "postgres", "mysql", "mariadb", "sqlite")


def write(path: Path, **columns: list[Any]) -> SourceTable:
    """Writes a table `users` of columns without declared types; returns its configuration."""
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE users ({', '.join(columns)})")
        marks = ", ".join("?" * len(columns))
        connection.executemany(f"INSERT INTO users VALUES ({marks})", zip(*columns.values(), strict=True))
    return SourceTable(uri=f"sqlite:///{path}", format="sql", table="users")


def read(table: SourceTable, column: str) -> tuple[str, list[Any]]:
    """Returns the type and the values of a column."""
    (piece,) = open_source(table, "user_table").pieces()
    values = [value for block in piece.blocks([column]) for value in block.column(0).to_pylist()]
    return str(piece.schema().field(column).type), values


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([None, 2], "int64"),
        ([1, 2.5], "double"),
        ([None, "x"], "string"),
        ([None, None], "null"),
        (["2026-03-02", "2026-03-03"], "string"),
    ],
)
def test_a_column_has_the_type_of_all_its_values(tmp_path: Path, values: list[Any], kind: str) -> None:
    assert read(write(tmp_path / "shop.db", a=values), "a") == (kind, values)


def test_a_value_in_the_last_row_counts(tmp_path: Path) -> None:
    """A driver that infers types from the first rows fails here."""
    table = write(tmp_path / "shop.db", late=[*[None] * 70_000, "x"])
    kind, values = read(table, "late")
    assert (kind, len(values), values[-1]) == ("string", 70_001, "x")


def test_columns_of_several_types_are_all_named(tmp_path: Path) -> None:
    table = write(tmp_path / "shop.db", a=[1, "x"], b=[b"x", None], c=[1.5, "x"], d=[1, 2])
    (piece,) = open_source(table, "user_table").pieces()
    found = r"(?s)3 faults.*column a: .* got integer and text\..*column b: .* got bytes\..*column c: .* got real and text\."
    with pytest.raises(SchemaError, match=found):
        list(piece.blocks(["a", "b", "c", "d"]))
    assert read(table, "d") == ("int64", [1, 2])


def test_a_value_of_another_type_that_comes_meanwhile_is_refused(tmp_path: Path) -> None:
    (piece,) = open_source(write(tmp_path / "shop.db", a=[1, 2]), "user_table").pieces()
    with sqlite3.connect(tmp_path / "shop.db") as connection:
        connection.execute("INSERT INTO users VALUES ('x')")
    with pytest.raises(SchemaError, match="column a: expected values of the type that the column has, got"):
        list(piece.blocks(["a"]))


@pytest.mark.parametrize("content", [None, b"no database at all"])
def test_a_file_that_is_no_database_is_one_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "shop.db"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"table user_table, sqlite:///.*shop\.db, users: expected a .* got .*(open|not a database)"
    ):
        open_source(SourceTable(uri=f"sqlite:///{path}", format="sql", table="users"), "user_table").pieces()
    assert path.exists() is (content is not None)  # none is made


def test_paths_of_sqlite_are_relative_to_the_folder_of_a_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a shop.db", ds=["2026-03-02"])
    monkeypatch.chdir(tmp_path)
    found = survey("sqlite:///a shop.db#users", "user_table")
    assert (found.uri, found.table, found.layout) == (f"sqlite:///{tmp_path}/a shop.db", "users", "ds_folders")
    with pytest.raises(SourceMissingError, match="there are: users"):
        survey("sqlite:///a shop.db#user", "user_table")


@pytest.mark.parametrize(
    ("uri", "user", "password", "host", "database"),
    [
        ("postgresql://shop:hushhush@db:5433/prod", "shop", "hushhush", "db:5433", "prod"),
        ("postgres://sh%40p:s%2Fc%3At@db/prod?sslmode=require", "sh@p", "s/c:t", "db", "prod"),
        ("mysql+pymysql://shop:p@ss/w#rd?x@db/prod", "shop", "p@ss/w#rd?x", "db", "prod"),
        ("mariadb://shop@db", "shop", "", "db", ""),
        ("postgresql:///prod?host=/run/postgresql", "", "", "", "prod"),
        ("sqlite:////data/a@b/shop.db", "", "", "", "/data/a@b/shop.db"),
    ],
)
def test_parts_of_an_address(
    uri: str, user: str, password: str, host: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DB", uri)
    found = read_address("env:SHOP_DB", SCHEMES, "here")
    assert (found.user, found.password, found.host, found.database) == (user, password, host, database)
    assert found.shown == "env:SHOP_DB"
    assert not password or password not in repr(found)


def test_a_message_of_a_driver_loses_every_form_of_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", "postgresql://shop:a%2Fb@db/prod?sslpassword=c%3Ad")
    address = read_address("env:SHOP_DB", SCHEMES, "here")
    assert address.hide('in "a/b", a%2Fb,\n c:d and c%3Ad.') == 'in "***", ***, *** and ***'


@pytest.mark.parametrize("given", ["oracle://shop:hushhush@db/prod", "shop:hushhush", "postgresql:shop:hushhush"])
def test_an_address_of_another_kind_is_not_shown(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_DB", given)
    with pytest.raises(
        ConfigError, match=r"expected a URI of a database: postgresql://, .* To fix: correct env:SHOP_DB"
    ) as caught:
        read_address("env:SHOP_DB", SCHEMES, "here")
    assert "hushhush" not in str(caught.value)


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_DB", raising=False)
    with pytest.raises(ConfigError, match=r"the environment variable SHOP_DB .* got no value\. To fix: export SHOP_DB="):
        read_address("env:SHOP_DB", SCHEMES, "here")


@needs_extras("starter")
@pytest.mark.parametrize(
    "given",
    [
        "mysql://shop:hushhush@db/prod#clicks",
        "postgres://shop@db/prod?password=hushhush#clicks",
        "mysql://shop:hush#hush@db/prod",
    ],
)
@needs_extras("starter")
def test_a_command_refuses_a_password_without_showing_it(
    given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["init", "--behavior", given, "--out", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert re.search("put the URI into an environment variable and give env:NAME#TABLE|expected DATABASE#TABLE", out + err)
    assert "hush" not in out + err
    assert not [path for path in tmp_path.iterdir() if "hush" in path.read_text()]


@pytest.mark.parametrize(
    ("uri", "driver"), [("postgresql://db/prod", "adbc_driver_postgresql"), ("mysql://db/prod", "pymysql")]
)
def test_a_driver_that_is_not_installed_is_named_with_its_remedy(
    uri: str, driver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (driver, f"{driver}.dbapi"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"the package {driver}, .* To fix: pip install 'dssm-assets\[sql\]'"):
        open_source(SourceTable(uri=uri, format="sql", table="clicks"), "user_table")
