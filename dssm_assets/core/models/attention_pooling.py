"""Pooling of the history with weights that the tower learns: one weighted mean of the events per interest.

Self-attention after Lin et al. 2017, section 2.1, as in ComiRec-SA (Cen et al. 2020, section 3.2): the weights of a row's
events, whose vectors are h, are the softmax over the row of w2 tanh(W1 h), once per interest.

Letters: B rows, L length of the longest history, n events of all rows, W width of an event's vector, K interests.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from dssm_assets.core.arrays.ragged import IntArray, row_of_value
from dssm_assets.core.models.tower import linear

MASKED_SCORE: Final = -1e9
"""Added to the score of padding: its weight is exactly 0, and softmax needs no infinity."""


class AttentionPooling(nn.Module):
    """K weighted means of each row's events; zeros for a row without events."""

    def __init__(self, width: int, interests: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = linear(width, width, generator, has_bias=False)
        self.score = linear(width, interests, generator, has_bias=False)

    def forward(self, vectors: Tensor, offsets: IntArray) -> Tensor:
        """Returns the means [B, K, W].

        Args:
            vectors: of the events, row by row [n, W].
            offsets: start of each row and the end of the last [B + 1].
        """
        lengths = np.diff(offsets)
        count, longest = len(lengths), max(1, int(lengths.max(initial=0)))
        rows = row_of_value(offsets)
        cells = torch.from_numpy(rows * longest + np.arange(len(rows)) - offsets[rows]).to(vectors.device)
        padded = vectors.new_zeros(count * longest, vectors.shape[1]).index_copy(0, cells, vectors)
        is_event = vectors.new_zeros(count * longest).index_fill(0, cells, 1.0).view(count, longest)
        events = padded.view(count, longest, vectors.shape[1])  # [B, L, W]
        scores = self.score(torch.tanh(self.hidden(events)))  # [B, L, K]
        weights = torch.softmax(scores + ((is_event - 1.0) * -MASKED_SCORE)[:, :, None], dim=1)
        pooled: Tensor = weights.transpose(1, 2) @ events
        return pooled
