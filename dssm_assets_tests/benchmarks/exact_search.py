"""Exact top-k and a whole evaluation against naive torch and faiss.knn: `python -m dssm_assets_tests.benchmarks.exact_search`.

Random vectors with a fixed seed, inner product. The aim is at most twice the time of `faiss.knn` at 200,000 items, 64
dimensions and k 200. torch: matrix product and topk over blocks of users, with the block size that was fastest here.
faiss: `faiss.knn` over all users at once. ours: `top_k`, with exact scores and the tie rule. evaluation: `top_k`, hits
against truth at four cut-offs, rates, and intervals from 1,000 resamples. CPU time of this process, so that other work on
the machine matters less, and wall time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import torch

from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.retrieval.exact import top_k
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.extras.external_vectors.external_evaluation import ExternalSettings, evaluate_vectors
from dssm_assets.extras.external_vectors.external_vectors import VectorSet

TORCH_BLOCK = 2048
TRUTH_PER_USER = 5


def torch_top_k(users: Any, items: Any, k: int) -> None:
    """Searches by naive torch."""
    left, right = torch.from_numpy(users), torch.from_numpy(items).T
    for start in range(0, len(users), TORCH_BLOCK):
        torch.topk(left[start : start + TORCH_BLOCK] @ right, k)


def evaluate(users: Any, items: Any, k: int, threads: int) -> None:
    """Evaluates the vectors against random truth."""
    rng = np.random.default_rng(1)
    pairs = len(users) * TRUTH_PER_USER
    owner, item = rng.integers(len(users), size=pairs), rng.integers(len(items), size=pairs)
    truth = pa.table({USER_ID: pa.array(owner), ITEM_ID: pa.array(item)})
    sides = [VectorSet(pa.array(np.arange(len(side))), side, np.arange(len(side) + 1)) for side in (users, items)]
    settings = ExternalSettings(ks=tuple(sorted({min(cut, k) for cut in (10, 50, 100, k)})), metric=Metric.IP, threads=threads)
    evaluate_vectors(*sides, truth, None, settings)


def table(users: Any, items: Any, k: int, threads: int) -> list[str]:
    """Returns one line per way to search: its time and its speed relative to torch and faiss."""
    ways: dict[str, Callable[[], Any]] = {
        "torch": lambda: torch_top_k(users, items, k),
        "faiss": lambda: faiss.knn(users, items, k, metric=faiss.METRIC_INNER_PRODUCT),
        "ours": lambda: top_k(users, items, k, similarity=Metric.IP, threads=threads),
        "evaluation": lambda: evaluate(users, items, k, threads),
    }
    spent = {}
    for name, work in ways.items():
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        spent[name] = time.process_time() - cpu, time.perf_counter() - wall
    lines = [f"{'':>10}  {'cpu s':>8}  {'wall s':>8}  {'users / cpu s':>13}  {'x torch':>7}  {'x faiss':>7}"]
    for name, (cpu, wall) in spent.items():
        ratios = f"{spent['torch'][0] / cpu:>7.2f}  {spent['faiss'][0] / cpu:>7.2f}"
        lines.append(f"{name:>10}  {cpu:>8.2f}  {wall:>8.2f}  {len(users) / cpu:>13,.0f}  {ratios}")
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=int, default=4096)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dims", type=int, default=64)
    parser.add_argument("--k", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(0)
    users, items = (rng.normal(size=(count, given.dims)).astype(np.float32) for count in (given.users, given.items))
    sizes = f"{given.users:,} users, {given.items:,} items, {given.dims} dimensions, the {given.k} best"
    print(f"{sizes}; {given.threads} threads\n")
    before = torch.get_num_threads(), faiss.omp_get_max_threads()
    torch.set_num_threads(given.threads)
    faiss.omp_set_num_threads(given.threads)
    try:
        print("\n".join(table(users, items, given.k, given.threads)))
    finally:
        torch.set_num_threads(before[0])
        faiss.omp_set_num_threads(before[1])


if __name__ == "__main__":
    main()
