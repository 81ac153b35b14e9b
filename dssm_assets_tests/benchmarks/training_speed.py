"""Samples trained per CPU second: ours, naive PyTorch, and a peer.

    python -m dssm_assets_tests.benchmarks.training_speed --setting wide --seconds 15

One setting is generated once. Every contender trains on it in a process of its own, on one thread, until its seconds are spent.
The peer needs the extra `bench`, and is otherwise reported as missing.

The columns `x` say how many times as fast ours is with the same negatives: naive PyTorch has the batch's other items and the
shared negatives; the peer has only the batch's other items, so it is compared with ours `in-batch only`.

Naive PyTorch is what a user would write with torch in an afternoon: one `nn.EmbeddingBag` per feature, Adam over everything, all
logits of the batch at once and `cross_entropy`. Batches are gathered from arrays without a loop, so that only the training is compared.
The median step counts, so that neither the first steps nor other work on the machine matter.

Letters: B rows, N shared negatives, C columns, W values of a feature.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field, replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dssm_assets.core.config.training import Precision, Training
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.training_world import (
    TEMPERATURE,
    ArrayReader,
    Column,
    Setting,
    features_of,
    model_of,
    read_tables,
    setting_of,
    write_tables,
)

PRECISIONS = ("float32", "bfloat16")
NAIVE, PEER = "naive PyTorch", "torch-rechub DSSM"
Results = dict[str, dict[str, Any]]
"""Contender -> samples_per_s, steps and peak_mib, or the missing library."""
_LEARNING_RATE = 0.001
_WARM_UP_STEPS = 2


class EnoughError(Exception):
    """Stops a training that has run for long enough."""


@dataclass
class Pace:
    """Collects the CPU time of every step, until a budget of CPU seconds is spent and some steps are done."""

    budget_s: float
    least_steps: int = 5
    _mark_s: float = 0.0
    _costs: list[float] = field(default_factory=list)
    _samples: list[int] = field(default_factory=list)

    def resume(self) -> None:
        """Starts the clock, at the first step or after work that is not part of a step."""
        self._mark_s = time.process_time()

    def step(self, samples: int) -> None:
        """Records that a step over this many samples has ended.

        Raises:
            EnoughError: the budget is spent.
        """
        now = time.process_time()
        self._costs.append(now - self._mark_s)
        self._mark_s = now
        self._samples.append(samples)
        if len(self._samples) >= self.least_steps and sum(self._costs) >= self.budget_s:
            raise EnoughError

    def result(self) -> dict[str, Any]:
        """Returns samples per CPU second of the median step, the number of steps, and the peak memory."""
        first = min(_WARM_UP_STEPS, len(self._samples) - 1)
        rates = np.array(self._samples[first:]) / np.maximum(self._costs[first:], 1e-9)
        return {
            "samples_per_s": float(np.median(rates)),
            "steps": len(self._samples),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def ours(
    *, folder: str, setting: dict[str, Any], budget_s: float, precision: str, in_batch_only: bool = False
) -> dict[str, Any]:
    """Returns the pace of `fit` on the tables, memory-mapped; `in_batch_only`: with the negatives of the peers."""
    world = setting_of(setting)
    if in_batch_only:
        world = replace(world, num_sample=0, masks_user_positives=False)
    model, pace = model_of(world), Pace(budget_s)
    spec = tower_spec(features_of(world), model)
    data = TrainData(spec, **read_tables(Path(folder)))
    training = Training(epochs=1000, batch_size=world.batch_size, num_threads=1, precision=Precision(precision))

    def progress(done: Any) -> None:
        # An epoch's last batch may be smaller.
        per_epoch = -(-world.samples // world.batch_size)
        pace.step(world.batch_size if done.step % per_epoch else world.samples - (per_epoch - 1) * world.batch_size)

    pace.resume()
    with suppress(EnoughError):
        fit(data, model=model, training=training, seed=1, context=FitContext(progress=progress))
    return pace.result()


def naive(*, folder: str, setting: dict[str, Any], budget_s: float) -> dict[str, Any]:
    torch.set_num_threads(1)
    world = setting_of(setting)
    torch.manual_seed(1)
    towers, reader, pace = _NaiveTowers(world), ArrayReader(Path(folder), world), Pace(budget_s)
    optimiser = torch.optim.Adam(towers.parameters(), lr=_LEARNING_RATE)
    rng = np.random.default_rng(1)
    counts = np.bincount(reader.item, minlength=world.items)
    share, probability = counts / world.samples, (counts + 1.0) / (counts + 1.0).sum()
    pace.resume()
    with suppress(EnoughError):
        while True:
            order = rng.permutation(world.samples)
            for begin in range(0, world.samples, world.batch_size):
                rows = order[begin : begin + world.batch_size]
                negatives = rng.choice(world.items, world.num_sample, p=probability)
                items = np.concatenate([reader.item[rows], negatives])
                expected = np.concatenate([len(rows) * share[items[: len(rows)]], world.num_sample * probability[negatives]])
                logits = towers(reader.user_side(rows), reader.item_side(items)) / TEMPERATURE
                logits = logits - torch.from_numpy(np.log(expected)).float()
                own = torch.arange(len(rows))
                collides = torch.from_numpy(items[: len(rows), None] == items[None, :])  # [B, C]
                collides[own, own] = False
                loss = nn.functional.cross_entropy(logits.masked_fill(collides, -torch.inf), own)
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                pace.step(len(rows))
    return pace.result()


class _NaiveTowers(nn.Module):
    """One table per feature, history sub-features read the item's tables, two MLPs, cosine."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        columns = (*setting.user, *setting.context, *setting.item)
        self.tables = nn.ModuleDict({c.name: nn.EmbeddingBag(c.size, c.dim, mode="mean", padding_idx=0) for c in columns})
        pooled = sum(setting.column(name).dim for name in setting.history)
        self.user_tower = _mlp(sum(c.dim for c in setting.user + setting.context) + pooled, setting)
        self.item_tower = _mlp(sum(c.dim for c in setting.item), setting)

    def forward(self, user: dict[str, Tensor], items: dict[str, Tensor]) -> Tensor:
        """Returns cosines [B, C] of inputs by column, those of the history called history__<column>."""
        user_vectors, item_vectors = self._vectors(user, self.user_tower), self._vectors(items, self.item_tower)
        return user_vectors @ item_vectors.T

    def _vectors(self, values: dict[str, Tensor], tower: nn.Module) -> Tensor:
        parts = [self.tables[name.removeprefix("history__")](value) for name, value in values.items()]
        return nn.functional.normalize(tower(torch.cat(parts, dim=1)))


