"""The channel of the user's own history: which items, how often, how long ago, and how users take them now.

Shapes: U users, B users of a block, C candidates, L proposed items, I items, E (user, item) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ordering import list_largest
from dssm_assets.core.arrays.ragged import IntArray, ranges, repeat_rows
from dssm_assets.core.channels.channel import Float64Array
from dssm_assets.core.config.channels import ChannelName

IS_OWN: Final = "is_own"
"""Signal: 1 for every item of the user's history."""
OWN_EVENTS: Final = "own_events"
"""Signal: ln(positive events of the user on the item)."""
OWN_AGE: Final = "own_age"
"""Signal: ln(days since the last of them), at least ln 1 = 0."""
ITEM_REPEATS: Final = "item_repeats"
"""Signal: ln((events + 1) / (users + 1)) of the item in the window: how often a user repeats it."""
SIGNALS: Final = (IS_OWN, OWN_EVENTS, OWN_AGE, ITEM_REPEATS)
"""In the order of `OwnHistoryChannel.describe`."""
ORDER: Final = (0.8, -0.3, 0.2)
"""What OWN_EVENTS, OWN_AGE and ITEM_REPEATS count in the order of the channel's own list."""
DAY_MS: Final = 86_400_000


def item_repeats(window_events: IntArray, window_users: IntArray) -> Float64Array:
    """Returns the signal ITEM_REPEATS of every item, float64 [I].

    Args:
        window_events: int64 [I], positive events in the window.
        window_users: int64 [I], users with one.
    """
    result: Float64Array = np.log((window_events + 1.0) / (window_users + 1.0))
    return result


@dataclass(frozen=True)
class OwnHistoryChannel:
    """The items of users' positive events before a moment. By event count alone, ten purchases a year ago would beat nine lately."""

    indptr: IntArray
    """int64 [U + 1]"""
    items: IntArray
    """int64 [E], ascending within a user."""
    counts: IntArray
    """int64 [E], positive events."""
    last_time_ms: IntArray
    """int64 [E], of the last of them."""
    repeats: Float64Array
    """float64 [I], ITEM_REPEATS."""
    now_ms: int
    """The moment that ages are counted from."""
    depth: int
    allowed: npt.NDArray[np.bool_] | None = None
    """bool [I], the items that are proposed; None: all."""
    name: ChannelName = ChannelName.OWN_HISTORY

    def propose(self, user_rows: IntArray) -> IntArray:
        """Returns int64 [B, L], as wide as the longest list."""
        lengths, pairs = self._pairs(user_rows)
        if self.allowed is not None:
            is_allowed = self.allowed[self.items[pairs]]
            owner, pairs = repeat_rows(lengths)[is_allowed], pairs[is_allowed]
            lengths = np.bincount(owner, minlength=len(user_rows))
        _, events, age, repeats = self._describe_pairs(pairs)
        score = ORDER[0] * events + ORDER[1] * age + ORDER[2] * repeats
        return list_largest(lengths, self.items[pairs], score, self.depth)

    def describe(self, user_rows: IntArray, candidates: IntArray, places: IntArray) -> Float64Array:
        signals = np.zeros((len(SIGNALS), *candidates.shape))
        lengths, pairs = self._pairs(user_rows)
        if not len(pairs):
            return signals
        width = int(max(candidates.max(initial=0), self.items[pairs].max())) + 2
        keys = repeat_rows(lengths) * width + self.items[pairs]
        wanted = np.arange(len(candidates))[:, None] * width + candidates
        found = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        is_own = (candidates >= 0) & (keys[found] == wanted)
        signals[:, is_own] = self._describe_pairs(pairs[found[is_own]])
        return signals

    def _pairs(self, user_rows: IntArray) -> tuple[IntArray, IntArray]:
        """Returns how many pairs each user has, and the positions of all of them."""
        starts = self.indptr[user_rows]
        lengths = self.indptr[user_rows + 1] - starts
        return lengths, ranges(starts, lengths)

    def _describe_pairs(self, pairs: IntArray) -> Float64Array:
        """Returns the signals float64 [4, n] of some pairs."""
        age_days = np.maximum((self.now_ms - self.last_time_ms[pairs]) / DAY_MS, 1.0)
        events, repeats = np.log(self.counts[pairs]), self.repeats[self.items[pairs]]
        return np.stack((np.ones(len(pairs)), events, np.log(age_days), repeats))
