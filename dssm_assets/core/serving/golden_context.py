"""Contexts for golden rows: a request has one, a vector that was computed ahead has none, and both must come out right.

Belongs here: drawing them. Does not belong here: choosing rows and comparing (`golden.py`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core.columns import feature_weights
from dssm_assets.core.models.bags import offsets_of
from dssm_assets.core.models.tower_feature import Side
from dssm_assets.core.models.tower_spec import TowerSpec

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
