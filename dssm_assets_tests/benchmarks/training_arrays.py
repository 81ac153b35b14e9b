"""The arrays of a training world as batches of tensors, for contenders that do not read our tables.

Belongs here: gathering rows without a loop. Does not belong here: anything that needs more than NumPy and torch, because
peers read it in an interpreter of their own.

Letters: B rows, E samples, I items, L history items that are pooled, W values of a feature.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets_tests.benchmarks.training_settings import Setting

Array = npt.NDArray[Any]


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
