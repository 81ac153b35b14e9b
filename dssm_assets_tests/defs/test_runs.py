"""SQLite files of a run are kept open with their write-ahead log during the run, and checkpointed after it."""

import sqlite3
from contextlib import closing

import sqlalchemy as sa

from dssm_assets.defs.runs import sqlite_kept_open


def write(path, value):
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("PRAGMA journal_mode=WAL"))
        connection.execute(sa.text("create table if not exists seen (value integer)"))
    with engine.begin() as connection:
        level = connection.execute(sa.text("PRAGMA synchronous")).scalar()
        connection.execute(sa.text(f"insert into seen values ({value})"))
    return level


def rows(path):
    with closing(sqlite3.connect(path)) as connection:
        return [value for (value,) in connection.execute("select value from seen")]


def test_write_ahead_log_stays_between_connections_and_is_merged_at_the_end(tmp_path):
    path, ahead = tmp_path / "events.db", tmp_path / "events.db-wal"
    with sqlite_kept_open():
        assert write(path, 1) == 1  # normal
        assert ahead.exists()
        assert write(path, 2) == 1
        assert rows(path) == [1, 2]
    assert not ahead.exists()
    assert rows(path) == [1, 2]


def test_connections_outside_the_block_do_not_change(tmp_path):
    path = tmp_path / "events.db"
    with sqlite_kept_open():
        pass
    assert write(path, 1) == 2  # full, SQLite's own
    assert not (tmp_path / "events.db-wal").exists()


def test_database_in_memory_is_not_kept_open():
    with sqlite_kept_open(), sa.create_engine("sqlite://").connect() as connection:
        assert connection.execute(sa.text("select 1")).scalar() == 1
