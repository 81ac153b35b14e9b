"""Towers that begin with the weights of an earlier day's, rows moved to where their values lie today."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.statistics.bucketizer import CarriedRows


@dataclass(frozen=True)
class WarmStart:
    """An earlier day's towers, and which of their embedding rows have the same value today.

    Attributes:
        name: the partition they come from, for the report.
        two_tower: only read.
        rows: by embedding.
    """

    name: str
    two_tower: TwoTower
    rows: Mapping[str, CarriedRows]

    def copy_into(self, two_tower: TwoTower) -> dict[str, Any]:
        """Overwrites the weights that have an earlier value; returns what the report says about it.

        Returns:
            from, embedding_rows_carried, embedding_rows_new, dense_tensors_carried, dense_tensors_new.
        """
        carried = sum(self._copy_rows(two_tower, name) for name in two_tower.tables.bases)
        total = sum({f.embedding_name: f.num_embeddings - 1 for f in two_tower.spec.features}.values())
        dense = self._copy_layers(two_tower)
        names = [name for name in two_tower.state_dict() if not name.startswith("tables.")]
        return {
            "from": self.name,
            "embedding_rows_carried": carried,
            "embedding_rows_new": total - carried,
            "dense_tensors_carried": dense,
            "dense_tensors_new": len(names) - dense,
        }

    def _copy_rows(self, two_tower: TwoTower, embedding: str) -> int:
        """Copies the rows of an embedding that has the same width today; returns how many."""
        dims = [
            {f.embedding_name: f.embedding_dim for f in towers.spec.features}.get(embedding)
            for towers in (two_tower, self.two_tower)
        ]
        rows = self.rows.get(embedding)
        if rows is None or dims[0] is None or dims[0] != dims[1]:
            return 0
        target, source = two_tower.tables, self.two_tower.tables
        today, earlier = rows.today + target.bases[embedding], rows.earlier + source.bases[embedding]
        target.write_rows(dims[0], today, source.table(dims[0]), earlier)
        return len(rows.today)

    def _copy_layers(self, two_tower: TwoTower) -> int:
        """Copies the dense tensors of the same shape if the towers read the same features; returns how many."""
        if _features_read(two_tower.spec) != _features_read(self.two_tower.spec):
            return 0
        earlier, count = self.two_tower.state_dict(), 0
        with torch.no_grad():
            for name, tensor in two_tower.state_dict().items():
                if not name.startswith("tables.") and name in earlier and earlier[name].shape == tensor.shape:
                    tensor.copy_(earlier[name])
                    count += 1
        return count


def _features_read(spec: TowerSpec) -> list[dict[str, Any]]:
    """Returns the features as the towers read them: everything except how many values they have."""
    return [feature.model_dump(exclude={"num_embeddings"}) for feature in spec.features]
