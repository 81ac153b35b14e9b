"""What only servers have: their types, sessions, passwords, and that they can go away."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dssm_assets.cli import main
from dssm_assets.core.config.pipeline import SourceTable
from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.extras.databases.sql_source import DatabaseSource
from dssm_assets.storage.sources.source_files import open_source
from dssm_assets.storage.sources.table_source import TableError
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.databases.servers import Server, Shop, run_mariadb, run_postgres
from dssm_assets_tests.extras.databases.test_sql_source import SOURCES, TABLES, URI, put_world

pytestmark = pytest.mark.slow

NOON = dt.datetime(2026, 3, 2, 12, 0, 0, 123_000)
POSTGRES_TYPES: dict[str, tuple[str, str, Any]] = {
    "bigint": ("9007199254740993", "int64", 2**53 + 1),
    "real": ("0.5", "float", 0.5),
    "boolean": ("true", "bool", True),
    "numeric(20,0)": ("12345678901234567890", "decimal128(20, 0)", Decimal("12345678901234567890")),
    "numeric(10,2)": ("19.99", "decimal128(10, 2)", Decimal("19.99")),
    "numeric": ("19.99", "double", 19.99),
    "char(5)": ("'x'", "string", "x"),
    "mood": ("'low'", "string", "low"),
    "timestamptz": ("'2026-03-02 13:00:00.123+01'", "timestamp[us, tz=UTC]", NOON.replace(tzinfo=dt.UTC)),
    "timestamp": ("'2026-03-02 12:00:00.123'", "timestamp[us]", NOON),
    "date": ("'2026-03-02'", "date32[day]", NOON.date()),
    "time": ("'12:00'", "time64[us]", dt.time(12)),
    "uuid": ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "string", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    "jsonb": ("""'{"a": [1]}'""", "string", '{"a": [1]}'),
    "bytea": ("'\\xff'", "string", "\\xff"),
    "interval": ("'1 day'", "string", "1 day"),
    "integer[]": ("'{1,2}'", "list<element: int32>", [1, 2]),
    "text[]": ("'{x,NULL}'", "list<element: string>", ["x", None]),
    "numeric(5,1)[]": ("'{1.5}'", "list<element: double>", [1.5]),
    "mood[]": ("'{low}'", "list<element: string>", ["low"]),
}
MARIADB_TYPES: dict[str, tuple[str, str, Any]] = {
    "tinyint(1)": ("2", "int64", 2),
    "int unsigned": ("4294967295", "int64", 2**32 - 1),
    "bigint unsigned": ("9007199254740993", "int64", 2**53 + 1),
    "float": ("0.1", "double", 0.10000000149011612),
    "decimal(20,0)": ("12345678901234567890", "decimal128(38, 0)", Decimal("12345678901234567890")),
    "decimal(10,2)": ("19.99", "decimal128(38, 2)", Decimal("19.99")),
    "varchar(9) character set latin1": ("'ä'", "string", "ä"),
    "json": ("""'{"a": [1]}'""", "string", '{"a": [1]}'),
    "enum('low','high')": ("'low'", "string", "low"),
    "set('x','y')": ("'x,y'", "string", "x,y"),
    "datetime(3)": ("'2026-03-02 12:00:00.123'", "timestamp[us]", NOON),
    "timestamp(3) null": ("'2026-03-02 21:00:00.123'", "timestamp[us, tz=UTC]", NOON.replace(tzinfo=dt.UTC)),
    "date": ("'2026-03-02'", "date32[day]", NOON.date()),
    "time": ("'12:00'", "string", "12:00:00"),
}


def users(**config: Any) -> SourceTable:
    return SourceTable(uri=URI, format="sql", **({"table": "users"} | config if "query" not in config else config))


def read(table: SourceTable, *columns: str) -> dict[str, list[Any]]:
    """Returns the columns of a table, all of them without names."""
    (piece,) = open_source(table, "user_table").pieces()
    names = [*columns] or piece.schema().names
    found: dict[str, list[Any]] = {name: [] for name in names}
    for block in piece.blocks(names):
        for name in names:
            found[name] += block.column(name).to_pylist()
    return found


servers = pytest.mark.parametrize("shop", ["postgres", "mariadb"], indirect=True)


@servers
def test_types_keep_their_meaning(shop: Shop) -> None:
    """Beside each value stands a null; a column of nulls alone has its type too. MariaDB's server has the zone +09:00."""
    is_postgres = shop.kind == "postgres"
    if is_postgres:
        shop.run("DROP TYPE IF EXISTS mood", "CREATE TYPE mood AS ENUM ('low', 'high')")
    types = POSTGRES_TYPES if is_postgres else MARIADB_TYPES
    described = ", ".join(f"c{number} {kind}" for number, kind in enumerate(types))
    values, nulls = ", ".join(value for value, _, _ in types.values()), ", ".join(["NULL"] * len(types))
    shop.run(f"CREATE TABLE users ({described})", *(f"INSERT INTO users VALUES ({row})" for row in (values, nulls)))
    (piece,) = open_source(users(), "user_table").pieces()
    assert [str(field.type) for field in piece.schema()] == [kind for _, kind, _ in types.values()]
    assert [*read(users()).values()] == [[value, None] for _, _, value in types.values()]


