"""The speed of each part of the library on this machine, next to the limits of the hardware.

    python -m dssm_assets_tests.benchmarks.machine --threads 2

All data is generated in memory, nothing is written. The limit of a part is the rate that the matrix product or the memory
bandwidth of this machine, measured in the same run, would allow for the least work of a row: the products of towers, logits and
distances, and the bytes of inputs, outputs and embedding rows. Hashing, sorting and drawing negatives make the share of the limit
smaller than one. Times are wall clock, so run nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np
import pyarrow as pa
import torch

from dssm_assets.core.config.evaluation import IndexKind, Serving
from dssm_assets.core.config.training import Device, Training
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.retrieval.exact import Corpus, search
from dssm_assets.core.retrieval.index import search_index, ship_index
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.inference import ItemInference, UserInference
from dssm_assets.core.training.loop import fit
from dssm_assets_tests.benchmarks import serving
from dssm_assets_tests.benchmarks.training_world import Setting, features_of, model_of, read_tables, setting_of, write_tables
from dssm_assets_tests.benchmarks.world import World
from dssm_assets_tests.benchmarks.world_features import feature_definitions

FLOAT_BYTES: Final = 4
INFERENCE_ROWS: Final = 4096
SEARCH_BLOCK: Final = 1024
_DAY_MS: Final = 86_400_000
_PRODUCT_SIZE: Final = 1024
_COPIED_BYTES: Final = 1 << 28


@dataclass(frozen=True)
class Timed:
    """The time of a part: rows, seconds, and the least operations and bytes of one row."""

    name: str
    unit: str
    rows: int
    seconds: float
    flops: float
    bytes_moved: float
    note: str = ""


def time_work(work: Callable[[], Any], repeats: int = 3) -> tuple[Any, float]:
    """Returns the result of the work and its best wall seconds, after a first run that is not timed."""
    made, best = work(), math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        made = work()
        best = min(best, time.perf_counter() - start)
    return made, max(best, 1e-9)


def measure_limits() -> dict[str, float]:
    """Returns the limits of this machine: 1e9 float32 operations a second in a product, 1e9 bytes a second that a copy moves."""
    left = torch.rand(_PRODUCT_SIZE, _PRODUCT_SIZE)
    source, target = torch.ones(_COPIED_BYTES // 4), torch.ones(_COPIED_BYTES // 4)
    _, product = time_work(lambda: torch.mm(left, left), 5)
    _, copy = time_work(lambda: target.copy_(source), 5)
    return {"gflops": 2 * _PRODUCT_SIZE**3 / product / 1e9, "gbytes": 2 * _COPIED_BYTES / copy / 1e9}


def limit_of(timed: Timed, limits: dict[str, float]) -> tuple[float, str]:
    """Returns how many rows a second the machine could process at best, and the limit that binds."""
    product = limits["gflops"] * 1e9 / timed.flops if timed.flops else math.inf
    memory = limits["gbytes"] * 1e9 / timed.bytes_moved if timed.bytes_moved else math.inf
    return (product, "product") if product <= memory else (memory, "memory")


def time_features(rows: int, seed: int) -> Iterator[Timed]:
    """Yields the time of hashing the users of a generated world, and of turning them into buckets."""
    users = pa.concat_tables(World(rows=1, users=rows, items=1, days=1, seed=seed).entities("user"))
    given = [feature for feature in feature_definitions()["features"] if str(feature["expression"]).startswith("user:")]
    generator = FeatureGenerator.from_fg_json({"features": given})
    for name, work in (("hashes", generator.encode), ("buckets", generator.bucketize)):
        made, seconds = time_work(lambda work=work: work(users), repeats=1)  # type: ignore[misc]
        bytes_moved = (users.nbytes + made.nbytes) / rows
        yield Timed(f"feature generation, {name}", "rows", rows, seconds, 0.0, bytes_moved, f"{len(given)} features")


def time_towers(setting: Setting, threads: int, seed: int) -> Iterator[Timed]:
    """Yields the time of training an epoch, and of the vectors of all users and items by the trained towers."""
    model, spec = model_of(setting), tower_spec(features_of(setting), model_of(setting))
    training = Training(epochs=1, batch_size=setting.batch_size, num_threads=threads, device=Device.CPU)
    with tempfile.TemporaryDirectory() as scratch:
        write_tables(Path(scratch) / "data", setting, seed)
        tables = read_tables(Path(scratch) / "data")
        data = TrainData(spec, **tables)
        start = time.perf_counter()
        fitted = fit(data, model=model, training=training, seed=seed).two_tower
        seconds = time.perf_counter() - start
        user_reads, item_reads = _read_bytes(fitted, setting)
        columns = (setting.batch_size + setting.num_sample) / setting.batch_size
        note = f"batch {setting.batch_size:,} and {setting.num_sample:,} negatives"
        moved = 2 * (user_reads + item_reads * columns)
        yield Timed("training", "samples", setting.samples, seconds, 2.0 * setting.multiply_adds, moved, note)
        as_of_ms = int(np.asarray(tables["history"].column("event_time_ms")).max()) + _DAY_MS
        users = UserInference(fitted, tables["history"], as_of_ms=as_of_ms, batch_size=INFERENCE_ROWS)
        bounds = [np.asarray(tables["users"].column(name)) for name in ("history_start", "history_end")]
        rows = tables["user_rows"]
        context = {column.name: np.zeros(len(rows), np.int32) for column in setting.context}
        for name, values in context.items():
            rows = rows.append_column(name, [values])
        _, seconds = time_work(lambda: users.vectors(rows, *bounds))
        written = setting.output_dim * FLOAT_BYTES
        towers: list[Any] = [fitted.user_tower, fitted.item_tower]
        flops = [2.0 * sum(layer.weight.numel() for layer in tower.linears) for tower in towers]
        yield Timed("user vectors", "rows", setting.users, seconds, flops[0], user_reads + written)
        _, seconds = time_work(lambda: ItemInference(fitted, INFERENCE_ROWS).vectors(tables["items"]))
        yield Timed("item vectors", "rows", setting.items, seconds, flops[1], item_reads + written)


def _read_bytes(fitted: TwoTower, setting: Setting) -> tuple[float, float]:
    """Returns the bytes of the embedding rows that a user with a full history, and an item, read."""
    features, history = fitted.spec.features, sum(feature.embedding_dim for feature in fitted.spec.sequences)
    user, item = (
        sum(feature.embedding_dim for feature in features if feature.side.value in sides)
        for sides in (("user", "context"), ("item",))
    )
    return FLOAT_BYTES * (user + setting.history_length * history), FLOAT_BYTES * item


def time_searches(corpus: int, queries: int, k: int, kind: IndexKind, threads: int) -> Iterator[Timed]:
    """Yields the time of exact search and of an index over the same items, with the recall of the index."""
    faiss.omp_set_num_threads(threads)
    items, users = serving.vectors(corpus, 1), serving.vectors(queries, 2)
    vector, found = serving.DIMS * FLOAT_BYTES, k * 3 * FLOAT_BYTES
    exact = Corpus(items, Metric.IP)
    _, seconds = time_work(lambda: search(exact, users, k, threads=threads))
    flops, moved = 2.0 * corpus * serving.DIMS, corpus * vector / min(SEARCH_BLOCK, queries) + found
    yield Timed("exact search", "queries", queries, seconds, flops, moved, f"{corpus:,} items, top {k}")
    shipped = ship_index(items, users[:SEARCH_BLOCK], [k], Serving(index=kind), 1)
    counts: Any = faiss.cvar
    counters = [counts.indexIVF_stats, counts.hnsw_stats]
    for counter in counters:
        counter.reset()
    _, seconds = time_work(lambda: search_index(shipped.index, users, k))
    # Four runs; a kind of index that does not count compares with every item.
    compared = sum(int(counter.ndis) for counter in counters) / (4 * queries) or corpus
    note = f"{shipped.kind}, recall {shipped.lowest_recall:.3f}"
    yield Timed("index search", "queries", queries, seconds, 2.0 * compared * serving.DIMS, compared * vector + found, note)


def report(given: argparse.Namespace) -> str:
    """Returns a table of each part with its rate and its share of the limit that binds, and the limits of the machine."""
    torch.set_num_threads(given.threads)
    limits = measure_limits()
    setting = setting_of(
        {name: getattr(given, name) for name in ("samples", "users", "items", "batch_size")} | {"name": "wide"}
    )
    parts = [
        *time_features(given.rows, given.seed),
        *time_towers(setting, given.threads, given.seed),
        *time_searches(given.corpus, given.queries, given.k, given.index, given.threads),
    ]
    lines = [f"{'part':<28}{'per second':>14}{'at the limit':>14}{'share':>8}  limit"]
    for timed in parts:
        limit_per_s, limit = limit_of(timed, limits)
        per_s, note = timed.rows / timed.seconds, ", ".join(filter(None, (timed.unit, timed.note)))
        lines.append(f"{timed.name:<28}{per_s:>14,.0f}{limit_per_s:>14,.0f}{per_s / limit_per_s:>8.1%}  {limit:<8} {note}")
    speeds = f"matrix product {limits['gflops']:,.1f} GFLOP/s in float32, memory {limits['gbytes']:,.1f} GB/s"
    return "\n".join([*lines, "", f"On the CPU with {given.threads} threads: {speeds}."])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"rows": 100_000, "samples": 200_000, "users": 20_000, "items": 20_000, "batch-size": 4096}
    sizes |= {"corpus": 200_000, "queries": 2_048, "k": serving.K, "threads": 1, "seed": 17}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default: {default:,})")
    parser.add_argument("--index", type=IndexKind, choices=list(IndexKind), default=IndexKind.IVF, help="(default: ivf)")
    sys.stdout.write(report(parser.parse_args(arguments)) + "\n")


if __name__ == "__main__":
    main()
