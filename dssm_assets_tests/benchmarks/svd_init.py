"""Two ways to compute the codes of `svd_init`: eigenvectors of user products (ours), and `scipy.sparse.linalg.svds`.

    python -m dssm_assets_tests.benchmarks.svd_init --users 2469 --items 92000 --events 2500000 --width 128

Generates pooled histories in the shape of the demo (few users with long histories, popular items first), runs each way in a
process of its own, and prints CPU seconds, peak memory of the process, and the relative residual |X - X Q Q'| / |X|. Both ways are
measured in one run; compare ratios.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from dssm_assets.core.arrays.ragged import FloatArray
from dssm_assets.core.training.closed_form.svd_init import leading_codes
from dssm_assets_tests.benchmarks import process_cost


@dataclass(frozen=True)
class Sizes:
    """The matrix of pooled histories and the width of the codes."""

    users: int = 2_469
    items: int = 92_000
    events: int = 2_500_000
    width: int = 128


@dataclass(frozen=True)
class WayCost:
    """CPU seconds and peak memory of one way, and the relative residual of its codes."""

    way: str
    cpu_s: float
    peak_mib: float
    residual: float


def svds_codes(histories: sp.csr_matrix, width: int) -> FloatArray:
    """Returns the leading right singular vectors by ARPACK [N, d], the largest entry of each positive."""
    start = np.ones(min(histories.shape), np.float64)
    _, _, rows = svds(histories.astype(np.float64), k=width, v0=start, return_singular_vectors="vh")
    codes = rows[::-1].T
    signs = np.sign(codes[np.abs(codes).argmax(axis=0), np.arange(width)])
    return np.asarray(codes * signs, np.float32)


WAYS: dict[str, Callable[[sp.csr_matrix, int], FloatArray]] = {"user products": leading_codes, "svds": svds_codes}


def pooled_histories(sizes: Sizes, seed: int = 3) -> sp.csr_matrix:
    """Returns generated weights of users by items: the root of each number of events, times the root of their sum [U, N]."""
    rng = np.random.default_rng(seed)
    activity, popularity = rng.lognormal(0.0, 1.0, sizes.users), 1.0 / (np.arange(sizes.items) + 20.0)
    users = rng.choice(sizes.users, sizes.events, p=activity / activity.sum())
    # Every user has a favourite part of the assortment, so that singular values fall as in real logs.
    ranks = rng.choice(sizes.items, sizes.events, p=popularity / popularity.sum())
    groups = rng.permutation(sizes.users) % 50
    items = (ranks + (rng.random(sizes.events) < 0.6) * groups[users] * 1009) % sizes.items
    counts = sp.csr_matrix((np.ones(sizes.events, np.float32), (users, items)), (sizes.users, sizes.items))
    counts.sum_duplicates()
    counts.data = np.sqrt(counts.data)
    counts.data *= np.repeat(np.sqrt(np.asarray(counts.sum(axis=1)).ravel()), np.diff(counts.indptr)).astype(np.float32)
    return counts


def measure(way: str, sizes: Sizes) -> WayCost:
    """Returns the cost of one way in this process."""
    histories = pooled_histories(sizes)
    with process_cost.measured(way) as cost:
        codes = WAYS[way](histories, sizes.width)
    norm = float((histories.data.astype(np.float64) ** 2).sum())
    kept = float(((histories @ codes.astype(np.float64)) ** 2).sum())
    return WayCost(way, cost.cpu_s, cost.peak_mib, max(0.0, 1.0 - kept / norm) ** 0.5)


def render(costs: list[WayCost]) -> str:
    """Returns the costs as a Markdown table."""
    lines = ["| way | CPU-s | peak MiB | relative residual |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {c.way} | {c.cpu_s:.2f} | {c.peak_mib:.0f} | {c.residual:.6f} |" for c in costs)])


def main(arguments: list[str] | None = None) -> None:
    """Measures every way in a process of its own and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in asdict(Sizes()).items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--way", choices=WAYS, help="measures one way in this process and prints JSON")
    given = vars(parser.parse_args(arguments))
    way, sizes = given.pop("way"), Sizes(**given)
    if way is not None:
        print(json.dumps(asdict(measure(way, sizes))))
        return
    flags = [flag for name, value in asdict(sizes).items() for flag in (f"--{name}", str(value))]
    costs = []
    for name in WAYS:
        command = [sys.executable, "-m", "dssm_assets_tests.benchmarks.svd_init", *flags, "--way", name]
        costs.append(WayCost(**json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)))
    print(render(costs))


if __name__ == "__main__":
    main()