@pytest.mark.parametrize("shop", ["mariadb"], indirect=True)
def test_values_that_have_no_type_are_refused_all_at_once(shop: Shop) -> None:
    shop.run("SET GLOBAL sql_mode = ''", "CREATE TABLE users (a blob, b date, c bigint unsigned, d int)")
    shop.run("INSERT INTO users VALUES ('x', '0000-00-00', 18446744073709551615, 5)")
    with pytest.raises(SchemaError, match=r"(?s)column a: .* got bytes.*column b: .*'0000-00-00'.*column c: .*'1844674"):
        read(users())
    assert read(users(), "d") == {"d": [5]}  # what is not wanted may be anything


@servers
def test_a_session_reads_alone_and_is_in_utc(shop: Shop) -> None:
    if shop.kind == "postgres":
        asked = "SELECT current_setting('TimeZone') AS zone, current_setting('transaction_read_only') AS is_read_only"
        assert read(users(query=asked)) == {"zone": ["UTC"], "is_read_only": ["on"]}
    else:
        asked = "SELECT @@session.time_zone AS zone, @@session.tx_read_only AS is_read_only"
        assert read(users(query=asked)) == {"zone": ["+00:00"], "is_read_only": [1]}


@servers
def test_names_are_quoted_and_two_columns_of_one_name_are_refused(shop: Shop) -> None:
    mark = '"' if shop.kind == "postgres" else "`"
    table = f"{mark}Odd Shop{mark}.{mark}My Users{mark}"
    shop.run(f"CREATE SCHEMA IF NOT EXISTS {mark}Odd Shop{mark}", f"DROP TABLE IF EXISTS {table}")
    shop.run(f"CREATE TABLE {table} ({mark}select{mark} int, {mark}a{2 * mark}%b{mark} int)")
    assert read(users(table="Odd Shop.My Users")) == {"select": [], f"a{mark}%b": []}
    with pytest.raises(InputError, match=r"several columns named a|Duplicate column name 'a'"):
        open_source(users(query="SELECT 1 AS a, 2 AS a"), "user_table").pieces()


@servers
def test_a_column_that_changes_its_type_meanwhile_is_refused(shop: Shop) -> None:
    shop.run("CREATE TABLE users (user_id int, age int)", "INSERT INTO users VALUES (1, 7)")
    (piece,) = open_source(users(), "user_table").pieces()
    assert [block.num_rows for block in piece.blocks(["user_id", "age"])] == [1]
    change = "ALTER age TYPE text" if shop.kind == "postgres" else "MODIFY age text"
    shop.run(f"ALTER TABLE users {change}", "UPDATE users SET age = 'old'")
    with pytest.raises(SchemaError, match=r"column age: expected values of type int\d\d, got .*'old'.* run again"):
        list(piece.blocks(["user_id", "age"]))


