"""What is told of a fit: progress on the way, the result, the report.

Belongs here: these values and the figures of the report. Does not belong here: the fit itself (`loop`), pictures
(`evaluation/charts`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core.model_config import Model
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.clock import Clock
from dssm_assets.core.training.distributed import ALONE, Ranks
from dssm_assets.core.training.fit_state import EpochScore, Record
from dssm_assets.core.training.warm_start import WarmStart
from dssm_assets.core.training_config import Training


@dataclass(frozen=True)
class Progress:
    """Where the training stands after a step."""

    step: int
    """Steps done in this phase, 1 .. steps."""
    steps: int
    epoch: int
    """Epoch of the step, from 0."""
    loss: float
    samples_per_s: float
    eta_s: float
    """Seconds left if no epoch is saved by stopping early."""
    phase: str = "fit"
    """search on the days before the validation days, or fit."""


def _no_bytes() -> int:
    return 0


@dataclass(frozen=True)
class Surroundings:
    """What a fit is given beside its input.

    Attributes:
        ks: of the evaluation, for hit_rate@k on the validation days.
        warm_start: towers to begin with; None: new ones.
        key: names the configuration and the inputs; a state of another key is passed over.
        saved: what `save` was given by a run that was killed.
        save: stores the state of a training, given piece by piece; None: none is stored.
        stores_together: every process stores its own part, all of the same step: the first one says when.
        ranks: this process among those that share the batches.
        peak_bytes: the most memory that this process has held.
    """

    ks: Sequence[int] = (200,)
    warm_start: WarmStart | None = None
    key: str = ""
    saved: bytes | None = None
    save: Callable[[Iterable[bytes]], None] | None = None
    stores_together: bool = False
    ranks: Ranks = ALONE
    peak_bytes: Callable[[], int] = _no_bytes


@dataclass(frozen=True)
class FitResult:
    """The fitted towers and how they came to be.

    Report keys: samples_per_s, final_loss (mean over the last epoch), steps, epochs (of the towers that are kept), samples,
    seconds, embedding_norms (embedding name -> mean length of its vectors), input_wait_frac (share of the time spent
    waiting for batches), best_epoch, validation_hit_rate (by epoch), validation_hit_rate_without_prior, prior, device,
    is_bfloat16, peak_bytes, warm_start, resumed_at_step, configuration.

    Attributes:
        two_tower: with averaged weights where an average is kept.
        loss_by_step: of the phase whose towers are kept.
        report: see above.
        search_loss_by_step: of the phase before it; of the same phase where nothing was refitted; empty without one.
        scores: on the validation days, epoch by epoch.
        prior: chosen there.
    """

    two_tower: TwoTower
    loss_by_step: npt.NDArray[np.float32]
    report: dict[str, Any]
    search_loss_by_step: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    scores: tuple[EpochScore, ...] = ()
    prior: Prior | None = None


UNSTEADY = frozenset({"seconds", "samples_per_s", "input_wait_frac", "peak_bytes", "peak_bytes_of", "resumed_at_step"})
"""Keys of the report that differ from run to run."""


def fit_report(record: Record, towers: TwoTower, clock: Clock, model: Model, training: Training) -> dict[str, Any]:
    """Returns the figures of a fit that is over."""
    best = record.best
    losses = record.losses or record.search_losses
    epochs_taken = record.epoch or len(record.scores)
    return {
        "samples_per_s": clock.samples_per_s,
        "final_loss": float(np.mean(losses[-max(1, len(losses) // epochs_taken) :])),
        "steps": len(losses),
        "epochs": best.epoch if best is not None else training.epochs,
        "seconds": clock.seconds,
        "embedding_norms": embedding_norms(towers),
        "input_wait_frac": clock.wait_frac,
        "best_epoch": None if best is None else best.epoch,
        "validation_hit_rate": [score.hit_rate for score in record.scores],
        "validation_hit_rate_without_prior": [score.plain_hit_rate for score in record.scores],
        "prior": None if best is None or best.prior is None else list(best.prior),
        "resumed_at_step": record.resumed_at,
        "configuration": {"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")},
    }


def embedding_norms(two_tower: TwoTower) -> dict[str, float]:
    """Returns the mean length of each embedding's vectors, "missing" left out."""
    norms = {}
    for feature in two_tower.spec.features:
        base = two_tower.tables.bases[feature.embedding_name]
        found = two_tower.tables.mean_length(feature.embedding_dim, base + 1, base + feature.num_embeddings)
        norms[feature.embedding_name] = found
    return norms
