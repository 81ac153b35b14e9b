"""The layers that read single events of a user's history: attention pooling, and an encoder of the sequence.

**Attention pooling** computes one weighted mean of the events per interest. An interest weighs the event vectors h of a row by
softmax(w2 tanh(W1 h)), after Lin et al. 2017, section 2.1, as in ComiRec-SA (Cen et al. 2020, section 3.2).

**The encoder** is causal self-attention: the state at an event depends only on the events up to it. Blocks are built as in
SASRec (Kang and McAuley 2018), with the normalisation before each layer, and a last norm:

    x = x + attention(norm(x))
    x = x + W2 (silu(W1 norm(x)) * W3 norm(x))        SwiGLU, Shazeer 2020

Positions enter only as learned biases per head: one for the number of events between two events, one for the time between them
(after HSTU, Zhai et al. 2024, section 3). A state does not depend on later events or other sequences, so one pass over a sequence
gives the state of every event. Dense layers run over all events at once. Only attention pads, in blocks of similar length.

Letters: B rows, K interests, n events of all rows or sequences, W width, S sequences, R sequences of a block, L length of the
longest row or of a block's longest sequence, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dssm_assets.core.arrays.event_sequences import EventSequences
from dssm_assets.core.arrays.ragged import IntArray, row_of_value
from dssm_assets.core.config.model import Pooling
from dssm_assets.core.models.tower import drop, linear

MASKED_SCORE: Final = -1e9
"""Added to the score of padding. Its weight becomes exactly 0, without infinities in the softmax."""
MAX_SECONDS: Final = (1 << 29) - 2
"""Longer gaps count as this long (17 years)."""
NUM_GAPS: Final = 58
"""Number of classes of gaps: two per doubling of gap + 1 second."""
_SHARE: Final = 8 / 3
"""Width of SwiGLU in units of W. Its three matrices then have as many weights as two matrices of width 4 W."""
_LENGTH_STEP: Final = 1.2
"""Sequences of one block differ in length by at most this factor."""
_MAX_CELLS: Final = 1 << 21
"""Most attention weights of a block, so that intermediate results fit the cache. A single sequence may have more."""


class AttentionPooling(nn.Module):
    """K weighted means of each row's events; zeros for a row without events."""

    def __init__(self, width: int, interests: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = linear(width, width, generator, has_bias=False)
        self.score = linear(width, interests, generator, has_bias=False)

    def forward(self, vectors: Tensor, offsets: IntArray) -> Tensor:
        """Returns the means [B, K, W].

        Args:
            vectors: the events' vectors, row by row [n, W].
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


class SequenceEncoder(nn.Module):
    """Encodes sequences of events: one state per event, as wide as the event's vector."""

    def __init__(self, width: int, settings: Pooling, generator: torch.Generator) -> None:
        super().__init__()
        self._dropout, self._heads, self._length = settings.dropout, settings.num_heads, settings.length
        self.scale = math.sqrt(width) / 2
        """Multiplies the events' vectors, because new embeddings are short compared with the values that the layers add."""
        self.blocks = nn.ModuleList(
            SequenceBlock(width, settings.num_heads, settings.length, generator) for _ in range(settings.num_blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, vectors: Tensor, sequences: EventSequences, dropout: torch.Generator | None = None) -> Tensor:
        """Returns the state of every row's last event [B, W], zeros for a row without events. For the arguments see `encode`."""
        states = self.encode(vectors, sequences, dropout)
        padded = torch.cat([states, states.new_zeros(1, states.shape[1])])
        last = np.where(sequences.last >= 0, sequences.last, len(states))
        return padded.index_select(0, torch.from_numpy(last).to(states.device))

    def encode(self, vectors: Tensor, sequences: EventSequences, dropout: torch.Generator | None = None) -> Tensor:
        """Returns the state of every event [n, W].

        Args:
            vectors: the events' vectors [n, W].
            dropout: source of the dropout's randomness, None outside of training.
        """
        drops = partial(drop, frac=self._dropout, generator=dropout)
        blocks = list(_attention_blocks(sequences, vectors.device, self._heads, self._length))
        states = drops(vectors * self.scale)
        for block in self.blocks:
            states = block(states, blocks, drops)
        normed: Tensor = self.norm(states)
        return normed


class SequenceBlock(nn.Module):
    """One block of the encoder: self-attention and a SwiGLU layer, each with a norm before and a residual connection."""

    def __init__(self, width: int, heads: int, length: int, generator: torch.Generator) -> None:
        super().__init__()
        hidden = 8 * math.ceil(_SHARE * width / 8)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = CausalAttention(width, heads, length, generator)
        self.forward_norm = nn.LayerNorm(width)
        self.gate = linear(width, hidden, generator)
        self.value = linear(width, hidden, generator)
        self.out = linear(hidden, width, generator)

    def forward(self, states: Tensor, blocks: list[AttentionBlock], drop: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the new states [n, W]."""
        attended: Tensor = states + drop(self.attention(self.attention_norm(states), blocks, drop))
        normed = self.forward_norm(attended)
        return attended + drop(self.out(functional.silu(self.gate(normed)) * self.value(normed)))


class CausalAttention(nn.Module):
    """Causal self-attention: an event attends to itself and earlier events, with biases for distance and elapsed time."""

    def __init__(self, width: int, heads: int, length: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.query_key_value = linear(width, 3 * width, generator)
        self.out = linear(width, width, generator)
        self.distance_bias = nn.Parameter(torch.zeros(length, heads))
        self.gap_bias = nn.Parameter(torch.zeros(NUM_GAPS, heads))

    def forward(self, states: Tensor, blocks: list[AttentionBlock], drop: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the attended vectors [n, W]."""
        joint = self.query_key_value(states)
        joint = torch.cat([joint, joint.new_zeros(1, joint.shape[1])])
        found = []
        for block in blocks:
            rows, length = block.shape
            parts = joint.index_select(0, block.cells).view(rows, length, 3, self.heads, -1)
            query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)  # [R, H, L, W / H]
            mixed = self._attend(query, key, value, block, drop)
            found.append(mixed.transpose(1, 2).reshape(rows * length, -1).index_select(0, block.filled))
        if found:  # found is ordered by block; now by event
            mixed = torch.cat(found)
            states = torch.empty_like(mixed).index_copy(0, torch.cat([block.events for block in blocks]), mixed)
        read: Tensor = self.out(states)
        return read

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, block: AttentionBlock, drop: Callable[[Tensor], Tensor]
    ) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            scores = torch.matmul(query * query.shape[3] ** -0.5, key.transpose(2, 3)).to(self.gap_bias.dtype)  # [R, H, L, L]
            by_distance = _biases(self.distance_bias, block.distances).masked_fill(block.is_later, -torch.inf)
            weights = torch.softmax(scores + by_distance + _biases(self.gap_bias, block.gaps), dim=3)
            return torch.matmul(drop(weights).to(value.dtype), value)


def _biases(table: Tensor, places: Tensor) -> Tensor:
    """Returns the biases at these positions of a table [N, H], in the shape of `places`. The heads' positions follow one another.

    Single numbers are looked up, because on CPUs the gradient of a look-up of rows takes seven times as long.
    """
    return table.t().reshape(-1).index_select(0, places.view(-1)).view(places.shape)


@dataclass(frozen=True)
class AttentionBlock:
    """Sequences of similar lengths, padded at their ends. In [L, L], row and column are events of one sequence.

    Attributes:
        shape: (R, L).
        cells: the event of each cell [R * L]; n for padding.
        filled: the cells with events, by sequence.
        events: the event in each of these cells.
        distances: for each head, the position in `_biases` for the distance between two events [H, L, L].
        is_later: whether the column's event is later than the row's [L, L]; distance and time then count as 0.
        gaps: for each head, the position in `_biases` for the class (`gap_classes`) of the time between two events [R, H, L, L].
    """

    shape: tuple[int, int]
    cells: Tensor
    filled: Tensor
    events: Tensor
    distances: Tensor
    is_later: Tensor
    gaps: Tensor


def gap_classes(seconds: Tensor) -> Tensor:
    """Returns the class of each time gap in whole seconds: two classes per doubling of gap + 1. Negative gaps count as 0.

    Example: 0, 1, 2, 3, 4, 5, 6, 7 seconds have the classes 0, 2, 3, 4, 4, 5, 5, 6.
    """
    # Exponent and highest bit of the fraction are exact; a logarithm would be rounded.
    numbers = seconds.clamp(0, MAX_SECONDS).double() + 1.0
    return (numbers.view(torch.int64) >> 51) - (1023 << 1)


def _attention_blocks(
    sequences: EventSequences, device: torch.device, heads: int, max_distance: int
) -> Iterator[AttentionBlock]:
    lengths = np.diff(sequences.offsets)
    order = np.argsort(lengths, kind="stable")[np.count_nonzero(lengths == 0) :]
    kind = np.ceil(np.log(np.maximum(lengths[order], 8)) / math.log(_LENGTH_STEP))
    for group in np.split(order, np.flatnonzero(np.diff(kind)) + 1):
        longest = int(lengths[group].max(initial=0))
        step = max(1, _MAX_CELLS // max(1, longest * longest))
        for begin in range(0, len(group), step):
            yield _attention_block(sequences, group[begin : begin + step], device, heads, max_distance)


def _attention_block(
    sequences: EventSequences, chosen: IntArray, device: torch.device, heads: int, max_distance: int
) -> AttentionBlock:
    starts, lengths = sequences.offsets[chosen], np.diff(sequences.offsets)[chosen]
    count, longest = len(chosen), int(lengths.max())
    place = np.arange(longest)
    is_event = place < lengths[:, None]  # [R, L]
    at = np.where(is_event, starts[:, None] + place, -1)
    times = np.where(is_event, sequences.seconds[at], 0)
    cells, seconds = torch.from_numpy(at.reshape(-1)).to(device), torch.from_numpy(times).to(device)
    filled = torch.from_numpy(np.flatnonzero(is_event)).to(device)
    distances = torch.from_numpy(np.clip(place[:, None] - place, -1, max_distance - 1)).to(device)
    gaps = gap_classes(seconds[:, :, None] - seconds[:, None, :]).int()
    head = torch.arange(heads, dtype=torch.int32, device=device)[:, None, None]
    return AttentionBlock(
        shape=(count, longest),
        cells=torch.where(cells < 0, len(sequences.seconds), cells),
        filled=filled,
        events=cells[filled],
        distances=distances.clamp_min(0) + max_distance * head,
        is_later=distances < 0,
        gaps=gaps[:, None] + NUM_GAPS * head,
    )
