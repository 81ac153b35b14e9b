"""Measures writing and reading of the samplers' text tables: `python -m dssm_assets_tests.benchmarks.sampler_tables`.

The tables are generated: items with two fields in attrs, users, edges between them. Rates are the best of three runs. `--base FOLDER` measures the checkout in that folder too and prints it next to this one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

REPEATS = 3
Rates = dict[str, tuple[float, float]]
"""Table -> rows per second written and read."""


def generate_tables(rows: int) -> dict[str, pa.Table]:
    """Returns the table of each kind."""
    rng = np.random.default_rng(17)
    ids, weight = pa.array(rng.integers(0, 1 << 40, rows)), pa.array(rng.random(rows))
    brand = pa.array([f"brand {number}" for number in range(1000)]).take(pa.array(rng.integers(0, 1000, rows)))
    price = pa.array(rng.integers(1, 10_000, rows)).cast(pa.string())
    return {
        "item table": pa.table({"item_id": ids, "weight": weight, "brand": brand, "price": price}),
        "user table": pa.table({"user_id": ids, "weight": weight}),
        "edge table": pa.table({"user_id": ids, "item_id": pa.array(rng.integers(0, 1 << 40, rows)), "weight": weight}),
    }


def measure(rows: int) -> Rates:
    """Returns the rates of the importable package."""
    from dssm_assets.extras.sampler_tables import sampler_tables as module

    # An older checkout has the same functions under other names.
    names: Any = vars(module)
    write, read = names.get("write_tsv") or names["write_text"], names.get("read_tsv") or names["read_text"]
    item_spec = names.get("item_spec") or names["item_form"]
    specs = {
        "item table": item_spec(["brand", "price"]),
        "user table": names.get("USER_SPEC") or names["USER_FORM"],
        "edge table": names.get("HARD_EDGE_SPEC") or names["HARD_EDGE_FORM"],
    }
    found: Rates = {}
    for name, table in generate_tables(rows).items():
        text, write_seconds = _best(lambda name=name, table=table: write(table, specs[name]))
        read_back, read_seconds = _best(lambda name=name, text=text: read(text, specs[name]))
        assert read_back.equals(table)
        found[name] = rows / write_seconds, rows / read_seconds
    return found


def _best(work: Callable[[], Any]) -> tuple[Any, float]:
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def _measure_in(folder: str, rows: int) -> Rates:
    command = [sys.executable, str(Path(__file__).resolve()), "--rows", str(rows), "--json"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": folder}, cwd=folder, capture_output=True, text=True, check=True
    )
    return {name: tuple(rates) for name, rates in json.loads(done.stdout).items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Rows per second of the samplers' text tables, written and read.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--base", metavar="FOLDER", help="another checkout to compare with")
    parser.add_argument("--json", action="store_true", help="print only one JSON object")
    given = parser.parse_args(arguments)
    if given.json:
        print(json.dumps(measure(given.rows)))
        return
    found = {"base": _measure_in(given.base, given.rows)} if given.base else {}
    found["here"] = measure(given.rows)
    print(f"{'table':<14}{'':<8}{'written rows/s':>16}{'read rows/s':>16}")
    for name in found["here"]:
        for place, rates in found.items():
            print(f"{name:<14}{place:<8}{rates[name][0]:>16,.0f}{rates[name][1]:>16,.0f}")


if __name__ == "__main__":
    main()
