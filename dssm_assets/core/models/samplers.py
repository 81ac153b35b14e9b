"""Samplers draw the negatives, each from its own distribution.

To add a sampler, write one class, one line in `SAMPLERS`, and its meaning in `Sampler` (core/config/model.py). A plug-in
(docs/platform.md) sets `SAMPLERS["my_sampler"] = make_my_sampler`. Does not belong here: masking a row's draws
(`core/training/batch_negatives.py`), and the weights of items (asset negative_items).

Letters: B rows, I items, U users, E edges, N draws, H hard negatives of a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, repeat_rows
from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.names import REGISTRIES

Floats: TypeAlias = npt.NDArray[np.float64]
Draws: TypeAlias = tuple[IntArray, Floats]
"""Item indices and the probability of each [N]."""

UNIFORM_FRAC: Final = 0.5
"""Fraction of the draws of the sampler `mixed` that are uniform."""


class NegativeSampler(Protocol):
    """Draws items of the corpus with replacement, and returns their probabilities."""

    probability: Floats
    """The exact probability of each item [I]."""

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        """Returns N item indices, possibly repeated, and the probability of each."""


class UniformSampler:
    """Draws each item with probability 1 / I."""

    def __init__(self, num_items: int) -> None:
        self.probability: Floats = np.full(num_items, 1.0 / num_items)

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        item_index = rng.integers(len(self.probability), size=count)
        return item_index, self.probability[item_index]


class AllItemsSampler(UniformSampler):
    """Returns each item once, for a softmax over all items. The logQ correction of every item is 0."""

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        return np.arange(len(self.probability), dtype=np.int64), self.probability


class WeightedSampler:
    """Draws items with probability weight / sum of weights, in constant time each, by Walker's alias method (1977).

    Raises:
        SchemaError: a weight is negative or not finite, or no weight is positive.
    """

    def __init__(self, weights: Floats) -> None:
        wrong = ~(np.isfinite(weights) & (weights >= 0))
        if wrong.any() or not (weights > 0).any():
            got = f"{int(wrong.sum())} bad weights, {int((weights > 0).sum())} positive weights"
            where = "table items, column weight"
            raise SchemaError(Fault(where, "finite weights >= 0, one of them positive", got, "correct negative_items"))
        self.probability: Floats = weights / weights.sum()
        self.keep, self.alias = alias_table(self.probability)

    def draw(self, count: int, rng: np.random.Generator) -> Draws:
        slot = rng.integers(len(self.keep), size=count)
        item_index = np.where(rng.random(count) < self.keep[slot], slot, self.alias[slot])
        return item_index, self.probability[item_index]


def mix_with_uniform(weights: Floats) -> WeightedSampler:
    """Returns a sampler that draws half uniformly and half by weight (Yang et al. 2020, "Mixed Negative Sampling")."""
    by_weight = WeightedSampler(weights).probability
    return WeightedSampler(UNIFORM_FRAC / len(weights) + (1.0 - UNIFORM_FRAC) * by_weight)


def alias_table(probability: Floats) -> tuple[Floats, IntArray]:
    """Returns (keep, alias): slot s yields s with probability keep[s], else alias[s]. All slots are equally likely.

    The table is built with two prefix sums instead of a work list (Huebschle-Schneider and Sanders 2019, section 4). An item
    is light if its share (probability times I) is below 1, else heavy. The rest of a light item's slot goes to the first
    heavy item with a running excess above the deficits filled so far. If this item has too little excess left, the next heavy
    item fills the deficit of its slot.
    """
    share = probability * len(probability)
    keep, alias = np.ones_like(share), np.arange(len(share), dtype=np.int64)
    is_heavy = share >= 1
    # If the shares of equal weights all round to just below 1, the largest fills the others.
    is_heavy[np.argmax(share)] = True
    light, heavy = np.flatnonzero(~is_heavy), np.flatnonzero(is_heavy)
    if not len(light):
        return keep, alias
    served = np.concatenate([[0.0], np.cumsum(1 - share[light])])  # after 0, 1, .. light items
    excess = np.cumsum(share[heavy] - 1)
    server = np.minimum(np.searchsorted(excess, served[:-1], side="right"), len(heavy) - 1)
    keep[light], alias[light] = share[light], heavy[server]
    # The search includes 0: a first heavy item with share exactly 1 has excess 0 and no deficit.
    overdrawn_at = np.searchsorted(served, excess[:-1], side="left")
    is_overdrawn = overdrawn_at < len(served)
    drawn = served[np.minimum(overdrawn_at, len(served) - 1)]
    keep[heavy[:-1]] = np.where(is_overdrawn, np.clip(1 + excess[:-1] - drawn, 0, 1), 1.0)
    alias[heavy[:-1]] = np.where(is_overdrawn, heavy[1:], heavy[:-1])
    return keep, alias


@dataclass(frozen=True)
class HardDraw:
    """Hard negatives of a batch: items shown to a row's user without an interaction. Each counts for one row.

    Attributes:
        rows: row of each hard negative, ascending [H].
        items: item index of each [H].
        probability: probability of drawing this item for this row [H].
        days: first day of the window on which the item was shown to the user [H].
    """

    rows: IntArray
    items: IntArray
    probability: Floats
    days: IntArray

    @classmethod
    def empty(cls) -> HardDraw:
        none = np.zeros(0, np.int64)
        return cls(none, none, np.zeros(0, np.float64), none)

    def keep(self, is_kept: npt.NDArray[np.bool_]) -> HardDraw:
        """Keeps the marked hard negatives, with unchanged probabilities."""
        return HardDraw(self.rows[is_kept], self.items[is_kept], self.probability[is_kept], self.days[is_kept])


@dataclass(frozen=True)
class HardEdges:
    """Edges from users to items: an edge is an item shown to a user without an interaction. Sorted by user.

    Attributes:
        offsets: the edges of user u are offsets[u] .. offsets[u + 1] - 1 [U + 1].
        items: item index of each edge [E].
        days: first day of the window on which the item was shown to the user [E].
    """

    offsets: IntArray
    items: npt.NDArray[np.int32]
    days: npt.NDArray[np.int32]

    @classmethod
    def empty(cls) -> HardEdges:
        """Returns edges for a log without exposures."""
        nothing = np.zeros(0, np.int32)
        return cls(np.zeros(1, np.int64), nothing, nothing)

    def draw(self, user_index: npt.NDArray[np.int32], count: int, rng: np.random.Generator) -> HardDraw:
        """Draws at most `count` edges of the rows' users, divided among the rows as evenly as possible.

        If a row gets k of its user's d edges, it gets the edges (r + j * d) // k for j = 0 .. k - 1, with r drawn uniformly
        from 0 .. d - 1. These are k different edges. Each edge is drawn with probability exactly k / d.

        Args:
            user_index: user of each row, -1 for an unknown user [B].
            rng: draws the rows that get the remainder, and the edges of each row.
        """
        is_known = (user_index >= 0) & (user_index < len(self.offsets) - 1)
        users = np.where(is_known, user_index, 0)
        first = self.offsets[users]
        degree = np.where(is_known, self.offsets[np.minimum(users + 1, len(self.offsets) - 1)] - first, 0)
        quota = divide_evenly(degree, count, rng)
        start = rng.integers(np.maximum(degree, 1))
        rows = repeat_rows(quota)
        rank = np.arange(len(rows), dtype=np.int64) - offsets_of(quota)[rows]
        edges = first[rows] + (start[rows] + rank * degree[rows]) // quota[rows]
        items, days = self.items[edges].astype(np.int64), self.days[edges].astype(np.int64)
        return HardDraw(rows, items, quota[rows] / degree[rows], days)


class HardSampler(WeightedSampler):
    """Draws items by weight, and hard negatives from the edges of the rows' users."""

    def __init__(self, weights: Floats, edges: HardEdges) -> None:
        super().__init__(weights)
        self.edges = edges


