"""Peers: the DSSM of RecTools and of torch-rechub on the same data, each in its own way.

Their negatives differ: RecTools draws one random item per user and epoch (a triplet), and its users are one-hot features and
all their items; torch-rechub uses the batch's other items. Neither has shared sampled negatives, the logQ correction or
masks, so they do less work per sample. torch-rechub's tables are dense, trained by Adam, and all have the mean width of the
item tower's tables, because it cannot concatenate different ones.

Belongs here: feeding and timing them. Does not belong here: anything that needs our package, because the interpreter of the
peers runs this module.

Letters: B rows, U users, I items, W values of a feature.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets_tests.benchmarks.training_pace import EnoughError, Pace
from dssm_assets_tests.benchmarks.training_settings import Column, Setting, setting_of

Array = npt.NDArray[Any]

_MIN_STEPS = 4


def versions() -> dict[str, str]:
    """Returns the installed versions: distribution -> version, empty if it is missing."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": sys.version.split()[0]}
    for name in ("torch", "rectools", "torch-rechub"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found


def rechub(*, folder: str, setting: dict[str, Any], budget_s: float) -> dict[str, Any]:
    """Returns the pace of torch-rechub, or the missing library."""
    if importlib.util.find_spec("torch_rechub") is None:
        return {"missing": "torch-rechub"}
    import torch
    from torch_rechub.models.matching import DSSM
    from torch_rechub.trainers import MatchTrainer
    from torch_rechub.utils.data import DataGenerator

    from dssm_assets_tests.benchmarks.training_arrays import ArrayReader

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


def rectools(*, folder: str, setting: dict[str, Any], budget_s: float) -> dict[str, Any]:
    """Returns the pace of RecTools, in triplets, or the missing library."""
    if importlib.util.find_spec("rectools") is None or importlib.util.find_spec("pytorch_lightning") is None:
        return {"missing": "rectools[torch]"}
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pytorch_lightning
        import torch
        from rectools.models.nn.dssm import DSSMModel

        torch.set_num_threads(1)
        pytorch_lightning.seed_everything(1, verbose=False)
        world, pace = setting_of(setting), Pace(budget_s, _MIN_STEPS)

        class Counting(pytorch_lightning.Callback):  # type: ignore[misc]
            def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
                pace.resume()

            def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
                pace.step(len(batch[0]))

        model = DSSMModel(n_factors=world.output_dim, batch_size=world.batch_size, trainer_accelerator="cpu", loggers=False)
        # The model's own trainer prints a progress bar and stores checkpoints.
        model._trainer = pytorch_lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=1000,
            callbacks=[Counting()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        with suppress(EnoughError):
            model.fit(_rectools_dataset(Path(folder), world))
    return pace.result()


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


def _rectools_dataset(folder: Path, world: Setting) -> Any:
    import pandas as pd
    from rectools import Columns
    from rectools.dataset import Dataset

    from dssm_assets_tests.benchmarks.training_arrays import ArrayReader

    reader = ArrayReader(folder, world)
    events = {Columns.User: reader.user, Columns.Item: reader.item, Columns.Weight: 1.0}
    events[Columns.Datetime] = pd.to_datetime(reader.column("sample.time"), unit="ms")
    users, items = np.unique(reader.user), np.unique(reader.item)
    return Dataset.construct(
        pd.DataFrame(events),
        user_features_df=_one_hot(reader, world.user, users),
        cat_user_features=[column.name for column in world.user],
        item_features_df=_one_hot(reader, world.item, items),
        cat_item_features=[column.name for column in world.item],
    )


def _one_hot(reader: Any, columns: tuple[Column, ...], owners: Array) -> Any:
    """Returns one row per owner and value: id, value, feature."""
    import pandas as pd

    parts = []
    for column in columns:
        values = reader.column(column.name)[owners].reshape(len(owners), -1)  # [., W]
        owner, place = np.nonzero(values)
        part = {"id": owners[owner], "value": values[owner, place], "feature": column.name}
        parts.append(pd.DataFrame(part).drop_duplicates())
    return pd.concat(parts, ignore_index=True)


def _squeeze(values: Array) -> Array:
    return values[:, 0] if values.shape[1] == 1 else values
