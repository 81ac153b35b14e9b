"""What a step of training costs: CPU seconds from step to step, and the memory that the process holds.

The middle step counts, so that neither the first steps nor a busy moment of the machine do.

Belongs here: the meter, for any interpreter that has NumPy. Does not belong here: whose steps they are.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_STATUS = Path("/proc/self/status")
_WARM_UP_STEPS = 2


class EnoughError(Exception):
    """Ends a training that has shown its pace."""


@dataclass
class Pace:
    """A meter that is told of every step.

    Attributes:
        budget_s: CPU seconds after which enough is known.
        least_steps: that are taken whatever they cost.
        anonymous_mib: most memory seen after a step, pages of files left out.
    """

    budget_s: float
    least_steps: int = 5
    anonymous_mib: float = 0.0
    _mark_s: float = 0.0
    _costs: list[float] = field(default_factory=list)
    _samples: list[int] = field(default_factory=list)

    def resume(self) -> None:
        """Notes that steps begin, or go on after something that is no part of them."""
        self._mark_s = time.process_time()

    def step(self, samples: int) -> None:
        """Notes that a step over so many samples is done.

        Raises:
            EnoughError: the budget is spent.
        """
        now = time.process_time()
        self._costs.append(now - self._mark_s)
        self._mark_s = now
        self._samples.append(samples)
        self.anonymous_mib = max(self.anonymous_mib, memory_mib("RssAnon"))
        if len(self._samples) >= self.least_steps and sum(self._costs) >= self.budget_s:
            raise EnoughError

    @property
    def samples_per_s(self) -> float:
        """Samples per CPU second of the middle step; 0 before the first."""
        first = min(_WARM_UP_STEPS, len(self._samples) - 1)
        rates = np.array(self._samples[first:]) / np.maximum(self._costs[first:], 1e-9)
        return float(np.median(rates)) if len(rates) else 0.0

    def result(self) -> dict[str, Any]:
        """Returns what is reported: the pace, the steps it was seen over, the highest memory."""
        return {
            "samples_per_s": self.samples_per_s,
            "steps": len(self._samples),
            "peak_mib": memory_mib("VmHWM"),
            "anonymous_mib": self.anonymous_mib,
        }


def memory_mib(entry: str) -> float:
    """Returns an entry of the process's status (VmHWM: highest resident, RssAnon: resident now, files left out); 0 if unknown."""
    if not _STATUS.exists():
        return 0.0
    found = [line for line in _STATUS.read_text().splitlines() if line.startswith(entry)]
    return int(found[0].split()[1]) / 1024 if found else 0.0
