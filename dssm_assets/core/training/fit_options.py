"""The optional parts of a fit: what the caller hands in, and what the configuration switches on.

A plain fit needs none of them. Together with `steps/fit_job.py` and `steps/fit_process.py` it is all that knows of the folders
`resume/`, `distributed/` and `closed_form/`; they are imported where a fit uses them: without them, a plain fit still runs. Processes,
checkpoints and earlier weights come in with `FitContext`; svd_init and the prior are found by their configuration keys.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.errors import Fault
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import EpochScore, FitHistory
from dssm_assets.core.training.ranks import SINGLE_PROCESS, Ranks

if TYPE_CHECKING:
    from dssm_assets.core.models.group_codes import GroupCodes
    from dssm_assets.core.training.closed_form.prior_choice import PriorSearch
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


class EmbeddingStart:
    """Initialises embeddings before the first step. This one leaves them random; `closed_form/svd_init.py` has another."""

    has_groups = False
    """Whether `write_into` returns codes of groups."""

    def find_faults(self, spec: TowerSpec) -> list[Fault]:
        """Returns why embeddings of this specification cannot be initialised this way."""
        return []

    def write_into(self, towers: TwoTower, data: TrainData, before_day: int | None) -> GroupCodes | None:
        """Overwrites embeddings, computed from the interactions before a day; None: from the whole window.

        Returns the codes of items without an event; None: they have none.
        """
        return None


def embedding_start(training: Training) -> EmbeddingStart:
    """Returns the initialisation that `training.svd_init` configures."""
    if training.svd_init is None:
        return EmbeddingStart()
    from dssm_assets.core.training.closed_form.svd_init import SvdStart

    return SvdStart(training.svd_init)


def prior_search(model: Model, data: TrainData, first_day: int) -> PriorSearch | None:
    """Returns the search for a popularity prior on the days from `first_day` on; None without `model.prior`."""
    if not model.prior:
        return None
    from dssm_assets.core.training.closed_form.prior_choice import PriorSearch

    return PriorSearch.from_days_before(data, first_day)
