"""A peer: the DSSM of torch-rechub on the same data, in its own way.

Its negatives are the batch's other items: neither shared sampled negatives, nor the logQ correction, nor masks, so it does less
work per sample. Its tables are dense, trained by Adam, and all have the mean width of the item tower's tables, because it cannot
concatenate different ones.

Belongs here: feeding and timing it. Does not belong here: anything that needs our package, because the interpreter of the
peer runs this module.

Letters: B rows, W values of a feature.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets_tests.benchmarks.training_arrays import ArrayReader, EnoughError, Pace
from dssm_assets_tests.benchmarks.training_settings import Column, Setting, setting_of

Array = npt.NDArray[Any]

_MIN_STEPS = 4


def rechub(*, folder: str, setting: dict[str, Any], budget_s: float) -> dict[str, Any]:
    """Returns the pace of torch-rechub, or the missing library."""
    if importlib.util.find_spec("torch_rechub") is None:
        return {"missing": "torch-rechub"}
    import torch
    from torch_rechub.models.matching import DSSM
    from torch_rechub.trainers import MatchTrainer
    from torch_rechub.utils.data import DataGenerator

    torch.set_num_threads(1)
    torch.manual_seed(1)
    world, pace = setting_of(setting), Pace(budget_s, _MIN_STEPS)
    reader = ArrayReader(Path(folder), world)
    rows = np.random.default_rng(1).permutation(world.samples)[: 12 * world.batch_size]
    inputs = {**reader.user_side(rows), **reader.item_side(reader.item[rows])}
    columns = {name: _squeeze(values.numpy()) for name, values in inputs.items()}
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


def _squeeze(values: Array) -> Array:
    return values[:, 0] if values.shape[1] == 1 else values
