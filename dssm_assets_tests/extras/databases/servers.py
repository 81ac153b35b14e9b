"""PostgreSQL and MariaDB as processes of this machine, each with an empty database and a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import adbc_driver_postgresql.dbapi
import pymysql

from dssm_assets_tests.deploy.services import HOST, database_owner, free_ports, postgres_folder
from dssm_assets_tests.programs import find_program

SECONDS = 60


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        uri: of its database, with the password.
        process: killing it is a crash.
    """

    uri: str
    password: str
    port: int
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kills the server with all its processes."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class Shop:
    """A database in which tests make tables; `kind` is sqlite, postgres or mariadb."""

    kind: str
    uri: str
    password: str = ""

    def run(self, *statements: str, rows: Sequence[Sequence[Any]] = ()) -> list[Any]:
        """Runs statements, the last one for each of the rows if there are any; returns the rows of its answer."""
        with closing(self._connect()) as connection, closing(connection.cursor()) as cursor:
            for statement in statements[: -1 if rows else None]:
                cursor.execute(statement)
            if rows:
                cursor.executemany(statements[-1], rows)
            found = list(cursor.fetchall()) if cursor.description and not rows else []
            connection.commit()
        return found

    def put(self, table: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Makes a table: column -> type, and rows."""
        described = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        marks = [{"sqlite": "?", "mariadb": "%s"}.get(self.kind, f"${number}") for number in range(1, len(columns) + 1)]
        values = [[row.get(name) for name in columns] for row in rows]
        self.run(f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} ({described})")
        if rows:
            self.run(f"INSERT INTO {table} VALUES ({', '.join(marks)})", rows=values)

    def clear(self) -> None:
        """Drops all tables."""
        listed = {
            "sqlite": "SELECT name FROM sqlite_master WHERE type = 'table'",
            "postgres": "SELECT tablename FROM pg_tables WHERE schemaname = 'public'",
            "mariadb": "SHOW TABLES",
        }
        for (name,) in self.run(listed[self.kind]):
            self.run(f"DROP TABLE {name}{' CASCADE' if self.kind == 'postgres' else ''}")

    def _connect(self) -> Any:
        parts = urlsplit(self.uri)
        if self.kind == "sqlite":
            return sqlite3.connect(self.uri.removeprefix("sqlite:///"))
        if self.kind == "postgres":
            return adbc_driver_postgresql.dbapi.connect(self.uri)
        return pymysql.connect(
            host=parts.hostname,
            port=parts.port or 0,
            user=parts.username,
            password=self.password,
            database=parts.path[1:],
            local_infile=True,
        )


@contextmanager
def run_postgres() -> Iterator[Server]:
    """Yields a PostgreSQL; it ends with the context."""
    programs, owner, password, (port,) = postgres_folder(), database_owner(), _make_password(), free_ports(1)
    with _folder("postgres-of-tests-", owner) as folder:
        (folder / "password").write_text(password, encoding="utf-8")
        made = [
            "-D",
            str(folder / "data"),
            "-U",
            "shop",
            "--auth=scram-sha-256",
            f"--pwfile={folder / 'password'}",
            "--no-sync",
        ]
        _run([str(programs / "initdb"), *made, "--encoding=UTF8", "--locale=C.UTF-8"], folder, owner)
        settings = {
            "port": port,
            "listen_addresses": HOST,
            "unix_socket_directories": folder,
            "fsync": "off",
            "timezone": "Asia/Tokyo",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with _running([str(programs / "postgres"), "-D", str(folder / "data"), *options], folder, owner) as process:
            _wait(process, [str(programs / "pg_isready"), "-q", "-h", HOST, "-p", str(port)], folder)
            yield Server(f"postgresql://shop:{password}@{HOST}:{port}/postgres", password, port, process)


@contextmanager
def run_mariadb() -> Iterator[Server]:
    """Yields a MariaDB; it ends with the context."""
    folders = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    server, install, client = (find_program(name, folders) for name in ("mariadbd", "mariadb-install-db", "mariadb"))
    owner = pwd.getpwnam("mysql").pw_uid if os.getuid() == 0 else None
    password, (port,) = _make_password(), free_ports(1)
    with _folder("mariadb-of-tests-", owner) as folder:
        data, socket = f"--datadir={folder / 'data'}", folder / "socket"
        _run([install, "--no-defaults", data, "--skip-test-db", "--auth-root-authentication-method=normal"], folder, owner)
        options = [f"--port={port}", f"--bind-address={HOST}", f"--socket={socket}", "--innodb-flush-log-at-trx-commit=0"]
        zone = "--default-time-zone=+09:00"
        with _running([server, "--no-defaults", data, *options, zone], folder, owner) as process:
            root = [client, "--no-defaults", f"--socket={socket}", "-u", "root", "-e"]
            _wait(process, [*root, "SELECT 1"], folder)
            grant = f"CREATE DATABASE shop; GRANT ALL ON *.* TO shop@'{HOST}' IDENTIFIED BY '{password}'"
            _run([*root, grant], folder, None)
            yield Server(f"mysql://shop:{password}@{HOST}:{port}/shop", password, port, process)


def _make_password() -> str:
    """Returns a password that a search finds."""
    return f"pass{secrets.token_hex(8)}"


@contextmanager
def _folder(prefix: str, owner: int | None) -> Iterator[Path]:
    with TemporaryDirectory(prefix=prefix, dir="/tmp", ignore_cleanup_errors=True) as name:
        if owner is not None:
            shutil.chown(name, owner)
        yield Path(name)


def _run(command: list[str], folder: Path, owner: int | None) -> None:
    done = subprocess.run(command, cwd=folder, user=owner, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _running(command: list[str], folder: Path, owner: int | None) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, user=owner, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: subprocess.Popen[bytes], command: list[str], folder: Path) -> None:
    end = time.perf_counter() + SECONDS
    while subprocess.run(command, capture_output=True, check=False).returncode:
        log = (folder / "log").read_text(encoding="utf-8", errors="replace")
        assert process.poll() is None and time.perf_counter() < end, log[-3000:]
        time.sleep(0.1)
