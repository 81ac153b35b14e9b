"""Memory of sharded embedding tables in each process, and the cost of a step.

`python -m dssm_assets_tests.benchmarks.sharded_tables --rows 2000000 --dim 16` prints one line per process: how
much its own memory grows while tables and optimiser are created and used, and CPU seconds of drawing the tables and of a
step's look-up, exchange and update. The tables are small: compare ratios.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dssm_assets.core.arrays.bags import mean_bags
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import EmbeddingOptimiser
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec, tower_spec
from dssm_assets.core.training.distributed.process_group import ProcessGroup
from dssm_assets.core.training.distributed.sharded_tables import ShardedTables
from dssm_assets.core.training.optimisers import gradients_of, row_optimiser

STEPS, LOOKUPS = 10, 100_000


def main(arguments: list[str] | None = None) -> None:
    """Prints a line per number of processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=16)
    parser.add_argument("--optimiser", type=EmbeddingOptimiser, default=EmbeddingOptimiser.ADAGRAD)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    given = parser.parse_args(arguments)
    for count in given.processes:
        for line in measure_processes(given.rows, given.dim, given.optimiser, count):
            print(json.dumps(line), flush=True)


def measure_processes(rows: int, dim: int, optimiser: EmbeddingOptimiser, count: int) -> list[dict[str, Any]]:
    """Returns the measurements of each of `count` processes."""
    with TemporaryDirectory() as folder:
        arguments = (rows, dim, optimiser, count, folder)
        mp.start_processes(_measure, arguments, nprocs=count, start_method="spawn")  # type: ignore[no-untyped-call]
        return [json.loads((Path(folder) / f"{rank}.json").read_text()) for rank in range(count)]


def _measure(rank: int, rows: int, dim: int, optimiser: EmbeddingOptimiser, count: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=count)
    before, drawn_at = _own_bytes(), time.process_time()
    spec, generator = _spec(rows, dim), torch.Generator().manual_seed(1)
    ranks = ProcessGroup(rank, count)
    tables = EmbeddingTables(spec, generator) if count == 1 else ShardedTables(spec, generator, ranks)
    row_updates = row_optimiser(tables, optimiser)
    stepped_at = time.process_time()
    rng, groups = np.random.default_rng(rank), tables.groups([], spec.features_of(TowerSide.ITEM))
    for _ in range(STEPS):
        values = rng.integers(1, rows, LOOKUPS // count)
        bags = mean_bags(values, np.arange(len(values) + 1))
        tape: list[Lookup] = []
        tables.lookup(groups, TowerInput(np.zeros((len(values), 0), np.int64), (bags,)), tape).sum().backward()  # type: ignore[no-untyped-call]
        found = gradients_of(tables, tape)
        row_updates.update_rows(tables.own_gradients(found) if isinstance(tables, ShardedTables) else found, 0.05)
    ended = time.process_time()
    measurement = {
        "processes": count,
        "rank": rank,
        "own_mib": round((_own_bytes() - before) / 2**20, 1),
        "drawing_cpu_s": round(stepped_at - drawn_at, 2),
        "step_cpu_ms": round(1000 * (ended - stepped_at) / STEPS, 1),
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(measurement))
    dist.destroy_process_group()


def _spec(rows: int, dim: int) -> TowerSpec:
    sizes = {TowerSide.ITEM: rows, TowerSide.USER: 2}
    features = [
        TowerFeature(name=side, side=side, embedding_name=side, embedding_dim=dim, num_embeddings=size, is_multi=True)
        for side, size in sizes.items()
    ]
    return tower_spec(features, Model(history_length=0))


def _own_bytes() -> int:
    """Returns the memory of this process without pages of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (kib,) = [line.split()[1] for line in lines if line.startswith("RssAnon:")]
    return 1024 * int(kib)


if __name__ == "__main__":
    main()
