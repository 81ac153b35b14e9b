"""Which part of its user's past a training sample sees.

Belongs here: leaving the sample's own item out, and ending a past earlier than it could. Does not belong here: reading
the events (`core/models/history`) and the strict end before the event (`core/samples/train_samples`).

Letters: B rows, U users, n events of all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from dssm_assets.core.model_config import History, HistoryCut
from dssm_assets.core.models.bags import IntArray, offsets_of, ragged_positions, row_of


@dataclass(frozen=True)
class SamplePast:
    """The rule for all samples of an epoch.

    Attributes:
        history: everything before the event or its day, or all other items of the user.
        cut: which samples see less than they could.
        user_ends: where the events end that samples of `others` may see, by user [U]; None: where each user's end.
    """

    history: History = History.EVENT
    cut: HistoryCut = field(default_factory=HistoryCut)
    user_ends: IntArray | None = None


def kept_lengths(lengths: IntArray, cut: HistoryCut, rng: np.random.Generator) -> IntArray:
    """Returns how many of the oldest events of each past are kept [B]: ceil(length * share) where it is cut, else all.

    Example: min_length_frac 0.75 and a length of 8: 7 or 8 events, 6 only in the case of no width that 0.75 is drawn.
    """
    is_cut = rng.random(len(lengths)) < cut.sample_frac
    share = rng.uniform(cut.min_length_frac, 1.0, len(lengths))
    return np.where(is_cut, np.ceil(lengths * share).astype(np.int64), lengths)


def events_of_others(
    starts: IntArray, ends: IntArray, own_items: IntArray, items_at: Callable[[IntArray], npt.NDArray[np.int32]]
) -> tuple[IntArray, IntArray]:
    """Returns the positions [n] of the events start .. end - 1 of every row without those of its own item, and offsets.

    Args:
        starts: first event of each row's user [B].
        ends: where each row's user's events end [B].
        own_items: item of each row, which must not be in its own past [B].
        items_at: the items of events by position.
    """
    positions, offsets = ragged_positions(starts, ends)
    row = row_of(offsets)
    is_other = items_at(positions) != own_items[row]
    return positions[is_other], offsets_of(np.bincount(row[is_other], minlength=len(starts)))


def oldest(positions: IntArray, offsets: IntArray, lengths: IntArray) -> tuple[IntArray, IntArray]:
    """Returns the first so many positions of every row, and their offsets [B + 1]."""
    at, kept = ragged_positions(offsets[:-1], offsets[:-1] + lengths)
    return positions[at], kept
