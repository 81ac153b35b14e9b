"""What baselines are fitted on: the interactions of all users before the evaluation day.

Shapes: V users, I items, E (user, item) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ragged import IntArray, ItemSets, Mask
from dssm_assets.core.config.evaluation import Evaluation
from dssm_assets.core.evaluation.baselines.item_cooccurrence import Allocate, fit_neighbors
from dssm_assets.core.evaluation.baselines.popularity import order_by_events
from dssm_assets.core.evaluation.interactions import Interactions

MAX_USER_ITEMS: Final = 500
"""Items of a user that `FitData.user_items` keeps: the most recent ones, as many as Mahout's item similarity does. Co-occurrence counts grow with
their square: in a world of 10 million rows, where one user of 400 has more items, 1,000 of each would make 1.6 times as many pairs."""

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""A fitted baseline, as arrays by name: what all users have in common. Other processes open them as files."""


def recent_items(window: Interactions, max_items: int = MAX_USER_ITEMS) -> tuple[IntArray, NDArray[np.int32]]:
    """Returns how many items of each user are kept, and which: at most the max_items most recent, then the lower index."""
    lengths = np.diff(window.indptr)
    items = window.item_index.astype(np.int32)
    is_recent = np.ones(len(items), dtype=bool)
    for user in np.flatnonzero(lengths > max_items).tolist():  # few
        own = slice(window.indptr[user], window.indptr[user + 1])
        is_recent[own.start + np.argsort(-window.last_time_ms[own], kind="stable")[max_items:]] = False
    return np.minimum(lengths, max_items), items[is_recent]


@dataclass(frozen=True)
class FitData:
    """The interactions of all users, in the forms that baselines are fitted on.

    Attributes:
        window_events: int64 [I], positive events of each item in the window.
        recent_events: float64 [I], the same, but an event counts half after each half-life (`evaluation.recent`).
        history_events: int64 [I], the same of all stored days.
        window_days: days of the window.
        read_user_items: returns who interacted with what in its last days, given how many.
        read_history: returns the interactions of all users in all stored days, a few users at a time, each user once.
        settings: section `evaluation` of the configuration.
        allocate: makes large arrays.
        seed: of baselines that are random.
        recent_hours: half-life of `recent_events`.
        neighbors_of: bool [I], the items that neighbours are needed of; None: all.
        common_users: how many users neighbours have in common at least: of the baseline 1, of the channel 2.
    """

    window_events: IntArray
    recent_events: NDArray[np.float64]
    history_events: IntArray
    window_days: int
    read_user_items: Callable[[int], ItemSets]
    read_history: Callable[[], Iterator[Interactions]]
    settings: Evaluation
    allocate: Allocate = np.empty
    seed: int = 0
    recent_hours: float | None = None
    neighbors_of: Mask | None = None
    common_users: tuple[int, ...] = (1, 2)
    _found: dict[int, Mapping[int, Any]] = field(default_factory=dict, init=False)

    @cached_property
    def popularity_order(self) -> IntArray:
        """Returns int64 [I]: all items, most positive events in the window first. Baselines fill their lists up from it."""
        return order_by_events(self.window_events)

    @cached_property
    def user_items(self) -> ItemSets:
        """Returns who interacted with what in the window."""
        return self.read_user_items(self.window_days)

    def find_neighbors(self, days: int) -> Mapping[int, Any]:
        """Returns the neighbours of each item in the last days of the window, by the fewest users that they have in common, csr [I, I]
        each. Found once for each number of days."""
        if days not in self._found:
            users = self.user_items if days >= self.window_days else self.read_user_items(days)
            self._found[days] = fit_neighbors(
                users, len(self.window_events), self.allocate, common_users=self.common_users, of_items=self.neighbors_of
            )
        return self._found[days]
