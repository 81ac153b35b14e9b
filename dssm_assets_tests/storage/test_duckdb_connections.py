"""Connections: kept when they come back clean, closed else, and empty whenever they are lent."""

from pathlib import Path

import pytest

from dssm_assets.storage.duckdb_connections import DuckDBConnections

_ALL = "select view_name from duckdb_views() where not internal union all select table_name from duckdb_tables()"


def connections(folder: Path, *, is_kept: bool = True) -> DuckDBConnections:
    return DuckDBConnections(1, "32MB", folder / "scratch", is_kept=is_kept)


def test_one_that_comes_back_clean_is_lent_again_and_empty(tmp_path):
    pool = connections(tmp_path)
    with pool.lent() as first:
        first.connection.con.execute('create table "a b" as select 1 as x')
        first.connection.con.execute("create temp table c as select 1 as x")
        first.connection.con.execute("create view d as select 1 as x")
    with pool.lent() as second:
        assert second is first
        assert second.connection.con.execute(_ALL).fetchall() == []


def test_calls_that_overlap_have_connections_of_their_own(tmp_path):
    pool = connections(tmp_path)
    with pool.lent() as outer, pool.lent() as inner:
        outer.connection.con.execute("create table a as select 1 as x")
        assert inner.connection.con.execute(_ALL).fetchall() == []


def test_one_whose_call_failed_is_not_lent_again(tmp_path):
    pool = connections(tmp_path)
    with pytest.raises(RuntimeError), pool.lent() as first:
        raise RuntimeError
    with pool.lent() as second:
        assert second is not first


def test_one_that_has_spilled_is_closed_and_what_it_spilled_is_gone(tmp_path):
    pool = connections(tmp_path)
    with pool.lent() as first:
        text = "select range as a, hash(range)::varchar as b from range(3000000) order by b"
        for _ in first.connection.con.sql(text).to_arrow_reader(100_000):
            pass
        assert first.spilled.exists()
    assert list((tmp_path / "scratch").iterdir()) == []
    with pool.lent() as second:
        assert second is not first


def test_none_is_kept_where_none_is_to_be(tmp_path):
    pool = connections(tmp_path, is_kept=False)
    with pool.lent() as first:
        pass
    with pool.lent() as second:
        assert second is not first


def test_sql_follows_the_expression(tmp_path):
    with connections(tmp_path).lent() as lent:
        lent.connection.con.execute("create table a as select 1 as x")
        table = lent.connection.table("a")
        ones, twos = (lent.sql_of(table.mutate(y=table.x + number)) for number in (1, 2))
        assert lent.connection.con.sql(ones).fetchall() == [(1, 2)]
        assert lent.connection.con.sql(twos).fetchall() == [(1, 3)]
        assert lent.sql_of(table.mutate(y=table.x + 2)) == twos
