"""Build time, search time and recall of each kind of index.

    python -m dssm_assets_tests.benchmarks.index_kinds --items 20000

Vectors lie near a space of 16 dimensions, as tower outputs lie near a space spanned by their features. Times depend on the
machine; compare their ratios.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from dssm_assets.core.config.evaluation import IndexKind, Serving
from dssm_assets.core.retrieval.index import search_index, ship_index

DIMS, DIRECTIONS, USERS, KS = 64, 16, 1000, [10, 50, 100, 200]
KINDS = (IndexKind.FLAT, IndexKind.HNSW, IndexKind.IVF)


@dataclass(frozen=True)
class Row:
    """The measurements of one kind of index."""

    kind: str
    parameters: dict[str, int]
    build_s: float
    queries_per_s: float
    one_query_ms: float
    lowest_recall: float


def vectors(count: int, seed: int) -> Any:
    """Returns unit vectors [count, DIMS] near a space of DIRECTIONS dimensions."""
    rng = np.random.default_rng(seed)
    space = np.random.default_rng(0).standard_normal((DIRECTIONS, DIMS))
    rows = rng.standard_normal((count, DIRECTIONS)) @ space + 0.3 * rng.standard_normal((count, DIMS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def measure(item_count: int, kinds: tuple[IndexKind, ...] = KINDS) -> list[Row]:
    """Returns one row per kind; build_s includes tuning and measuring the recall."""
    items, users = vectors(item_count, 1), vectors(USERS, 2)
    rows = []
    for kind in kinds:
        begun = time.perf_counter()
        shipped = ship_index(items, users, KS, Serving(index=kind), seed=17)
        built = time.perf_counter()
        search_index(shipped.index, users, KS[-1])
        searched = time.perf_counter()
        for user in users[:100]:
            search_index(shipped.index, user[None], KS[-1])
        one = (time.perf_counter() - searched) / 100
        row = Row(
            shipped.kind,
            dict(shipped.parameters),
            built - begun,
            USERS / (searched - built),
            1000 * one,
            shipped.lowest_recall,
        )
        rows.append(row)
    return rows


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--kinds", nargs="*", type=IndexKind, default=list(KINDS))
    parsed = parser.parse_args()
    print(f"{parsed.items} items x {DIMS}, top {KS[-1]}, {USERS} users")
    print(f"{'kind':6}{'build s':>9}{'queries/s':>11}{'one, ms':>9}{'recall':>8}  parameters")
    for row in measure(parsed.items, tuple(parsed.kinds)):
        figures = f"{row.build_s:9.1f}{row.queries_per_s:11.0f}{row.one_query_ms:9.2f}{row.lowest_recall:8.4f}"
        print(f"{row.kind:6}{figures}  {row.parameters}")


if __name__ == "__main__":
    main()
