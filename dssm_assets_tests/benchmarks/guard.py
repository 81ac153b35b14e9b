"""Whether a change made something slower: the short benchmarks as ratios, compared with a committed file.

    python -m dssm_assets_tests.benchmarks.guard             # about five minutes on a quiet core; exit status 1 if something is slower
    python -m dssm_assets_tests.benchmarks.guard --write     # after a change that is meant to move a ratio

A ratio is CPU time of ours / CPU time of a fixed work that uses the same libraries, both measured in the same round, so that neither
the machine nor other work on it counts; lower is better. The figure is the median of the rounds, its noise the largest distance of a
round from it. A ratio has moved when it differs from the file by more than both noises together, and by more than LEAST.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from dssm_assets.core.arrays.hashing import hash_values
from dssm_assets.core.config.features import HashFunction
from dssm_assets.core.retrieval.exact import Corpus, search
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.extras.external_vectors.external_evaluation import ExternalSettings, VectorSet, evaluate_vectors
from dssm_assets.extras.sampler_tables.sampler_tables import USER_SPEC, read_tsv, write_tsv
from dssm_assets_tests import worlds
from dssm_assets_tests.benchmarks import import_time, training_speed
from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.training_world import setting_of, write_tables

FILE: Final = Path(__file__).parent / "measured" / "guard.json"
LEAST: Final = 0.05
"""Smallest change that counts, as a fraction."""
BUDGET_S = 0.3
"""CPU seconds within which a work is repeated, at least once; the fastest counts."""
Round = Callable[[], float]
"""Returns the ratio of one round."""


@dataclass(frozen=True)
class Ratio:
    """A measured ratio and its noise, the largest relative distance of a round from it."""

    ratio: float
    noise: float

    @classmethod
    def from_rounds(cls, rounds: Sequence[float]) -> Ratio:
        middle = float(np.median(rounds))
        return cls(middle, max(abs(found / middle - 1) for found in rounds))

    def change_from(self, before: Ratio) -> float:
        """Returns the relative change, 0 where it is within both noises."""
        change = self.ratio / before.ratio - 1
        return change if abs(change) > max(LEAST, self.noise + before.noise) else 0.0


def cpu_ratio(ours: Callable[[], object], reference: Callable[[], object]) -> float:
    """Returns the CPU time of ours over that of the reference, which runs before and after it."""
    first, own, last = (_fastest_cpu_s(work) for work in (reference, ours, reference))
    return own / min(first, last)


def _fastest_cpu_s(work: Callable[[], object]) -> float:
    """Returns the CPU seconds of the fastest call within BUDGET_S."""
    fastest, spent = math.inf, 0.0
    while spent < BUDGET_S:
        begin = time.process_time()
        work()
        took = time.process_time() - begin
        fastest, spent = min(fastest, took), spent + took
    return fastest


def search_ratios(users: int = 512, items: int = 50_000) -> Iterator[tuple[str, Round]]:
    """Yields exact search and a whole evaluation, each compared with `faiss.knn`; one thread."""
    rng = np.random.default_rng(0)
    left, right = (rng.normal(size=(count, 64)).astype(np.float32) for count in (users, items))
    faiss.omp_set_num_threads(1)

    def knn() -> object:
        return faiss.knn(left, right, 200, metric=faiss.METRIC_INNER_PRODUCT)

    yield "exact search / faiss.knn", lambda: cpu_ratio(lambda: search(Corpus(right, Metric.IP), left, 200), knn)
    yield "evaluation / faiss.knn", lambda: cpu_ratio(lambda: evaluate(left, right, 200), knn)


def evaluate(users: Any, items: Any, k: int) -> None:
    """Evaluates vectors against random truth."""
    rng = np.random.default_rng(1)
    pairs = len(users) * 5
    truth = pa.table({"user_id": rng.integers(len(users), size=pairs), "item_id": rng.integers(len(items), size=pairs)})
    sides = [VectorSet(pa.array(np.arange(len(side))), side, np.arange(len(side) + 1)) for side in (users, items)]
    evaluate_vectors(*sides, truth, None, ExternalSettings(ks=(10, 50, 100, k), metric=Metric.IP))


def array_ratios(texts: int = 500_000, rows: int = 100_000) -> Iterator[tuple[str, Round]]:
    """Yields hashing compared with Arrow's dictionary encoding, and sampler tables compared with Arrow's CSV writer."""
    rng = np.random.default_rng(0)
    column = random_texts(rng, texts)
    for function in HashFunction:
        name = f"hash, {function.value} / dictionary encoding"
        yield name, lambda function=function: cpu_ratio(lambda: hash_values(column, function), column.dictionary_encode)
    table = pa.table({"user_id": rng.integers(0, 1 << 40, rows), "weight": rng.random(rows)})
    text = write_tsv(table, USER_SPEC)

    def write_csv() -> None:
        pacsv.write_csv(table, pa.BufferOutputStream())

    yield "sampler table written / csv", lambda: cpu_ratio(lambda: write_tsv(table, USER_SPEC), write_csv)
    yield "sampler table read / csv written", lambda: cpu_ratio(lambda: read_tsv(text, USER_SPEC), write_csv)


def random_texts(rng: np.random.Generator, count: int) -> pa.Array:
    """Returns random texts of 8 to 20 lower-case letters, as ids mostly are."""
    offsets = np.append(0, np.cumsum(rng.integers(8, 20, count, endpoint=True))).astype(np.int32)
    letters = rng.integers(ord("a"), ord("z"), int(offsets[-1]), dtype=np.uint8, endpoint=True)
    return pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(letters))


def table_ratios(folder: Path) -> Iterator[tuple[str, Round]]:
    """Yields the daily tables of the tiny world, which are all overhead, compared with writing small parquet files."""
    number = iter(range(10**6))
    small = pa.Table.from_pylist(worlds.log_rows([0]))

    def write_files() -> None:
        for _ in range(400):
            pq.write_table(small, folder / "small.parquet")

    def build() -> None:
        worlds.materialize(worlds.write_world(folder / f"world-{next(number)}"), worlds.DAILY, worlds.DAYS[:4])

    def compare() -> float:
        return cpu_ratio(build, write_files)

    build()  # imports, and what is read once
    yield "daily tables of 4 days / 400 parquet files", compare


def process_ratios(folder: Path) -> Iterator[tuple[str, Round]]:
    """Yields training and imports, which run in processes of their own."""
    setting = {"name": "wide", "samples": 50_000, "users": 5_000, "items": 2_000}
    place = {"folder": str(folder / "training"), "setting": setting, "budget_s": 3.0}
    write_tables(folder / "training", setting_of(setting))

    def train() -> float:
        found = run_apart(training_speed.ours, **place, precision="float32")
        naive = run_apart(training_speed.naive, **place)
        return float(naive["samples_per_s"] / found["samples_per_s"])

    yield "training, float32 / naive PyTorch", train

    yield "import of the code location / dagster", lambda: import_time.measure_ratio(rounds=2)


def line(name: str, now: Ratio, before: Ratio | None) -> str:
    """Returns a line of the table: the ratio, the committed one, and what moved."""
    shown = f"{name:<45}{now.ratio:>8.3f} ±{now.noise:>4.0%}"
    if before is None:
        return f"{shown}   not in the file"
    change = now.change_from(before)
    verdict = f"{change:+.0%} {'SLOWER' if change > 0 else 'faster'}" if change else ""
    return f"{shown}{before.ratio:>10.3f} ±{before.noise:>4.0%}   {verdict}".rstrip()


def read(path: Path = FILE) -> dict[str, Ratio]:
    return {name: Ratio(**found) for name, found in json.loads(path.read_text(encoding="utf-8")).items()}


def write(found: Mapping[str, Ratio], path: Path = FILE) -> None:
    """Writes the ratios, rounded to four significant digits."""
    rounded = {name: {key: _round(value) for key, value in asdict(ratio).items()} for name, ratio in found.items()}
    path.write_text(json.dumps(rounded, indent=1) + "\n", encoding="utf-8")


def _round(value: float) -> float:
    return round(value, 3 - math.floor(math.log10(value))) if value else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns 1 if a ratio is worse than the committed one beyond the noise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="replace the committed ratios")
    given = parser.parse_args(arguments)
    before = read() if FILE.exists() else {}
    found: dict[str, Ratio] = {}
    print(f"{'CPU time of ours / of a reference':<45}{'now':>14}{'committed':>16}")
    with tempfile.TemporaryDirectory(prefix="dssm-guard-") as scratch:
        folder = Path(scratch)
        for ratios in (search_ratios(), array_ratios(), table_ratios(folder), process_ratios(folder)):
            for name, one_round in ratios:
                found[name] = Ratio.from_rounds([one_round() for _ in range(given.rounds)])
                print(line(name, found[name], before.get(name)), flush=True)
    if given.write:
        write(found)
        return 0
    return int(any(name in before and now.change_from(before[name]) > 0 for name, now in found.items()))


if __name__ == "__main__":
    sys.exit(main())
