"""Time spent fitting: rates, waiting for batches, what is left.

Belongs here: counting. Does not belong here: a clock (it comes in as a function) and what is done in the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

_Made = TypeVar("_Made")


class Clock:
    """Seconds spent waiting for batches and in all."""

    def __init__(self, total: int, now: Callable[[], float]) -> None:
        """Begins to count; `total` samples are to be taken."""
        self._now = now
        self._begin = now()
        self._total = total
        self._seen = 0
        self._waited = 0.0
        self.seconds = 0.0

    def waiting_for(self, produce: Callable[[], _Made]) -> _Made:
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
        """Samples per second in all."""
        return self._seen / self.seconds if self.seconds > 0 else 0.0

    @property
    def wait_frac(self) -> float:
        """Share of the time that was spent waiting for batches."""
        return self._waited / self.seconds if self.seconds > 0 else 0.0