def _mlp(width: int, setting: Setting) -> nn.Sequential:
    layers: list[nn.Module] = []
    for hidden in setting.hidden:
        layers += [nn.Linear(width, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(0.1)]
        width = hidden
    return nn.Sequential(*layers, nn.Linear(width, setting.output_dim))


def rechub(*, folder: str, setting: dict[str, Any], budget_s: float) -> dict[str, Any]:
    """Returns the pace of torch-rechub's DSSM in its own way, or the missing library.

    Its negatives are the batch's other items: neither shared sampled negatives, nor the logQ correction, nor masks, so it does less
    work per sample. Its tables are dense, trained by Adam, and all have the mean width of the item tower's tables, because it cannot
    concatenate different ones.
    """
    if importlib.util.find_spec("torch_rechub") is None:
        return {"missing": "torch-rechub"}
    from torch_rechub.models.matching import DSSM
    from torch_rechub.trainers import MatchTrainer
    from torch_rechub.utils.data import DataGenerator

    torch.set_num_threads(1)
    torch.manual_seed(1)
    world, pace = setting_of(setting), Pace(budget_s, least_steps=4)
    reader = ArrayReader(Path(folder), world)
    rows = np.random.default_rng(1).permutation(world.samples)[: 12 * world.batch_size]
    inputs = {**reader.user_side(rows), **reader.item_side(reader.item[rows])}
    columns = {name: values.numpy().squeeze(1) if values.shape[1] == 1 else values.numpy() for name, values in inputs.items()}
    user, item = _rechub_features(world)
    layers = {"dims": [*world.hidden, world.output_dim], "dropout": 0.1 if world.hidden else 0.0}
    trainer = MatchTrainer(DSSM(user, item, layers, layers, temperature=0.1), mode=0, in_batch_neg=True, n_epoch=1)
    some = {name: values[:2] for name, values in columns.items()}
    # The generator cannot build a training loader without loaders for validation and test.
    loader, _, _ = DataGenerator(columns, np.ones(len(rows))).generate_dataloader(
        some, np.ones(2), some, np.ones(2), batch_size=world.batch_size
    )
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), suppress(EnoughError):
        while True:
            trainer.train_one_epoch(_CountingLoader(loader, pace))
    return pace.result()


