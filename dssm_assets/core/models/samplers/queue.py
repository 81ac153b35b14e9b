"""Negatives from previous batches: their own items, with the vectors that they had then.

They need no pass through the item tower, so a batch can have many times its own items as columns (Wang et al.,
"Cross-Batch Negative Sampling for Training Two-Tower Recommenders", SIGIR 2021). An epoch starts with an empty queue.

Letters: n samples of an epoch, Q queued columns, I items.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray


def queued_slice(step: int, batch_size: int, queue_batches: int) -> slice:
    """Returns which samples of the epoch's order are the queued columns of a batch, the oldest first.

    Example: in step 5 with batches of 10 and a queue of 2 batches 30 .. 49, in step 1 0 .. 9, in step 0 none.
    """
    return slice(max(0, step - queue_batches) * batch_size, step * batch_size)


def queued_items(
    item_index: npt.NDArray[np.int32], item_frac: npt.NDArray[np.float64]
) -> tuple[IntArray, npt.NDArray[np.float64]]:
    """Returns the queued item indices [Q] and the probability of each.

    Args:
        item_index: own items of the queued samples [Q].
        item_frac: fraction of the training samples that have each item, its probability in a random order [I].
    """
    items = item_index.astype(np.int64)
    return items, item_frac[items]
