"""The logQ correction: what is taken off a logit because popular items are met as negatives more often.

Belongs here: the expected counts of columns. Does not belong here: drawing them.

Bengio and Senecal 2008; for in-batch negatives Yi et al., "Sampling-Bias-Corrected Neural Modeling for Large Corpus
Item Recommendations" (RecSys 2019). A column of item y is corrected by the log of how many columns of ITS KIND hold y
on average:

    in-batch column   log(B * p(y)),  p(y) = share of y among the training samples of the window
    sampled column    log(N * q(y)),  q(y) = probability with which the sampler draws y
    queued column     log(Q * p(y)),  an own item of one of the batches before
    hard negative     log(k / d),     k of the d items that the row's user was shown and did not take

Counts instead of bare probabilities put the kinds on one scale when B, N and Q differ; a term common to all columns
cancels in the softmax. The row's own positive is corrected like an in-batch column, and like a sampled one when
in-batch columns are off. Everything is multiplied by the configured strength; 0 takes nothing off.

The weights of samples change none of this: they say how much a row counts, not how often an item is met.

Letters: B rows, N sampled, Q queued negatives.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def log_expected_counts(probability: Floats, draws: int, strength: float) -> npt.NDArray[np.float32]:
    """Returns strength * log(draws * probability) per column, the correction of columns of one kind.

    Args:
        probability: of each column's item, positive unless the strength is 0.
        draws: columns of this kind.
        strength: 1 corrects fully, 0 not at all.
    """
    if strength == 0:
        return np.zeros(len(probability), np.float32)
    return (strength * np.log(draws * probability)).astype(np.float32)
