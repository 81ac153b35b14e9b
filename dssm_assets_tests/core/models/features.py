"""Features of towers, shared by the tests of towers, of their inputs and of exported ones."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide


def tower_feature(
    name: str, side: TowerSide = TowerSide.ITEM, table: str | None = None, *, dim: int = 2, rows: int = 5, **more: Any
) -> TowerFeature:
    """Returns a feature with an embedding table of its own, unless `table` names another feature's."""
    return TowerFeature(name=name, side=side, embedding_name=table or name, embedding_dim=dim, num_embeddings=rows, **more)


def read_rows(inputs: TowerInput, features: Sequence[TowerFeature]) -> list[dict[str, Any]]:
    """Returns what a tower reads, row by row: name -> index, or indices of a feature of several values."""
    bags = [[bag.values[low:high].tolist() for low, high in pairwise(bag.offsets.tolist())] for bag in inputs.bags]
    rows = []
    for row, singles in enumerate(inputs.singles.tolist()):
        values = iter(singles), iter(bag[row] for bag in bags)
        rows.append({feature.name: next(values[feature.is_multi]) for feature in features})
    return rows


ONE_OF_EACH_SIDE = (tower_feature("u", TowerSide.USER), tower_feature("i"))
