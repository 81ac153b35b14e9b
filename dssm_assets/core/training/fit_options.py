"""The optional inputs of a fit: earlier weights, checkpoints, other processes.

A plain fit needs none of them. `closed_form/`, `resume/` and `distributed/` are imported where a fit uses them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.fit_report import EpochScore, FitHistory

if TYPE_CHECKING:
    from dssm_assets.core.training.resume.warm_start import WarmStart


class Checkpoints:
    """Stores the state of a fit while it runs. This one stores nothing: a killed fit starts again.

    `resume/checkpoints.py` has the one that does.
    """

    def restore(self) -> tuple[FitHistory, dict[str, Tensor]] | None:
        """Returns history and tensors of a killed fit with the same configuration and inputs; None: there is none."""
        return None

    def save_if_due(self, history: FitHistory, state: Callable[[], dict[str, Tensor]]) -> None:
        """Called after every step. `state` returns all tensors that the next step depends on."""


@dataclass(frozen=True)
class FitContext:
    """Everything that a fit needs in addition to data and configuration.

    Attributes:
        ks: cut-offs of the evaluation, for hit_rate@k on the validation days.
        warm_start: weights to start from; None: random weights.
        checkpoints: where the state of the fit is stored.
        peak_bytes: returns the peak memory of this process so far.
        after_epoch: called with all scores after each epoch on validation days; what it raises ends the fit.
    """

    ks: Sequence[int] = (200,)
    warm_start: WarmStart | None = None
    checkpoints: Checkpoints = field(default_factory=Checkpoints)
    ranks: Ranks = SINGLE_PROCESS
    peak_bytes: Callable[[], int] = lambda: 0
    after_epoch: Callable[[Sequence[EpochScore]], None] = lambda scores: None
