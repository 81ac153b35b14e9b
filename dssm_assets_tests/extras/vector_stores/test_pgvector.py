"""What is PostgreSQL's own: lost connections, rights, locks and values that SQL treats in its way."""

import os
import signal
import socket
import time
from collections.abc import Callable

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import ConfigError, StorageError
from dssm_assets.extras.vector_stores.store import open_store
from dssm_assets.extras.vector_stores.testing import item_rows, nearest, publish, to_rows, user_rows

ITEM = VectorTable.ITEM
A, B = "2024-01-12-aaaaaaaaaaaa", "2024-01-13-bbbbbbbbbbbb"
USER = np.ones((1, 8), np.float32)


@pytest.fixture
def uri(postgres: Callable[[], str]) -> str:
    return postgres()


def ask(uri: str, sql: str) -> list:
    with psycopg.connect(uri, autocommit=True) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description else []


def test_a_lost_connection_is_opened_again(uri: str) -> None:
    store = publish(open_store(uri, "shop", {}), A, item_rows(20))
    stored = store.open(ITEM, A)
    ask(
        uri,
        "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    assert stored.count() == 20


def test_searches_end_where_the_server_hangs(uri: str) -> None:
    publish(open_store(uri, "shop", {}), A, item_rows(20))
    store = open_store(uri, "shop", {}, seconds=0.4)
    stored = store.open(ITEM, A)
    begun = time.monotonic()
    with psycopg.connect(uri) as other:
        ((table,),) = other.execute("SELECT tables ->> 'item' FROM shop_vector_versions").fetchall()
        other.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StorageError, match="statement timeout"):
            stored.search(np.ones((30, 8), np.float32), 5)
    assert time.monotonic() - begun < 1.5
    assert len(stored.search(USER, 5)[0][0]) == 5
    stopped = []
    with store.connect() as connection:
        stopped.append(connection.info.backend_pid)
    os.kill(stopped[0], signal.SIGSTOP)  # its connection is there, and nothing answers
    assert len(stored.search(USER, 5)[0][0]) == 5, "by another connection"
    with pytest.raises(StorageError, match="OperationalError"), store.connect() as connection:
        stopped.append(connection.info.backend_pid)
        os.kill(stopped[1], signal.SIGSTOP)
        connection.execute("SELECT 1")
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)


def test_errors_say_what_is_missing_and_no_password(uri: str) -> None:
    reader = f"reader_{time.time_ns()}"
    ask(uri, f"CREATE ROLE {reader} LOGIN; GRANT CREATE ON SCHEMA public TO {reader}")
    store = open_store(uri.replace("postgres:@", f"{reader}:@", 1), "shop", {})
    assert (store.find_versions(), store.find_removable([], before=0)) == ({}, [])
    with pytest.raises(StorageError, match=r"permission denied.*let an administrator run CREATE EXTENSION vector"):
        store.write(ITEM, to_rows(item_rows(5)))
    with pytest.raises(StorageError, match=r"postgresql://localhost/b: .* got [^@]*$") as caught:
        open_store("postgresql://bob:s%40c/ret@localhost/b?sslpassword=hid%20den", "shop", {}).find_versions()
    assert not [secret for secret in ("s%40c", "s@c", "ret@", "hid%20den", "hid den") if secret in str(caught.value)]
    with pytest.raises(StorageError) as caught:
        open_store("postgresql://bob:s@cret@127.0.0.1:1/b", "shop", {}).find_versions()
    assert "cret" not in str(caught.value)
    with pytest.raises(ConfigError, match="at most 43 characters, for tables in PostgreSQL, got 44"):
        open_store("postgresql://host/db", 44 * "s", {})


def test_names_and_values_that_sql_treats_in_its_way(uri: str) -> None:
    numbers = [float("nan"), float("-inf"), -1.5, 0.1, float("inf")] * 20
    items = item_rows(100).select(["item_id", "item_tower_emb", "ds", "model_digest"])
    items = items.append_column('a"b %s', pa.array([f"\\'{n % 3}%" for n in range(100)]))
    items = items.append_column("number", pa.array(numbers, pa.float32()))
    items = items.append_column("numbers", pa.array([[one, None] for one in numbers], pa.list_(pa.float64())))
    items = items.append_column("big", pa.array([2**64 - 1 - n for n in range(100)], pa.uint64()))
    store = publish(open_store(uri, "shop", {}), A, items)
    wanted = 'SELECT item_id FROM shop_item WHERE big >= 18446744073709551600 AND "a""b %%s" = %s ORDER BY 1'
    with store.connect() as connection:
        found = [number for (number,) in connection.execute(wanted, ["\\'1%"])]
    assert found == [1, 4, 7, 10, 13]
    publish(store, B, item_rows(30, width=2001))  # no index has such vectors
    ((ids, _),) = store.open(ITEM, B).search(np.ones((1, 2001), np.float32), 5)
    assert ids.to_pylist() == nearest(item_rows(30, width=2001), np.ones(2001), 5)


@pytest.mark.slow
def test_a_silent_server_and_a_reader_that_stays_are_errors_soon(uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(StorageError, match="timeout"):
        open_store(f"postgresql://127.0.0.1:{server.getsockname()[1]}/db", "shop", {}).find_versions()
    store = publish(open_store(uri, "shop", {}), A, item_rows(20), user_rows([1]))
    with psycopg.connect(uri) as reader:
        reader.execute("SELECT FROM shop_item")
        with pytest.raises(StorageError, match="LockNotAvailable"):
            publish(store, B, item_rows(30, "model-b"))
        store.remove(B)
        assert (store.find_served(), store.find_versions()) == (A, {A: A})
    publish(store, B, item_rows(30, "model-b"))
    assert ask(uri, "SELECT to_regclass('shop_item') IS NULL, to_regclass('shop_user') IS NULL") == [(False, True)]
    with psycopg.connect(uri) as reader:
        ((users,),) = reader.execute("SELECT tables ->> 'user' FROM shop_vector_versions WHERE NOT is_served").fetchall()
        reader.execute(f"SELECT FROM {users}")
        store.remove(A)
        assert store.find_removable([], before=0) == [A]
    store.remove(A)
    assert store.find_versions() == {B: B}