class _CountingLoader:
    """A loader that counts a step when the trainer requests the next batch, that is when it has finished the last one."""

    def __init__(self, loader: Any, pace: Pace) -> None:
        self._loader, self._pace = loader, pace

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        self._pace.resume()
        for inputs, labels in self._loader:
            yield inputs, labels
            self._pace.step(len(labels))


def _rechub_features(world: Setting) -> tuple[list[Any], list[Any]]:
    from torch_rechub.basic.features import SequenceFeature, SparseFeature

    width = round(sum(column.dim for column in world.item) / len(world.item))

    def feature(column: Column) -> Any:
        if column.is_multi:
            return SequenceFeature(column.name, column.size, width, pooling="mean", padding_idx=0)
        return SparseFeature(column.name, column.size, width)

    history = [
        SequenceFeature(f"history__{c.name}", c.size, width, pooling="mean", shared_with=c.name, padding_idx=0)
        for c in map(world.column, world.history)
    ]
    return [*map(feature, world.user + world.context), *history], list(map(feature, world.item))


def measure(setting: dict[str, Any], *, seconds: float, folder: Path) -> Results:
    """Returns the results of the contenders, of as many CPU seconds each; generated data are written into the folder."""
    write_tables(folder / "data", setting_of(setting))
    common = {"folder": str(folder / "data"), "setting": setting, "budget_s": seconds}
    found = {}
    for kind, in_batch_only in (("ours", False), ("in-batch only", True)):
        for precision in PRECISIONS:
            more = {"precision": precision, "in_batch_only": in_batch_only}
            found[f"{kind}, {precision}"] = run_apart(ours, **common, **more)
    found[NAIVE] = run_apart(naive, **common)
    found[PEER] = run_apart(rechub, **common)
    return found


def render(setting: dict[str, Any], results: Results) -> str:
    made = setting_of(setting)
    lines = [
        f"{made.name}: {made.samples:,} samples, {made.num_features} features, batch {made.batch_size:,}, "
        f"{made.num_sample:,} shared negatives",
        "",
        f"{'':<25}{'samples/CPU-s':>14}{'float32 x':>11}{'bfloat16 x':>12}{'peak MiB':>10}  steps",
    ]
    for name, found in results.items():
        if "missing" in found:
            lines.append(f"{name:<25}{'missing: ' + found['missing']:>14}")
            continue
        kind = "in-batch only" if name == PEER or name.startswith("in-batch") else "ours"
        times = [results[f"{kind}, {precision}"]["samples_per_s"] / found["samples_per_s"] for precision in PRECISIONS]
        figures = f"{found['samples_per_s']:>14,.0f}{times[0]:>11.2f}{times[1]:>12.2f}{found['peak_mib']:>10.0f}"
        lines.append(f"{name:<25}{figures}  {found['steps']}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=("wide", "demo-like"), default="wide")
    parser.add_argument("--seconds", type=float, default=15.0, help="CPU seconds of training per contender")
    given = parser.parse_args()
    setting = {"name": given.setting}
    with tempfile.TemporaryDirectory() as scratch:
        results = measure(setting, seconds=given.seconds, folder=Path(scratch))
    sys.stdout.write(render(setting, results) + "\n")


if __name__ == "__main__":
    main()
