"""What is PostgreSQL's own: lost connections, rights, locks, names and numbers that SQL treats in its way, and publishers beside readers."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context

import numpy as np
import psycopg
import pyarrow as pa
import pytest

from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import ConfigError, StorageError
from dssm_assets.extras.vector_stores.conditions import UnsupportedConditionError, parse_filters
from dssm_assets.extras.vector_stores.stores import open_store
from dssm_assets_tests.extras.vector_stores.made_rows import item_rows, nearest, publish, to_rows, user_rows

ITEM, USER = VectorTable.ITEM, VectorTable.USER
A, B, C = "2024-01-12-aaaaaaaaaaaa", "2024-01-13-bbbbbbbbbbbb", "2024-01-14-cccccccccccc"


@pytest.fixture
def uri(postgres: Callable[[], str]) -> str:
    return postgres()


def read_alias(connection: psycopg.Connection, alias: str = "shop_item") -> list:
    return connection.execute(f"SELECT model_digest, count(*) FROM {alias} GROUP BY 1").fetchall()


def publish_for_ever(uri: str, seed: int) -> None:
    store = open_store(uri, "shop", {})
    while True:
        publish(store, (A, B)[seed % 2], item_rows(40, f"model-{seed}"), user_rows([1, 2]))
        seed += 1


def test_a_lost_connection_is_opened_again(uri: str) -> None:
    store = open_store(uri, "shop", {})
    publish(store, A, item_rows(20))
    stored = store.open(ITEM, A)
    with psycopg.connect(uri, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND datname = current_database()")
    assert stored.count() == 20


def test_a_user_without_rights_is_told_what_is_missing(uri: str) -> None:
    with psycopg.connect(uri, autocommit=True) as admin:
        name = f"reader_{time.time_ns()}"
        admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'sec/ret'")
        admin.execute(f"GRANT CREATE ON SCHEMA public TO {name}")
    store = open_store(uri.replace("postgres:@", f"{name}:sec%2Fret@", 1), "shop", {})
    assert (store.find_versions(), store.find_removable([], before=0)) == ({}, [])
    with pytest.raises(StorageError, match="permission denied.*let its administrator run CREATE EXTENSION vector"):
        store.write(ITEM, to_rows(item_rows(5)))


def test_a_password_stands_in_no_error() -> None:
    store = open_store("postgresql://bob:s%40cret@127.0.0.1:1/db?sslpassword=hidden", "shop", {})
    with pytest.raises(StorageError, match="postgresql://127.0.0.1:1/db: expected a vector store that answers") as caught:
        store.find_versions()
    assert not {"s%40cret", "s@cret", "hidden"} & set(str(caught.value).split())
    with pytest.raises(ConfigError, match="at most 43 characters, for tables in PostgreSQL, got 44"):
        open_store("postgresql://host/db", 44 * "s", {})


def test_names_and_values_that_sql_treats_in_its_way(uri: str) -> None:
    numbers = [float("nan"), float("-inf"), -1.5, 0.1, float("inf")] * 20
    items = item_rows(100).select(["item_id", "vector", "ds", "model_digest"])
    items = items.append_column('a"b %s', pa.array([f"\\'{n % 3}%" for n in range(100)]))
    items = items.append_column("number", pa.array(numbers, pa.float32()))
    items = items.append_column("numbers", pa.array([[one, None] for one in numbers], pa.list_(pa.float64())))
    items = items.append_column("big", pa.array([2**64 - 1 - n for n in range(100)], pa.uint64()))
    store = open_store(uri, "shop", {})
    publish(store, A, items)
    columns, user = {field.name: field.type for field in items.schema}, np.ones((1, 8), np.float32)
    words = [{"number": {"min": 0.1}}, {"number": 0.1}, {"numbers": {"min": 0}}, {"big": [2**64 - 1, 3]}, {'a"b %s': "\\'1%"}]
    for filters in [*words, {"number": {"not": float("-inf")}}]:
        ((ids, _),) = store.open(ITEM, A).search(user, 100, parse_filters(filters, columns))
        assert sorted(ids.to_pylist()) == sorted(nearest(items, user[0], 100, filters)), filters
    with pytest.raises(UnsupportedConditionError, match="zero byte"):
        store.open(ITEM, A).search(user, 1, parse_filters({'a"b %s': "\0"}, columns))


def test_vectors_too_wide_for_an_index_are_compared_one_by_one(uri: str) -> None:
    items = item_rows(30, width=2001)
    store = open_store(uri, "shop", {})
    publish(store, A, items)
    ((ids, _),) = store.open(ITEM, A).search(np.ones((1, 2001), np.float32), 5)
    assert ids.to_pylist() == nearest(items, np.ones(2001), 5)


@pytest.mark.slow
def test_a_reader_that_stays_delays_a_change_but_is_not_disturbed(uri: str) -> None:
    store = open_store(uri, "shop", {})
    publish(store, A, item_rows(20), user_rows([1]))
    with psycopg.connect(uri) as reader:
        assert read_alias(reader) == [("model-a", 20)]
        with pytest.raises(StorageError, match="LockNotAvailable"):
            publish(store, B, item_rows(30, "model-b"))
        store.remove(B)
        assert (store.find_served(), store.find_versions()) == (A, {A: A})
    publish(store, B, item_rows(30, "model-b"))
    with psycopg.connect(uri) as reader:
        with pytest.raises(psycopg.errors.UndefinedTable):  # the version has no users
            read_alias(reader, "shop_user")
    with psycopg.connect(uri) as reader:
        ((users,),) = reader.execute("SELECT tables ->> 'user' FROM shop_vector_versions WHERE is_served = false").fetchall()
        reader.execute(f"SELECT FROM {users}")
        store.remove(A)
        assert store.find_removable([], before=0) == [A]
    store.remove(A)
    assert store.find_versions() == {B: B}


@pytest.mark.slow
def test_a_silent_server_is_an_error_soon(uri: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        with pytest.raises(StorageError, match="timeout"):
            open_store(f"postgresql://127.0.0.1:{server.getsockname()[1]}/db", "shop", {}).find_versions()
    assert time.monotonic() - begun < 12


@pytest.mark.slow
def test_no_answer_mixes_versions_while_others_follow(uri: str) -> None:
    versions = [f"2024-01-12-{number:012x}" for number in range(50)]
    store = open_store(uri, "shop", {})
    publish(store, versions[0], item_rows(40, "model-0"))
    answers = []

    def read(is_alias: bool) -> int:
        count, reader = 0, open_store(uri, "shop", {})
        with psycopg.connect(uri, autocommit=True) as connection:
            while reader.find_served() != versions[-1]:
                if is_alias:
                    ((model, rows),) = read_alias(connection)
                else:
                    stored = reader.open(ITEM, reader.find_served())
                    ((ids, _),) = stored.search(np.ones((1, 8), np.float32), 200)
                    rows, (model,) = len(ids), set(stored.read(ids).column("model_digest").to_pylist())
                answers.append(rows - int(model.removeprefix("model-")) == 40)
                count += 1
        return count

    with ThreadPoolExecutor(8) as pool:
        readers = [pool.submit(read, number % 2 == 0) for number in range(8)]
        for number, version in enumerate(versions[1:], 1):
            rows = item_rows(40 + number, f"model-{number}")
            publish(store, version, rows.drop(["price"]) if number % 10 == 5 else rows)
            for name in store.find_removable(versions[number - 1 : number + 1], before=0):
                store.remove(name)
        assert min(reader.result() for reader in readers) > 10
    assert all(answers)


@pytest.mark.slow
def test_killed_publishers_and_two_at_once_leave_one_whole_version(uri: str) -> None:
    publish(open_store(uri, "shop", {}), A, item_rows(40, "model-0"), user_rows([1, 2]))
    for number in range(12):
        publishers = [get_context("fork").Process(target=publish_for_ever, args=(uri, seed)) for seed in (number, 1000 + number)]
        for publisher in publishers:
            publisher.start()
        time.sleep(0.3 + number * 0.037)
        for publisher in publishers:
            os.kill(publisher.pid or 0, signal.SIGKILL)
            publisher.join()
        store = open_store(uri, "shop", {})
        served = store.find_served()
        assert served in (A, B)
        with psycopg.connect(uri) as connection:
            ((model, rows),) = read_alias(connection)
            assert (model[:6], rows, read_alias(connection, "shop_user")) == ("model-", 40, [("model-a", 4)])
    publish(store, C, item_rows(50, "model-c"), user_rows([1]))
    for name in store.find_removable([C], before=time.time() + 60):
        store.remove(name)
    assert (store.find_versions(), store.find_removable([C], before=time.time() + 60)) == ({C: C}, [])
    with psycopg.connect(uri) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE tablename ~ '^shop_(item|user)_'").fetchall() == [(2,)]
