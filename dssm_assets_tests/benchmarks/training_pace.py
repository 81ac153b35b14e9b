"""Measures training steps: CPU seconds per step, and the peak memory of the process.

The median step counts, so that neither the first steps nor other work on the machine matter.

Belongs here: the meter, for any interpreter that has NumPy. Does not belong here: the trainings.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_WARM_UP_STEPS = 2


class EnoughError(Exception):
    """Stops a training that has run for long enough."""


@dataclass
class Pace:
    """Collects the CPU time of every step.

    Attributes:
        budget_s: CPU seconds after which the training stops.
        least_steps: number of steps to run even beyond the budget.
    """

    budget_s: float
    least_steps: int = 5
    _mark_s: float = 0.0
    _costs: list[float] = field(default_factory=list)
    _samples: list[int] = field(default_factory=list)

    def resume(self) -> None:
        """Starts the clock, at the first step or after work that is not part of a step."""
        self._mark_s = time.process_time()

    def step(self, samples: int) -> None:
        """Records that a step over this many samples has ended.

        Raises:
            EnoughError: the budget is spent.
        """
        now = time.process_time()
        self._costs.append(now - self._mark_s)
        self._mark_s = now
        self._samples.append(samples)
        if len(self._samples) >= self.least_steps and sum(self._costs) >= self.budget_s:
            raise EnoughError

    @property
    def samples_per_s(self) -> float:
        """Samples per CPU second of the median step; 0 before the first."""
        first = min(_WARM_UP_STEPS, len(self._samples) - 1)
        rates = np.array(self._samples[first:]) / np.maximum(self._costs[first:], 1e-9)
        return float(np.median(rates)) if len(rates) else 0.0

    def result(self) -> dict[str, Any]:
        """Returns samples per second, the number of steps, and the peak memory."""
        return {
            "samples_per_s": self.samples_per_s,
            "steps": len(self._samples),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
