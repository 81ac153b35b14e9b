"""PostgreSQL and MariaDB as processes of this machine, each with an empty database and a password."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import adbc_driver_postgresql.dbapi
import pymysql

from dssm_assets_tests.deploy.services import HOST, free_ports, running
from dssm_assets_tests.programs import find_program


@dataclass(frozen=True)
class Server:
    """A running server: the URI of its database, with the password, and what kills it with all its processes."""

    uri: str
    password: str
    kill: Callable[[], None]


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

    def _connect(self) -> Any:
        parts = urlsplit(self.uri)
        if self.kind == "sqlite":
            return sqlite3.connect(self.uri.removeprefix("sqlite:///"))
        if self.kind == "postgres":
            return adbc_driver_postgresql.dbapi.connect(self.uri)
        login = {"user": parts.username, "password": self.password, "host": parts.hostname, "port": parts.port}
        return pymysql.connect(**login, database=parts.path[1:], local_infile=True)


@contextmanager
def run_postgres() -> Iterator[Server]:
    """Yields the PostgreSQL of the deployment, in the time zone of Tokyo; it ends with the context."""
    with TemporaryDirectory(prefix="postgres-of-tests-", ignore_cleanup_errors=True) as root, running(Path(root)) as services:
        services.start("postgres")
        given, port = services.described["postgres"].environment, services.variables["DAGSTER_PG_PORT"]
        user, password, database = (given[f"POSTGRES_{name}"] for name in ("USER", "PASSWORD", "DB"))
        uri = f"postgresql://{user}:{password}@{HOST}:{port}/{database}"
        Shop("postgres", uri).run(f"ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'")
        yield Server(uri, password, lambda: services.kill("postgres"))


@contextmanager
def run_mariadb() -> Iterator[Server]:
    """Yields a MariaDB in the zone +09:00; it ends with the context."""
    folders = os.pathsep.join([os.environ["PATH"], "/usr/sbin"])
    server, install, client = (find_program(name, folders) for name in ("mariadbd", "mariadb-install-db", "mariadb"))
    owner = pwd.getpwnam("mysql").pw_uid if os.getuid() == 0 else None
    password, (port,) = f"pass{secrets.token_hex(8)}", free_ports(1)
    with TemporaryDirectory(prefix="mariadb-of-tests-", dir="/tmp", ignore_cleanup_errors=True) as folder, ExitStack() as stack:
        if owner is not None:
            shutil.chown(folder, owner)
        data, socket, log = f"--datadir={folder}/data", f"{folder}/socket", stack.enter_context(Path(folder, "log").open("wb"))

        def run(*command: str) -> int:
            return subprocess.run(command, cwd=folder, user=owner, stdout=log, stderr=log, check=False).returncode

        assert run(install, "--no-defaults", data, "--skip-test-db", "--auth-root-authentication-method=normal") == 0
        options = [
            f"--port={port}",
            f"--bind-address={HOST}",
            "--innodb-flush-log-at-trx-commit=0",
            "--default-time-zone=+09:00",
        ]
        command = [server, "--no-defaults", data, f"--socket={socket}", *options]
        process = subprocess.Popen(command, cwd=folder, user=owner, stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)
        grant = f"CREATE DATABASE shop; GRANT ALL ON *.* TO shop@'{HOST}' IDENTIFIED BY '{password}'"
        end = time.perf_counter() + 60
        while run(client, "--no-defaults", f"--socket={socket}", "-u", "root", "-e", grant):
            assert process.poll() is None and time.perf_counter() < end, Path(folder, "log").read_text()[-3000:]
            time.sleep(0.1)
        yield Server(f"mysql://shop:{password}@{HOST}:{port}/shop", password, process.kill)
