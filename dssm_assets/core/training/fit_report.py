"""Records a fit: losses and validation scores, the progress after each step, and the final report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.group_codes import GroupCodes
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.models.two_tower import TwoTower


@dataclass(frozen=True)
class EpochScore:
    """Hit rate of the towers on the validation days after an epoch.

    Attributes:
        epoch: number of epochs done, from 1.
        hit_rate: hit rate with the prior, or of the towers alone if there is no prior.
        plain_hit_rate: hit rate of the towers alone.
        prior: popularity, recent, half-life in days, growth. None without a prior.
        error: standard error of the hit rate, as if pairs were independent.
    """

    epoch: int
    hit_rate: float
    plain_hit_rate: float
    prior: tuple[float, float, float, float] | None = None
    error: float = 0.0


@dataclass
class FitHistory:
    """The steps and figures of a fit so far.

    Attributes:
        is_search: whether this phase scores towers on validation days; False in the final phase, and without validation days.
        epoch: epochs done in this phase.
        step: batches done in this epoch.
        losses: loss of every step of this phase.
        search_losses: loss of every step of the search, empty until the search is over.
        scores: score after every epoch of the search.
        resumed_at: steps already done when a killed fit was last resumed. None: the fit was never resumed.
    """

    is_search: bool
    epoch: int = 0
    step: int = 0
    losses: list[float] = field(default_factory=list)
    search_losses: list[float] = field(default_factory=list)
    scores: list[EpochScore] = field(default_factory=list)
    resumed_at: int | None = None

    @property
    def best(self) -> EpochScore | None:
        """Returns the first epoch with the highest hit rate, None without scores."""
        return max(self.scores, key=lambda score: score.hit_rate, default=None)

    @property
    def steps_done(self) -> int:
        return len(self.search_losses) + len(self.losses)

    def end_search(self) -> None:
        self.is_search, self.epoch, self.step = False, 0, 0
        self.search_losses, self.losses = self.losses, []


UNSTEADY: Final = frozenset({"seconds", "samples_per_s", "input_wait_frac", "resumed_at_step"})
"""Keys of the report with values that differ from run to run."""

_T = TypeVar("_T")


@dataclass(frozen=True)
class Progress:
    """The progress of a fit after a step.

    Attributes:
        step: steps done in this phase, 1 .. steps.
        steps: steps of this phase without early stopping.
        epoch: epoch of the step, from 0.
        loss: loss of the step.
        samples_per_s: samples per second since the fit began.
        eta_s: seconds left at the pace of the last steps, if the search stops as early as possible. None at the first step,
            because its time includes preparation.
        eta_at_most_s: seconds left if the search does not stop early.
        phase: `search` (on the days before the validation days) or `fit`.
    """

    step: int
    steps: int
    epoch: int
    loss: float
    samples_per_s: float
    eta_s: float | None
    eta_at_most_s: float | None
    phase: str = "fit"


@dataclass(frozen=True)
class FitResult:
    """The fitted towers and the record of the fit.

    Attributes:
        two_tower: the towers; with averaged weights if `training` asks for an average.
        loss_by_step: losses of the phase that these towers come from.
        report: the figures of `fit_report`, and the device.
        search_loss_by_step: losses of the search; equal to `loss_by_step` without a refit; empty without a search.
        scores: scores on the validation days, by epoch.
        prior: popularity prior chosen on the validation days, None without one.
        group_codes: codes for items without events. None: such items have no code.
        search_weights: weights of the search's best epoch, not fitted to the validation days. Empty without a search, or if
            `two_tower` has these weights.
    """

    two_tower: TwoTower
    loss_by_step: npt.NDArray[np.float32]
    report: dict[str, Any]
    search_loss_by_step: npt.NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    scores: tuple[EpochScore, ...] = ()
    prior: Prior | None = None
    group_codes: GroupCodes | None = None
    search_weights: Mapping[str, Tensor] = field(default_factory=dict)


class FitClock:
    """Measures the seconds of a fit, and the seconds that it waits for batches."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now, self._begin = now, now()
        self._steps, self._samples_done, self._wait_seconds, self.seconds = 0, 0, 0.0, 0.0
        self._marks = (0, 0.0), (0, 0.0)  # samples and seconds at the last two steps with a power of two as number

    def time_waits(self, batches: Iterator[_T]) -> Iterator[_T]:
        """Yields the batches, and counts the time until each batch arrives as waiting."""
        while True:
            begin = self._now()
            batch = next(batches, None)
            end = self._now()
            self._wait_seconds += end - begin
            self.seconds = end - self._begin
            if batch is None:
                return
            yield batch

    def count_samples(self, samples: int) -> None:
        self._steps += 1
        self._samples_done += samples
        self.seconds = self._now() - self._begin
        if self._steps.bit_count() == 1:
            self._marks = self._marks[1], (self._samples_done, self.seconds)

    def seconds_for(self, samples: int) -> float | None:
        """Returns the seconds for so many samples at the pace of the later half of the steps. None before the second step."""
        if self._steps < 2:
            return None
        begin, seconds = self._marks[0]
        return samples * (self.seconds - seconds) / (self._samples_done - begin)

    @property
    def samples_per_s(self) -> float:
        return self._samples_done / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_frac(self) -> float:
        return self._wait_seconds / self.seconds if self.seconds > 0 else 0.0


def fit_report(history: FitHistory, clock: FitClock, model: Model, training: Training) -> dict[str, Any]:
    """Returns the figures of a finished fit.

    `final_loss` is the mean over the last epoch. `input_wait_frac` is the share of time spent waiting for batches. Hit rates are
    listed by epoch. `search_borders` has a remark if the last epoch is the best and gained more than its error.
    """
    best = history.best
    losses = history.losses or history.search_losses
    epochs_done = history.epoch or len(history.scores)
    return {
        "samples_per_s": clock.samples_per_s,
        "final_loss": float(np.mean(losses[-max(1, len(losses) // epochs_done) :])),
        "steps": len(losses),
        "epochs": best.epoch if best is not None else training.epochs,
        "seconds": clock.seconds,
        "input_wait_frac": clock.wait_frac,
        "best_epoch": None if best is None else best.epoch,
        "search_borders": [] if best is None else _find_borders(history.scores, training),
        "validation_hit_rate": [score.hit_rate for score in history.scores],
        "validation_hit_rate_without_prior": [score.plain_hit_rate for score in history.scores],
        "prior": None if best is None or best.prior is None else list(best.prior),
        "resumed_at_step": history.resumed_at,
        "configuration": {"model": model.model_dump(mode="json"), "training": training.model_dump(mode="json")},
    }


def _find_borders(scores: Sequence[EpochScore], training: Training) -> list[str]:
    *earlier, last = scores
    gain = last.hit_rate - max((score.hit_rate for score in earlier), default=math.inf)
    if last.epoch < training.epochs or gain <= last.error:
        return []
    return [
        f"training.epochs: the last epoch, {last.epoch}, still gained {gain:.4f} on the validation days (error {last.error:.4f}); raise it"
    ]
