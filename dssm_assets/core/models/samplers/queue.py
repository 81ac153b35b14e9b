"""Negatives from the batches before: their own items, with the vectors they had then.

They cost no pass through the item tower, so a batch can have many times its own items as columns (Wang et al.,
"Cross-Batch Negative Sampling for Training Two-Tower Recommenders", SIGIR 2021). An epoch starts with an empty queue.

Belongs here: which samples' items are queued and the probability with which each is met. Does not belong here: the
vectors (`core/training/trainer` keeps them) and masks: a queued column is masked as any other.

Letters: n samples of an epoch, Q queued columns, I items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray


def queued_places(step: int, batch_size: int, queue_batches: int) -> slice:
    """Returns which samples of the epoch's order are columns of a batch beside its own, the oldest first.

    Example: step 5, batches of 10, a queue of 2 batches: 30 .. 49. Step 1: 0 .. 9. Step 0: none.
    """
    return slice(max(0, step - queue_batches) * batch_size, step * batch_size)


def queued_items(item_index: npt.NDArray[np.int32], share: npt.NDArray[np.float64]) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Returns the queued item indices [Q] and the probability with which each became one.

    Args:
        item_index: own items of the queued samples [Q].
        share: of each item among the samples that are trained on: an order drawn evenly brings it in so often [I].
    """
    items = item_index.astype(np.int64)
    return items, share[items]
