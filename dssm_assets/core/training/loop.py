"""The training loop: from training data to fitted towers, with a report of how it went.

Belongs here: `fit`. Does not belong here: what a batch is (`batches`), how weights move (`optimisers`), where results
are stored (`checkpoint` makes the bytes, the asset stores them). The clock comes in as a function.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.embedding import Lookup
from dssm_assets.core.models.losses.sampled_softmax import sampled_softmax
from dssm_assets.core.models.tower_spec import TowerSpec, spec_faults, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.batches import Batch, batches_per_epoch, epoch_batches
from dssm_assets.core.training.optimisers import RowwiseAdagrad, dense_optimiser, learning_rate_frac
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training_config import Training


@dataclass(frozen=True)
class Progress:
    """Where the training stands after a step."""

    step: int
    """Steps done, 1 .. steps."""
    steps: int
    epoch: int
    """Epoch of the step, from 0."""
    loss: float
    samples_per_s: float
    eta_s: float


@dataclass(frozen=True)
class FitResult:
    """The fitted towers, the loss of every step and the report.

    Report keys: samples_per_s, final_loss (mean over the last epoch), steps, epochs, samples, seconds, embedding_norms
    (embedding name -> mean length of its vectors), input_wait_frac (share of the time spent waiting for batches).
    """

    two_tower: TwoTower
    loss_by_step: npt.NDArray[np.float32]
    report: dict[str, Any]


def fit(
    data: TrainData,
    spec: TowerSpec,
    *,
    model: Model,
    training: Training,
    seed: int,
    progress: Callable[[Progress], None],
    now: Callable[[], float],
) -> FitResult:
    """Returns towers fitted to the data. Same data, configuration and seed give the same bytes.

    Args:
        data: the window's samples.
        spec: the towers; must be what `tower_spec` makes of the model section.
        model: loss, negatives and masks.
        training: epochs, batches, learning rates, threads.
        seed: of initial weights, order, negatives and dropout.
        progress: called after every step.
        now: seconds of a clock that never goes back; only reported numbers depend on it.

    Raises:
        ConfigError: spec, data and model section disagree, or there is no negative to learn from.
    """
    _check(data, spec, model)
    torch.set_num_threads(training.num_threads)
    step = _Step(spec, training, seed, steps=training.epochs * batches_per_epoch(data, training))
    clock = _Clock(data.num_samples * training.epochs, now)
    losses: list[float] = []
    for epoch in range(training.epochs):
        batches = epoch_batches(data, model=model, training=training, seed=seed, epoch=epoch)
        while (batch := clock.waiting_for(lambda source=batches: next(source, None))) is not None:  # type: ignore[misc]
            losses.append(step.take(batch, model.in_batch))
            rate, eta_s = clock.after(len(batch.user))
            progress(Progress(len(losses), step.steps, epoch, losses[-1], rate, eta_s))
    report = {
        "samples_per_s": clock.samples_per_s,
        "final_loss": float(np.mean(losses[-batches_per_epoch(data, training) :])),
        "steps": step.steps,
        "epochs": training.epochs,
        "samples": data.num_samples,
        "seconds": clock.seconds,
        "embedding_norms": embedding_norms(step.two_tower),
        "input_wait_frac": clock.wait_frac,
    }
    return FitResult(step.two_tower, np.array(losses, np.float32), report)


def embedding_norms(two_tower: TwoTower) -> dict[str, float]:
    """Returns the mean length of each embedding's vectors, "missing" left out."""
    norms = {}
    for feature in two_tower.spec.features:
        base = two_tower.tables.bases[feature.embedding_name]
        rows = two_tower.tables.table(feature.embedding_dim)[base + 1 : base + feature.num_embeddings]
        norms[feature.embedding_name] = float(rows.norm(dim=1).mean()) if len(rows) else 0.0
    return norms


class _Step:
    """The towers, their optimisers and the count of steps."""

    def __init__(self, spec: TowerSpec, training: Training, seed: int, *, steps: int) -> None:
        initial, dropout = np.random.SeedSequence(seed).generate_state(2)
        self.two_tower = TwoTower(spec, torch.Generator().manual_seed(int(initial)))
        self.steps = steps
        self._training = training
        self._dropout = torch.Generator().manual_seed(int(dropout))
        self._sparse = RowwiseAdagrad(self.two_tower.tables)
        self._dense = dense_optimiser(self.two_tower, training.learning_rate, training.weight_decay)
        self._done = 0

    def take(self, batch: Batch, in_batch: bool) -> float:
        """Learns from one batch and returns its loss, as it was before the step."""
        tape: list[Lookup] = []
        user = self.two_tower.user_vectors(batch.user, tape, self._dropout)
        items = self.two_tower.item_vectors(batch.items, tape, self._dropout)
        own = items[: len(user)]
        loss = sampled_softmax(user, own, items if in_batch else items[len(user) :], batch.terms)
        self._dense.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        training = self._training
        frac = learning_rate_frac(self._done, self.steps, training.warmup_frac, training.final_learning_rate_frac)
        for group in self._dense.param_groups:
            group["lr"] = training.learning_rate * frac
        self._dense.step()
        self._sparse.step(tape, training.embedding_learning_rate * frac)
        self._done += 1
        return loss.item()


class _Clock:
    """Seconds spent waiting for batches and in all."""

    def __init__(self, total: int, now: Callable[[], float]) -> None:
        self._now = now
        self._begin = now()
        self._total = total
        self._seen = 0
        self._waited = 0.0
        self.seconds = 0.0

    def waiting_for(self, produce: Callable[[], Batch | None]) -> Batch | None:
        """Returns what `produce` makes; its time counts as waiting."""
        begin = self._now()
        made = produce()
        end = self._now()
        self._waited += end - begin
        self.seconds = end - self._begin
        return made

    def after(self, samples: int) -> tuple[float, float]:
        """Returns samples per second so far and the seconds left at that rate."""
        self._seen += samples
        self.seconds = self._now() - self._begin
        rate = self.samples_per_s
        return rate, (self._total - self._seen) / rate if rate else 0.0

    @property
    def samples_per_s(self) -> float:
        return self._seen / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_frac(self) -> float:
        return self._waited / self.seconds if self.seconds > 0 else 0.0


def _check(data: TrainData, spec: TowerSpec, model: Model) -> None:
    wanted = tower_spec(spec.features, model)
    faults = spec_faults(wanted, spec, "towers against the model section", "make the specification from this model section")
    faults += spec_faults(spec, data.spec, "training data", "open the data with the specification of the towers")
    if not model.in_batch and model.num_sample == 0:
        got = "in_batch off and num_sample 0"
        faults.append(Fault("model", "negatives: in_batch or num_sample", got, "switch one of them on"))
    if faults:
        raise ConfigError(faults)
