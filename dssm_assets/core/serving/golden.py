"""Golden rows: what the exported towers are compared on with the trained ones.

Belongs here: choosing rows and comparing. Does not belong here: running an exported tower (whoever compares hands in a
function that does).

Letters: B rows, D vector dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import FloatArray, IntArray, offsets_of
from dssm_assets.core.columns import COUNT, ITEM_ID, feature_weights
from dssm_assets.core.models.prior import with_one
from dssm_assets.core.models.tower_input import TowerInput, rows_between
from dssm_assets.core.models.tower_spec import Side, TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.serving.tower_layout import Feed, TowerLayout, item_layout, user_layout

_RUN_ROWS: Final = 8
RunTower = Callable[[Feed], FloatArray]
"""Returns the vectors [B, D] that an exported tower gives for its inputs; [B, K, D] of users with K interests."""


@dataclass(frozen=True)
class TowerDifference:
    """How far an exported tower is from the trained one.

    Attributes:
        row_count: rows compared.
        largest: largest absolute difference of an entry.
        longest: length of the longest of the trained tower's vectors.
    """

    row_count: int
    largest: float
    longest: float

    def is_within(self, tolerance: float) -> bool:
        """Tells whether no entry is off by more than the tolerance, as a share of the longest vector if that exceeds 1."""
        return self.largest <= tolerance * max(1.0, self.longest)


def spread_rows(row_count: int, wanted: int) -> IntArray:
    """Returns so many row numbers evenly over the rows, first and last among them; all where there are no more."""
    return np.unique(np.linspace(0, max(row_count - 1, 0), min(wanted, row_count)).round().astype(np.int64))


def compare_user_tower(two_tower: TwoTower, inputs: TowerInput, run: RunTower) -> TowerDifference:
    """Returns how far the exported user tower is from the trained one on these rows."""
    with torch.no_grad():
        trained = two_tower.user_vectors(inputs).numpy()
    if two_tower.spec.prior:
        trained = with_one(trained)
    return difference(trained, _exported(user_layout(two_tower.spec), inputs, run))


def compare_item_tower(two_tower: TwoTower, inputs: TowerInput, run: RunTower) -> TowerDifference:
    """Returns how far the exported item tower is from the trained one on these rows."""
    with torch.no_grad():
        trained = two_tower.item_vectors(inputs).numpy()
    return difference(trained, _exported(item_layout(two_tower.spec), inputs, run))


def _exported(layout: TowerLayout, inputs: TowerInput, run: RunTower) -> FloatArray:
    """Returns the exported tower's vectors, few rows at a time: each is padded to the longest history beside it."""
    starts = range(0, max(len(inputs), 1), _RUN_ROWS)
    return np.concatenate([run(layout.feed(rows_between(inputs, start, start + _RUN_ROWS))) for start in starts])


def difference(trained: FloatArray, exported: FloatArray) -> TowerDifference:
    """Returns how far two arrays of vectors are apart; vectors that are not numbers, or of another shape, infinitely."""
    longest = float(np.sqrt((trained.astype(np.float64) ** 2).sum(axis=-1)).max(initial=0.0))
    if trained.shape != exported.shape or not np.isfinite(exported).all():
        return TowerDifference(len(trained), float("inf"), longest)
    return TowerDifference(len(trained), float(np.abs(trained - exported).max(initial=0.0)), longest)


_MOST_VALUES = 3


def golden_contexts(spec: TowerSpec, row_count: int, seed: int) -> dict[str, pa.Array]:
    """Returns column -> embedding indices or weights of every context feature: missing in even rows, drawn in odd ones."""
    rng = np.random.default_rng(seed)
    has_context = np.arange(row_count) % 2 == 1
    columns: dict[str, pa.Array] = {}
    for feature in spec.of(Side.CONTEXT):
        if not feature.is_multi:
            drawn = rng.integers(0, feature.num_embeddings, row_count)
            columns[feature.name] = pa.array(np.where(has_context, drawn, 0).astype(np.int32))
            continue
        lengths = np.where(has_context, rng.integers(0, _MOST_VALUES + 1, row_count), 0)
        offsets = pa.array(offsets_of(lengths).astype(np.int32))
        values = rng.integers(0, feature.num_embeddings, int(lengths.sum())).astype(np.int32)
        columns[feature.name] = pa.ListArray.from_arrays(offsets, pa.array(values))
        if feature.is_weighted:
            weights = rng.uniform(-2, 2, len(values)).astype(np.float32)
            columns[feature_weights(feature.name)] = pa.ListArray.from_arrays(offsets, pa.array(weights))
    return columns


def popular_items(positive_counts: pa.Table, item_index: IdIndex) -> pa.Table:
    """Returns item_id, count of the corpus items that were taken: most taken first, then ascending by id.

    Args:
        positive_counts: item_id, count, one row per item.
        item_index: the corpus; items outside it are left out, since they cannot be recalled.
    """
    rows = item_index.lookup(positive_counts.column(ITEM_ID), where=f"positive counts, column {ITEM_ID}")
    counts = positive_counts.column(COUNT).to_numpy()
    kept = np.flatnonzero((rows >= 0) & (counts > 0))
    table = pa.table({ITEM_ID: item_index.ids.take(pa.array(rows[kept])), COUNT: pa.array(counts[kept].astype(np.int64))})
    order = pc.sort_indices(table, [(COUNT, "descending"), (ITEM_ID, "ascending")])
    return table.take(order).combine_chunks()
