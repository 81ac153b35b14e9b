"""The input for fitting baselines: the interactions of all users before the evaluation day.

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
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.item_neighbors import Allocate, fit_neighbors

MAX_USER_ITEMS: Final = 500
"""Items of a user that `FitData.user_items` keeps: the most recent, as many as Mahout's item similarity keeps. Co-occurrence counts grow with
their square: in a world of 10 million rows, where one user of 400 has more items, 1,000 of each would make 1.6 times as many pairs."""

Arrays: TypeAlias = Mapping[str, NDArray[Any]]
"""A fitted baseline, as arrays by name, the same for all users. Other processes open them as files."""


def order_by_events(item_events: IntArray | NDArray[np.float64]) -> IntArray:
    """Returns all item indices by positive events, most first, then by index, int64 [I]."""
    return np.argsort(-item_events, kind="stable").astype(np.int64)


def recent_items(window: Interactions, max_items: int = MAX_USER_ITEMS) -> tuple[IntArray, NDArray[np.int32]]:
    """Returns the max_items most recent items of each user, ties by index, and the number kept per user."""
    lengths = np.diff(window.indptr)
    items = window.item_index.astype(np.int32)
    is_recent = np.ones(len(items), dtype=bool)
    for user in np.flatnonzero(lengths > max_items).tolist():  # few
        own = slice(window.indptr[user], window.indptr[user + 1])
        is_recent[own.start + np.argsort(-window.last_time_ms[own], kind="stable")[max_items:]] = False
    return np.minimum(lengths, max_items), items[is_recent]


@dataclass(frozen=True)
class FitData:
    """The interactions of all users, in the forms that baselines need.

    Attributes:
        window_events: int64 [I], positive events of each item in the window.
        recent_events: float64 [I], the same, but an event counts half after each half-life (`evaluation.recent`).
        history_events: int64 [I], the same of all stored days.
        window_days: days of the window.
        read_item_events: returns the positive events of each item in the window's last n days, int64 [I].
        read_user_items: returns the interactions of the window's last n days.
        read_history: yields all stored interactions, a few users at a time; each user comes once.
        settings: section `evaluation` of the configuration.
        allocate: allocates large arrays.
        seed: seed of random baselines.
        recent_hours: half-life of `recent_events`.
        neighbors_of: bool [I], the items to find neighbours of; None: all.
    """

    window_events: IntArray
    recent_events: NDArray[np.float64]
    history_events: IntArray
    window_days: int
    read_item_events: Callable[[int], IntArray]
    read_user_items: Callable[[int], ItemSets]
    read_history: Callable[[], Iterator[Interactions]]
    settings: Evaluation
    allocate: Allocate = np.empty
    seed: int = 0
    recent_hours: float | None = None
    neighbors_of: Mask | None = None
    _found: dict[int, Any] = field(default_factory=dict, init=False)

    @cached_property
    def popularity_order(self) -> IntArray:
        """Returns all items by positive events in the window, most first, int64 [I]. Baselines fill up their lists from it."""
        return order_by_events(self.window_events)

    @cached_property
    def user_items(self) -> ItemSets:
        return self.read_user_items(self.window_days)

    def find_neighbors(self, days: int) -> Any:
        """Returns the neighbours of each item, csr [I, I], from the window's last days. Results are cached."""
        if days not in self._found:
            users = self.user_items if days >= self.window_days else self.read_user_items(days)
            self._found[days] = fit_neighbors(users, len(self.window_events), self.allocate, of_items=self.neighbors_of)
        return self._found[days]