@pytest.fixture(params=[run_postgres, run_mariadb], ids=["postgres", "mariadb"])
def own_server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Yields a server that the test may kill."""
    with request.param() as server:
        monkeypatch.setenv("SHOP_DB", server.uri)
        yield server


def test_a_server_that_goes_away_while_a_day_is_read_leaves_what_was_stored(
    own_server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The log has more rows than a buffer holds. The server is killed after the first block; no file, message or output has the password."""
    kind = "postgres" if own_server.uri.startswith("postgres") else "mariadb"
    shop = Shop(kind, own_server.uri, own_server.password)
    put_world(shop)
    numbers = "generate_series(1, 400000) AS numbers (seq)" if kind == "postgres" else "seq_1_to_400000"
    short = "SELECT user_id, item_id, event, ts, price, page, repeat('x', 100) AS padding FROM clicks"
    many = f"{short} UNION ALL {short}, {numbers} WHERE ts = {worlds.start_ms(0)}"
    log = {**TABLES["behavior"], "table": None, "columns": {"event_time": "ts"}, "keep": ["padding"]}

    def configure(query: str) -> Any:
        return worlds.write_config(tmp_path / "world", {"tables": {**TABLES, "behavior": {**log, "query": query}}})

    worlds.run_steps(configure(short), SOURCES, worlds.DAYS[:1])
    loaded = configure(many)
    stored = worlds.open_workspace(loaded).need("behavior_table", worlds.DAYS[0])
    read = DatabaseSource.read

    def ending(self: DatabaseSource, *args: Any) -> Iterator[Any]:
        for number, block in enumerate(read(self, *args)):
            if number == 0:
                own_server.kill()
            yield block

    with monkeypatch.context() as patched:
        patched.setattr(DatabaseSource, "read", ending)
        with pytest.raises(TableError, match=r"expected all requested rows, got .*(connection|killed)") as caught:
            worlds.run_steps(loaded, ["behavior_table"], worlds.DAYS[:1])
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    assert worlds.open_workspace(loaded).need("behavior_table", worlds.DAYS[0]) == stored
    options = {"from": worlds.DAYS[0], "config": str(loaded.path), "home": str(loaded.home)}
    command = ["materialize", "behavior_table", *(part for key, value in options.items() for part in (f"--{key}", value))]
    assert main(command) == 1
    out, err = capfd.readouterr()
    assert "expected a connection, got" in out + err
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not any(own_server.password.encode() in text for text in (*files, out.encode(), err.encode(), caplog.text.encode()))


@pytest.mark.parametrize("shop", ["postgres"], indirect=True)
def test_a_password_and_options_may_have_spaces(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run("DROP ROLE IF EXISTS reader", "CREATE ROLE reader LOGIN PASSWORD 'a b+c%d?e'")
    host = shop.uri.rpartition("@")[2]
    for password in ("a b+c%25d%3fe", "a%20b%2Bc%25d%3Fe"):
        monkeypatch.setenv("SHOP_DB", f"postgresql://reader:{password}@{host}?options=-c%20work_mem%3D77kB")
        asked = "SELECT current_user::text AS name, current_setting('work_mem') AS memory"
        assert read(users(query=asked)) == {"name": ["reader"], "memory": ["77kB"]}


WRONG = {
    "password": lambda uri, password: uri.replace(password, "Mark%3Aer/@1"),
    "database": lambda uri, password: uri.rpartition("/")[0] + "/Marker1",
    "host": lambda uri, password: uri.replace("127.0.0.1", "no-such-host.invalid"),
    "port": lambda uri, password: uri.rpartition(":")[0] + ":1/x",
    "option": lambda uri, password: uri + "?nonsense=1&ssl_password=Marker2",
}


@servers
@pytest.mark.parametrize("wrong", WRONG)
def test_a_connection_that_fails_is_one_error_without_the_password(
    shop: Shop, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DB", WRONG[wrong](shop.uri, shop.password))
    found = r"table user_table, env:SHOP_DB, users: expected a connection.* To fix: .* or SHOP_DB \(user"
    with pytest.raises(TableError, match=found) as caught:
        open_source(users(), "user_table").pieces()
    assert caught.value.__cause__ is None and caught.value.__suppress_context__
    secrets = [shop.password, "Mark:er/@1", "Mark%3Aer", "Marker2"]
    assert not any(secret in str(caught.value) for secret in secrets)
