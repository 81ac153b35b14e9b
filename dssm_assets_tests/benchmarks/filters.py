"""Recall and time of lists under a filter: `python -m dssm_assets_tests.benchmarks.filters --items 1000000`.

A bundle of random items (see `benchmarks/serving.py`) has a column of which a filter lets a given fraction of the items pass, at
random. The engine's lists of 200 for stored users, one thread, are compared with brute force over the passing items; the first request with a
filter, which computes its bitmap, is timed apart. Items that pass by chance say nothing about filters whose items lie together, such as a
category: there an index meets either almost none or almost all of them on its way, so recall differs from user to user.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np
import pyarrow as pa

from dssm_assets.core.config.evaluation import IndexKind
from dssm_assets.serving.recall_engine import ListOptions, RecallEngine
from dssm_assets_tests.benchmarks.serving import DIMS, USERS, K, vectors, write

FRACTIONS = (1.0, 0.5, 0.05, 0.001)


def report(item_count: int, kind: IndexKind, users: int, folder: Path) -> list[str]:
    """Returns the lines of the report."""
    draws = np.random.default_rng(5).random(item_count)
    lines = write(folder, item_count, kind, pa.table({"draw": draws}), recall=0.98)
    engine, items = RecallEngine.open(str(folder), is_verified=False), vectors(item_count, 1)
    wanted = vectors(USERS, 2)[:users]
    faiss.omp_set_num_threads(1)
    lines += ["", f"{'passing':>8}  {'items':>9}  {'recall@' + str(K):>10}  {'first ms':>8}  {'p50 ms':>7}  {'p99 ms':>7}"]
    for fraction in FRACTIONS:
        options = ListOptions(K, filters={"draw": {"max": fraction}})
        start = time.perf_counter()
        engine.recall_for_user("user0", options)
        first = time.perf_counter() - start
        passing = np.flatnonzero(draws <= fraction)
        k = min(K, len(passing))
        _, best = faiss.knn(wanted, np.ascontiguousarray(items[passing]), k, metric=faiss.METRIC_INNER_PRODUCT)
        found, each = 0, []
        for user in range(users):
            start = time.perf_counter()
            got = engine.recall_for_user(f"user{user}", options).item_ids
            each.append(time.perf_counter() - start)
            assert len(got) == k
            found += len(np.intersect1d(np.array(got) - 10_000_000, passing[best[user]]))
        p50, p99 = (1e3 * np.quantile(each, share) for share in (0.5, 0.99))
        recall = found / (k * users)
        lines.append(f"{fraction:>8.1%}  {len(passing):>9,}  {recall:>10.4f}  {1e3 * first:>8.1f}  {p50:>7.2f}  {p99:>7.2f}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Prints the report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=100_000, help=f"number of items of {DIMS} dimensions (default: 100,000)")
    parser.add_argument("--index", type=IndexKind, choices=list(IndexKind), default=IndexKind.AUTO, help="(default: auto)")
    parser.add_argument("--users", type=int, default=300, help="users whose lists are compared (default: 300)")
    parsed = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="dssm-filters-") as folder:
        print("\n".join(report(parsed.items, parsed.index, parsed.users, Path(folder))))


if __name__ == "__main__":
    main()