def divide_evenly(capacity: IntArray, count: int, rng: np.random.Generator) -> IntArray:
    """Divides `count` among rows as evenly as their capacities allow [B]. The remainder goes to random rows.

    Example: capacities 0, 1, 5, 9 and count 8 give 0, 1, 3, 4 or 0, 1, 4, 3.
    """
    if capacity.sum() <= count:
        return capacity.astype(np.int64)
    low, high = 0, count  # searches the highest level with sum(min(capacity, level)) <= count
    while low < high:
        level = (low + high + 1) // 2
        low, high = (level, high) if np.minimum(capacity, level).sum() <= count else (low, level - 1)
    quota = np.minimum(capacity, low).astype(np.int64)
    quota[rng.permutation(np.flatnonzero(capacity > low))[: count - quota.sum()]] += 1
    return quota


SamplerFactory: TypeAlias = Callable[[Model, Floats, HardEdges], NegativeSampler]
"""Makes a sampler from the model section, the weight of each item [I], and the edges for hard negatives."""

SAMPLERS: Final[dict[str, SamplerFactory]] = {
    Sampler.UNIFORM: lambda model, weights, edges: UniformSampler(len(weights)),
    Sampler.ALL: lambda model, weights, edges: AllItemsSampler(len(weights)),
    Sampler.WEIGHTED: lambda model, weights, edges: WeightedSampler(weights),
    Sampler.MIXED: lambda model, weights, edges: mix_with_uniform(weights),
    Sampler.HARD: lambda model, weights, edges: HardSampler(weights, edges),
    # V2 samplers draw the same; only the mask of the user's positives differs (`Model.masks_user_positives`).
    Sampler.V2: lambda model, weights, edges: WeightedSampler(weights),
    Sampler.HARD_V2: lambda model, weights, edges: HardSampler(weights, edges),
}
REGISTRIES["sampler"] = SAMPLERS
