"""One log as parquet, Delta and Iceberg: digests of behavior_table, seconds and peak memory of all days and of one day.

    python -m dssm_assets_tests.benchmarks.lake_stores [--rows 1000000]

The tables have a file per day, as a daily ingestion writes them. Each figure is of a process of its own.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.steps.source import behavior_table
from dssm_assets.steps.workspace import days_between, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks.process_cost import run_limited

DAYS: Final = days_between("2026-01-01", "2026-01-30")


def make_days(rows: int) -> Iterator[pa.Table]:
    """Yields a log of random events, day by day."""
    draw = np.random.default_rng(17)
    for day in DAYS:
        count = rows // len(DAYS)
        start = np.datetime64(day, "us").astype(np.int64)
        yield pa.table(
            {
                "user_id": pa.array(draw.integers(0, 50_000, count)).cast(pa.string()),
                "item_id": pa.array(draw.integers(0, 20_000, count)).cast(pa.string()),
                "event": pa.array(np.where(draw.random(count) < 0.9, "click", "buy")),
                "ts": pa.array(start + np.sort(draw.integers(0, 86_400_000_000, count))).cast(pa.timestamp("us", "UTC")),
                "price": draw.random(count),
                "page": pa.array(np.where(draw.random(count) < 0.5, "home", "search")),
            }
        )


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


STORES: Final[Mapping[str, Callable[[Iterator[pa.Table], Path], dict[str, Any]]]] = {
    "parquet": write_parquet,
    "delta": write_delta,
    "iceberg": write_iceberg,
}


def read_log(source: dict[str, Any], home: str, days: list[str]) -> dict[str, Any]:
    """Makes behavior_table of some days; returns its digests and the seconds."""
    changes = {"calendar": {"start": DAYS[0], "end": DAYS[-1], "timezone": "UTC"}, "tables": {"behavior": source}}
    workspace = open_workspace(worlds.write_config(Path(home), changes))
    begin = time.perf_counter()
    digests = [result.manifest.digest for result in behavior_table(workspace, days)]
    return {"digests": digests, "seconds": time.perf_counter() - begin}


def main() -> None:
    """Prints a row per store; fails if a digest differs from that of parquet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    expected: dict[int, Any] = {}
    with tempfile.TemporaryDirectory(prefix="lake-stores-") as folder:
        for name, write in STORES.items():
            source = write(make_days(rows), Path(folder))
            for days in (DAYS, DAYS[9:10]):
                home = str(Path(folder) / f"{name}-{len(days)}")
                measured = run_limited(read_log, None, source=source, home=home, days=days)
                digests = measured.result["digests"]
                assert digests == expected.setdefault(len(days), digests), f"{name}: other rows than parquet"
                seconds = measured.result["seconds"]
                print(
                    f"{name:8} {len(days):2} days {seconds:6.2f} s {measured.resident_mib:6.0f} MiB, digests equal", flush=True
                )


if __name__ == "__main__":
    main()
