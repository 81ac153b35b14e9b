"""Features of towers, shared by the tests of towers, of their inputs and of exported ones."""

from __future__ import annotations

from typing import Any

from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide


def tower_feature(
    name: str, side: TowerSide = TowerSide.ITEM, table: str | None = None, *, dim: int = 2, rows: int = 5, **more: Any
) -> TowerFeature:
    """Returns a feature with an embedding table of its own, unless `table` names another feature's."""
    return TowerFeature(name=name, side=side, embedding_name=table or name, embedding_dim=dim, num_embeddings=rows, **more)


ONE_OF_EACH_SIDE = (tower_feature("u", TowerSide.USER), tower_feature("i"))
