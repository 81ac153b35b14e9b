"""What else a step may do: a protocol, and the queue of earlier batches' items.

Belongs here: `StepHook`. Does not belong here: the step (`trainer`), the moving average (`weight_average`).

Letters: B samples, D vector width.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from dssm_assets.core.training.optimisers import RowGradients


@dataclass(frozen=True)
class Update:
    """One update of the weights.

    Attributes:
        rows: embedding rows that this process updates, with their gradients.
        items: vectors of the batch's own items, of all processes [B, D].
    """

    rows: list[RowGradients]
    items: Tensor


class StepHook:
    """Called at fixed points of every step. Each method of this class does nothing.

    Attributes:
        name: prefix of its tensors in a stored state.
    """

    name: str

    def begin_epoch(self) -> None:
        """Called before the first batch of an epoch."""

    def extra_columns(self) -> list[Tensor]:
        """Returns item vectors that are further columns of the logits."""
        return []

    def before_update(self, update: Update) -> None:
        """Called when gradients are known and no weight has changed."""

    def after_update(self, update: Update) -> None:
        """Called when all weights have changed."""

    def evaluation_weights(self) -> AbstractContextManager[None]:
        """Returns the block in which the towers hold the weights that are scored."""
        return nullcontext()

    def finish(self) -> None:
        """Called once, after the last step of a fit."""

    def state(self) -> dict[str, Tensor]:
        """Returns everything that the next step depends on, by name; not copies."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores what `state` returned."""


class ItemQueue(StepHook):
    """Keeps the own items of the last batches, which are negatives of the next ones (MoCo's queue, without its momentum)."""

    name = "queue"

    def __init__(self, num_batches: int, device: torch.device) -> None:
        self._device = device
        self._vectors: deque[Tensor] = deque(maxlen=num_batches)

    def begin_epoch(self) -> None:
        """Forgets the queued items: an epoch's batches are numbered from its own first."""
        self._vectors.clear()

    def extra_columns(self) -> list[Tensor]:
        """Returns the queued items' vectors, oldest batch first."""
        return list(self._vectors)

    def after_update(self, update: Update) -> None:
        """Adds the batch, and drops the oldest one if the queue is full."""
        self._vectors.append(update.items.detach())

    def state(self) -> dict[str, Tensor]:
        """Returns the vectors by their place in the queue."""
        return {str(place): vectors for place, vectors in enumerate(self._vectors)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Restores what `state` returned."""
        self._vectors.clear()
        self._vectors.extend(state[str(place)].to(self._device) for place in range(len(state)))
