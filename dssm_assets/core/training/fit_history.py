"""How far a fit has come and what it has measured: losses by step, scores by epoch."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class EpochScore:
    """Hit rate of the towers on the validation days after an epoch.

    Attributes:
        epoch: epochs done, from 1.
        hit_rate: with the prior, if there is one.
        plain_hit_rate: of the towers alone.
        prior: popularity, recent, half-life in days; None without a prior.
    """

    epoch: int
    hit_rate: float
    plain_hit_rate: float
    prior: tuple[float, float, float] | None = None


@dataclass
class FitHistory:
    """How far a fit has come and what it has measured.

    Attributes:
        is_search: the towers are being scored on the validation days. In the final phase, and without such days, False.
        epoch: epochs done in this phase.
        step: batches done in this epoch.
        losses: of every step of this phase.
        search_losses: of every step of the search, once it is over.
        scores: after every epoch of the search.
        resumed_at: steps that were done when a killed fit was last resumed; None: the fit ran in one go.
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
        """The first of the epochs with the highest hit rate; None without scores."""
        return max(self.scores, key=lambda score: score.hit_rate, default=None)

    @property
    def steps_done(self) -> int:
        """Steps of both phases."""
        return len(self.search_losses) + len(self.losses)

    def end_search(self) -> None:
        """Begins the final phase, whose towers are kept."""
        self.is_search, self.epoch, self.step = False, 0, 0
        self.search_losses, self.losses = self.losses, []
