"""Towers that begin as those of an earlier day.

Belongs here: carrying weights over. Does not belong here: which row stood for what (`features/carried_rows`), which day is
taken (`steps`).

Embedding rows are carried by value: new values keep their initial vectors, values that are gone are left out. Dense layers
are carried where name and shape are the same, and the towers read the same features in the same order: else a column of a
layer would mean another feature.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dssm_assets.core.features.carried_rows import CarriedRows
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.models.two_tower import TwoTower


@dataclass(frozen=True)
class WarmStart:
    """An earlier day's towers, and which of their embedding rows are whose today.

    Attributes:
        name: the partition they come from, for the report.
        two_tower: only read.
        rows: by embedding.
    """

    name: str
    two_tower: TwoTower
    rows: Mapping[str, CarriedRows]

    def into(self, two_tower: TwoTower) -> dict[str, Any]:
        """Carries the weights into towers as they were initialised; returns what the report says of it.

        Returns:
            from, embedding_rows_carried, embedding_rows_new, dense_tensors_carried, dense_tensors_new.
        """
        carried = sum(self._carry_rows(two_tower, name) for name in two_tower.tables.bases)
        total = sum(size - 1 for size in _sizes(two_tower.spec).values())
        dense = self._carry_dense(two_tower)
        names = [name for name in two_tower.state_dict() if not name.startswith("tables.")]
        return {
            "from": self.name,
            "embedding_rows_carried": carried,
            "embedding_rows_new": total - carried,
            "dense_tensors_carried": dense,
            "dense_tensors_new": len(names) - dense,
        }

    def _carry_rows(self, two_tower: TwoTower, embedding: str) -> int:
        dims = [
            {f.embedding_name: f.embedding_dim for f in of.spec.features}.get(embedding) for of in (two_tower, self.two_tower)
        ]
        found = self.rows.get(embedding)
        if found is None or dims[0] is None or dims[0] != dims[1]:
            return 0
        into, source = two_tower.tables, self.two_tower.tables
        today, earlier = found.today + into.bases[embedding], found.earlier + source.bases[embedding]
        into.put(dims[0], today, source.table(dims[0]), earlier)
        return len(found.today)

    def _carry_dense(self, two_tower: TwoTower) -> int:
        if _read_features(two_tower.spec) != _read_features(self.two_tower.spec):
            return 0
        earlier, count = self.two_tower.state_dict(), 0
        with torch.no_grad():
            for name, tensor in two_tower.state_dict().items():
                if not name.startswith("tables.") and name in earlier and earlier[name].shape == tensor.shape:
                    tensor.copy_(earlier[name])
                    count += 1
        return count


def _sizes(spec: TowerSpec) -> dict[str, int]:
    return {feature.embedding_name: feature.num_embeddings for feature in spec.features}


def _read_features(spec: TowerSpec) -> list[dict[str, Any]]:
    """Returns the features as the towers read them: all but how many values they have."""
    return [feature.model_dump(exclude={"num_embeddings"}) for feature in spec.features]
