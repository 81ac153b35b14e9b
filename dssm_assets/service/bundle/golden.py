"""Golden rows: test inputs for which an exported tower must give the same vectors as the trained tower.

Letters: B rows, D vector dimension.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import torch

from dssm_assets.core.arrays.ragged import FloatArray, offsets_of
from dssm_assets.core.columns import feature_weights
from dssm_assets.core.models.prior import append_one
from dssm_assets.core.models.tower_input import TowerInput, select_rows
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.service.bundle.tower_layout import Feed, tower_layout

_RUN_ROWS: Final = 8
_MAX_VALUES: Final = 3
RunTower = Callable[[Feed], FloatArray]
"""Returns an exported tower's vectors for its inputs: [B, D], or [B, K, D] for users with K interests."""


@dataclass(frozen=True)
class TowerDifference:
    """The difference between an exported tower's vectors and the trained tower's.

    Attributes:
        row_count: number of compared rows.
        largest: largest absolute difference of an entry.
        longest: length of the longest vector of the trained tower.
    """

    row_count: int
    largest: float
    longest: float

    def is_within(self, tolerance: float) -> bool:
        """Returns whether every difference is within the tolerance, multiplied by the longest vector's length if that is above 1."""
        return self.largest <= tolerance * max(1.0, self.longest)


def compare_towers(two_tower: TwoTower, inputs: TowerInput, run: RunTower, *, is_user: bool) -> TowerDifference:
    """Compares the exported user or item tower with the trained tower on these rows."""
    spec = two_tower.spec
    with torch.no_grad():
        trained = (two_tower.user_vectors(inputs) if is_user else two_tower.item_vectors(inputs)).numpy()
    trained = append_one(trained) if is_user and spec.prior else trained
    layout = tower_layout(spec, is_user=is_user)
    # Rows of a call are padded to its longest history, so each call gets few rows.
    calls = np.split(np.arange(len(inputs)), range(_RUN_ROWS, len(inputs), _RUN_ROWS))
    exported = np.concatenate([run(layout.feed(select_rows(inputs, rows))) for rows in calls])
    return measure_difference(trained, exported)


def measure_difference(trained: FloatArray, exported: FloatArray) -> TowerDifference:
    """Measures the difference of two arrays of vectors. It is infinite if shapes differ or an entry is not finite."""
    longest = float(np.sqrt((trained.astype(np.float64) ** 2).sum(axis=-1)).max(initial=0.0))
    if trained.shape != exported.shape or not np.isfinite(exported).all():
        return TowerDifference(len(trained), float("inf"), longest)
    return TowerDifference(len(trained), float(np.abs(trained - exported).max(initial=0.0)), longest)


def golden_contexts(spec: TowerSpec, row_count: int, seed: int) -> dict[str, pa.Array]:
    """Returns column -> embedding indices, or weights, for every context feature. They are missing in even rows, random in odd rows."""
    rng = np.random.default_rng(seed)
    has_context = np.arange(row_count) % 2 == 1
    columns: dict[str, pa.Array] = {}
    for feature in spec.features_of(TowerSide.CONTEXT):
        if not feature.is_multi:
            indices = rng.integers(0, feature.num_embeddings, row_count)
            columns[feature.name] = pa.array(np.where(has_context, indices, 0).astype(np.int32))
            continue
        lengths = np.where(has_context, rng.integers(0, _MAX_VALUES + 1, row_count), 0)
        offsets = pa.array(offsets_of(lengths).astype(np.int32))
        values = rng.integers(0, feature.num_embeddings, int(lengths.sum())).astype(np.int32)
        columns[feature.name] = pa.ListArray.from_arrays(offsets, pa.array(values))
        if feature.is_weighted:
            weights = rng.uniform(-2, 2, len(values)).astype(np.float32)
            columns[feature_weights(feature.name)] = pa.ListArray.from_arrays(offsets, pa.array(weights))
    return columns
