"""One log in every kind of store: digests of behavior_table, seconds and peak memory of all days and of one day.

    python -m dssm_assets_tests.benchmarks.source_formats [--rows 1000000] [--stores parquet postgres]

Databases run as servers of this machine, with an index on the time column. Each figure is of a process of its own.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from dssm_assets.steps.source import behavior_table
from dssm_assets.steps.workspace import days_between, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.process_cost import run_limited
from dssm_assets_tests.extras.databases.servers import Shop, run_mariadb, run_postgres

DAYS: Final = days_between("2026-01-01", "2026-01-30")
POSTGRES, MARIADB = "BENCHMARK_POSTGRES", "BENCHMARK_MARIADB"
"""Environment variables with the URIs of the servers."""
COLUMNS: Final = "user_id VARCHAR(20), item_id VARCHAR(20), event VARCHAR(20), ts {}, price DOUBLE PRECISION, page VARCHAR(20)"


def make_days(rows: int) -> Iterator[pa.Table]:
    """Yields a log of random events, day by day; one row in fifty has the key of the one before and another price."""
    draw = np.random.default_rng(17)
    for day in DAYS:
        count = rows // len(DAYS)
        start = np.datetime64(day, "us").astype(np.int64)
        twins = np.maximum(np.arange(count) - (np.arange(count) % 50 == 49), 0)
        events = pa.table(
            {
                "user_id": pa.array(draw.integers(0, 50_000, count)).cast(pa.string()),
                "item_id": pa.array(draw.integers(0, 20_000, count)).cast(pa.string()),
                "event": pa.array(np.where(draw.random(count) < 0.9, "click", "buy")),
                "ts": pa.array(start + np.sort(draw.integers(0, 86_400_000_000, count))).cast(pa.timestamp("us", "UTC")),
            }
        ).take(pa.array(twins))
        pages = pa.array(np.where(draw.random(count) < 0.5, "home", "search"))
        yield events.append_column("price", pa.array(draw.random(count))).append_column("page", pages)


def write_parquet(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as a folder of files; returns its keys in the configuration."""
    (folder / "log").mkdir()
    for number, rows in enumerate(log):
        pq.write_table(rows, folder / "log" / f"{number:03d}.parquet")
    return {"uri": str(folder / "log"), "format": "parquet"}


def write_delta(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as a Delta table; returns its keys in the configuration."""
    from deltalake import write_deltalake

    for rows in log:
        write_deltalake(folder / "delta", rows, mode="append")
    return {"uri": str(folder / "delta"), "format": "delta"}


def write_iceberg(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as an Iceberg table of a catalog in SQLite; returns its keys in the configuration."""
    from pyiceberg.catalog import load_catalog

    options = {"type": "sql", "uri": f"sqlite:///{folder}/catalog.db", "warehouse": f"file://{folder}"}
    catalog = load_catalog("lake", **options)
    catalog.create_namespace("shop")
    for rows in log:
        catalog.create_table_if_not_exists("shop.log", rows.schema).append(rows)
    return {"uri": "lake", "format": "iceberg", "table": "shop.log", "storage_options": options}


def write_postgres(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as a table of the running PostgreSQL."""
    import adbc_driver_postgresql.dbapi as driver

    with driver.connect(os.environ[POSTGRES]) as connection, connection.cursor() as cursor:
        for rows in log:
            cursor.adbc_ingest("log", rows, mode="create_append")
        cursor.execute("CREATE INDEX log_ts ON log (ts)")
        connection.commit()
    return {"uri": f"env:{POSTGRES}", "format": "sql", "table": "log"}


def write_mariadb(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as a table of the running MariaDB, whose zone is +09:00."""
    shop, path = Shop("mariadb", os.environ[MARIADB], os.environ[MARIADB].split(":")[2].split("@")[0]), folder / "rows.csv"
    shop.run(f"CREATE TABLE log ({COLUMNS.format('TIMESTAMP(6) NULL')}, INDEX (ts))")
    for rows in log:
        times = rows.column("ts").cast(pa.timestamp("us"))
        pcsv.write_csv(rows.set_column(3, "ts", times), path, pcsv.WriteOptions(include_header=False))
        into = "INTO TABLE log FIELDS TERMINATED BY ',' OPTIONALLY ENCLOSED BY '\"'"
        shop.run("SET time_zone = '+00:00'", f"LOAD DATA LOCAL INFILE '{path}' {into}")
    return {"uri": f"env:{MARIADB}", "format": "sql", "table": "log"}


def write_sqlite(log: Iterator[pa.Table], folder: Path) -> dict[str, Any]:
    """Writes the log as a table of SQLite, with times in milliseconds."""
    with sqlite3.connect(folder / "log.db") as connection:
        connection.execute(f"CREATE TABLE log ({COLUMNS.format('BIGINT')})")
        for rows in log:
            times = rows.column("ts").cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.int64())
            columns = [column.to_pylist() for column in rows.set_column(3, "ts", times)]
            connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", zip(*columns, strict=True))
        connection.execute("CREATE INDEX log_ts ON log (ts)")
    return {"uri": f"sqlite:///{folder / 'log.db'}", "format": "sql", "table": "log"}


STORES: Final[Mapping[str, Callable[[Iterator[pa.Table], Path], dict[str, Any]]]] = {
    "parquet": write_parquet,
    "delta": write_delta,
    "iceberg": write_iceberg,
    "postgres": write_postgres,
    "mariadb": write_mariadb,
    "sqlite": write_sqlite,
}
"""Store -> writes the log into it; returns its keys in the configuration. The first one is what the others are compared with."""


def read_log(source: dict[str, Any], home: str, days: list[str]) -> dict[str, Any]:
    """Makes behavior_table of some days; returns its digests and the seconds."""
    changes = {"calendar": {"start": DAYS[0], "end": DAYS[-1], "timezone": "UTC"}, "tables": {"behavior": source}}
    workspace = open_workspace(worlds.write_config(Path(home), changes))
    begin = time.perf_counter()
    digests = [result.manifest.digest for result in behavior_table(workspace, days)]
    return {"digests": digests, "seconds": time.perf_counter() - begin}


def main() -> None:
    """Prints a row per store; fails if a digest differs from that of the first store."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--stores", nargs="+", choices=STORES, default=list(STORES))
    parsed = parser.parse_args()
    expected: dict[int, Any] = {}
    print("| store | 30 days | | one day | |\n|---|---|---|---|---|")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="source-formats-")))
        for variable, name, run in ((POSTGRES, "postgres", run_postgres), (MARIADB, "mariadb", run_mariadb)):
            if name in parsed.stores:
                os.environ[variable] = stack.enter_context(run()).uri
        for name in parsed.stores:
            source, cells = STORES[name](make_days(parsed.rows), folder), [name]
            for days in (DAYS, DAYS[9:10]):
                home = str(folder / f"{name}-{len(days)}")
                measured = run_limited(read_log, None, source=source, home=home, days=days)
                digests = measured.result["digests"]
                assert digests == expected.setdefault(len(days), digests), f"{name}: other rows than {parsed.stores[0]}"
                cells += [f"{measured.result['seconds']:.1f} s", f"{measured.resident_mib:.0f} MiB"]
            print(f"| {' | '.join(cells)} |", flush=True)
    print(f"{sum(map(len, expected.values()))} digests are equal in all stores.")


if __name__ == "__main__":
    main()
