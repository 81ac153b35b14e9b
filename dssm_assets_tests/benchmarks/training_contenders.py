"""Ours and naive PyTorch on the same training: what a user would write with torch in an afternoon.

Naive PyTorch has one `nn.EmbeddingBag` per feature, Adam over everything, all logits of the batch at once and
`cross_entropy`. Its batches are gathered from arrays without a loop, so that only the training is compared.

Belongs here: both trainings. Does not belong here: the peer (`training_peers.py`).

Letters: B rows, N shared negatives, C columns, W values of a feature.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.config.training import Precision, Training
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets_tests.benchmarks import training_settings
from dssm_assets_tests.benchmarks.training_arrays import ArrayReader, EnoughError, Pace
from dssm_assets_tests.benchmarks.training_settings import Column, Setting
from dssm_assets_tests.benchmarks.training_world import read_tables

_TEMPERATURE = 0.1
_LEARNING_RATE = 0.001


def ours(
    *, folder: str, setting: dict[str, Any], budget_s: float, precision: str, in_batch_only: bool = False
) -> dict[str, Any]:
    """Returns the pace of `fit` on the tables, memory-mapped; `in_batch_only`: with the negatives of the peers."""
    world = training_settings.setting_of(setting)
    if in_batch_only:
        world = replace(world, num_sample=0, masks_user_positives=False)
    model, pace = model_of(world), Pace(budget_s)
    spec = tower_spec(features_of(world), model)
    data = TrainData(spec, **read_tables(Path(folder)))
    training = Training(epochs=1000, batch_size=world.batch_size, num_threads=1, precision=Precision(precision))
    last = 0

    def progress(done: Any) -> None:
        nonlocal last
        # An epoch's last batch may be smaller.
        per_epoch = -(-world.samples // world.batch_size)
        last = world.batch_size if done.step % per_epoch else world.samples - (per_epoch - 1) * world.batch_size
        pace.step(last)

    pace.resume()
    with suppress(EnoughError):
        fit(data, spec, model=model, training=training, seed=1, context=FitContext(progress=progress))
    return pace.result()


def naive(*, folder: str, setting: dict[str, Any], budget_s: float) -> dict[str, Any]:
    """Returns the pace of naive PyTorch."""
    torch.set_num_threads(1)
    world = training_settings.setting_of(setting)
    torch.manual_seed(1)
    towers, reader, pace = _NaiveTowers(world), ArrayReader(Path(folder), world), Pace(budget_s)
    optimiser = torch.optim.Adam(towers.parameters(), lr=_LEARNING_RATE)
    rng = np.random.default_rng(1)
    weights = reader.item_counts + 1.0
    share, probability = reader.item_counts / world.samples, weights / weights.sum()
    pace.resume()
    with suppress(EnoughError):
        while True:
            order = rng.permutation(world.samples)
            for begin in range(0, world.samples, world.batch_size):
                rows = order[begin : begin + world.batch_size]
                negatives = rng.choice(world.items, world.num_sample, p=probability)
                items = np.concatenate([reader.item[rows], negatives])
                expected = np.concatenate([len(rows) * share[items[: len(rows)]], world.num_sample * probability[negatives]])
                logits = towers(reader.user_side(rows), reader.item_side(items)) / _TEMPERATURE
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


def model_of(setting: Setting) -> Model:
    """Returns the model section of the setting."""
    return Model(
        output_dim=setting.output_dim,
        hidden_units=list(setting.hidden),
        temperature=_TEMPERATURE,
        history_length=setting.history_length,
        num_sample=setting.num_sample,
        sampler=Sampler.WEIGHTED,
        user_positive_mask=setting.masks_user_positives,
    )


def features_of(setting: Setting) -> list[TowerFeature]:
    """Returns the features of the setting as towers see them."""

    def feature(column: Column, side: TowerSide, name: str) -> TowerFeature:
        return TowerFeature(
            name=name,
            side=side,
            embedding_name=column.name,
            embedding_dim=column.dim,
            num_embeddings=column.size,
            is_multi=column.is_multi,
        )

    sides = ((setting.user, TowerSide.USER), (setting.context, TowerSide.CONTEXT), (setting.item, TowerSide.ITEM))
    features = [feature(column, side, column.name) for columns, side in sides for column in columns]
    return features + [feature(setting.column(name), TowerSide.SEQUENCE, f"history__{name}") for name in setting.history]
