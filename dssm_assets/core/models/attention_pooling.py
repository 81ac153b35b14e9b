"""Pooling by weights that the tower learns: one weighted mean of the past items per interest.

Belongs here: `AttentionPooling`. Does not belong here: which past items there are (`history_pooling`), their vectors
(`embedding`), the layers behind (`tower`).

Self-attentive, after Lin et al. 2017, section 2.1, as ComiRec-SA has it (Cen et al. 2020, section 3.2): past items with
the vectors H [n, W] weigh softmax over n of w2 tanh(W1 h), once per interest.

Letters: B rows, L length of the longest past, n past items of all rows, W width of a past item's vector, K interests.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from dssm_assets.core.arrays.ragged import IntArray, row_of_value
from dssm_assets.core.models.tower import linear

NOWHERE: Final = -1e9
"""Added to the score of a place without a past item: its weight is 0 to the last bit, and softmax needs no infinity."""


class AttentionPooling(nn.Module):
    """K weighted means of each row's past items; zeros for a row without any."""

    def __init__(self, width: int, interests: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = linear(width, width, generator, has_bias=False)
        self.score = linear(width, interests, generator, has_bias=False)

    def forward(self, vectors: Tensor, offsets: IntArray) -> Tensor:
        """Returns the means [B, K, W].

        Args:
            vectors: of the past items, row by row [n, W].
            offsets: start of each row and the end of the last [B + 1].
        """
        lengths = np.diff(offsets)
        count, longest = len(lengths), max(1, int(lengths.max(initial=0)))
        rows = row_of_value(offsets)
        places = torch.from_numpy(rows * longest + np.arange(len(rows)) - offsets[rows]).to(vectors.device)
        laid = vectors.new_zeros(count * longest, vectors.shape[1]).index_copy(0, places, vectors)
        is_there = vectors.new_zeros(count * longest).index_fill(0, places, 1.0).view(count, longest)
        past = laid.view(count, longest, vectors.shape[1])  # [B, L, W]
        scores = self.score(torch.tanh(self.hidden(past)))  # [B, L, K]
        weights = torch.softmax(scores + ((is_there - 1.0) * -NOWHERE)[:, :, None], dim=1)
        pooled: Tensor = weights.transpose(1, 2) @ past
        return pooled
