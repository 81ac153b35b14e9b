"""What contenders that do not read our tables need: the arrays of a training world as batches of tensors, and the meter of steps.

The median step counts, so that neither the first steps nor other work on the machine matter.

Belongs here: gathering rows without a loop, CPU seconds per step. Does not belong here: anything that needs more than NumPy and
torch, because the peer reads it in an interpreter of its own.

Letters: B rows, E samples, I items, L history items that are pooled, W values of a feature.
"""

from __future__ import annotations

import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets_tests.benchmarks.training_settings import Setting

Array = npt.NDArray[Any]
_WARM_UP_STEPS = 2


class ArrayReader:
    """The world in memory.

    Attributes:
        item: item of each sample [E].
        user: user of each sample [E].
        item_counts: samples of each item [I].
    """

    def __init__(self, folder: Path, setting: Setting) -> None:
        self._setting = setting
        self._arrays = {path.stem: np.load(path) for path in (folder / "arrays").glob("*.npy")}
        self.item, self.user = self._arrays["sample.item"], self._arrays["sample.user"]
        self.item_counts = np.bincount(self.item, minlength=setting.items)

    def user_side(self, rows: Array) -> dict[str, Tensor]:
        """Returns the inputs of the user tower by name [B, W]; those of the history are named history__<item feature>."""
        user = self.user[rows]
        found = {column.name: self._values(column.name, user) for column in self._setting.user}
        found |= {column.name: self._values(column.name, rows) for column in self._setting.context}
        items, is_present = self.history_items(rows)
        for name in self._setting.history:
            values = np.where(is_present, self._arrays[name][items], 0)
            found[f"history__{name}"] = torch.from_numpy(values).long()
        return found

    def item_side(self, items: Array) -> dict[str, Tensor]:
        """Returns the inputs of the item tower by name [B, W]."""
        return {column.name: self._values(column.name, items) for column in self._setting.item}

    def history_items(self, rows: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Returns the last items before each sample, newest first, and which of these places have one [B, L]."""
        ends, starts = self._arrays["sample.end"][rows], self._arrays["history.start"][self.user[rows]]
        places = ends[:, None] - 1 - np.arange(self._setting.history_length)
        is_present = places >= starts[:, None]
        return self._arrays["history.item"][np.maximum(places, 0)], is_present

    def column(self, name: str) -> Array:
        """Returns a feature's values of every user, item or sample [.] or [., W]."""
        return self._arrays[name]

    def _values(self, name: str, owners: Array) -> Tensor:
        values = torch.from_numpy(self._arrays[name][owners]).long()
        return values[:, None] if values.ndim == 1 else values


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
