"""Rows per second and peak memory of writing item vectors: `python -m dssm_assets_tests.benchmarks.vectors --items 200000`.

Writes the partition part by part, as the asset does, and as one matrix. Each runs in its own process. Prints the memory
before the towers run, the peak, and the size of the vectors. Asserts nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.vector_rows import write_vectors


def table(items: int, dims: int) -> list[str]:
    """Returns the table of both ways, a line each."""
    lines = [f"{'way':<12}{'rows/s':>12}{'MiB before':>12}{'MiB peak':>12}{'MiB more':>12}{'vectors MiB':>14}"]
    for way, is_whole in (("in parts", False), ("whole", True)):
        found = run_apart(write_vectors, items=items, dims=dims, is_whole=is_whole)
        more = found["peak_mib"] - found["before_mib"]
        lines.append(
            f"{way:<12}{found['rows_per_s']:>12,.0f}{found['before_mib']:>12,.0f}{found['peak_mib']:>12,.0f}{more:>12,.0f}"
            f"{items * dims * 4 / 2**20:>14,.0f}"
        )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description="Rows per second and peak memory of writing item vectors.")
    parser.add_argument("--items", type=int, default=200_000)
    parser.add_argument("--dims", type=int, default=64)
    given = parser.parse_args(arguments)
    print("\n".join(table(given.items, given.dims)))


if __name__ == "__main__":
    main()
