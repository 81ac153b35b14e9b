"""The two towers over shared embedding tables: the one object that training and serving have in common.

Belongs here: `TwoTower`. Does not belong here: losses, samplers, optimisers, the search index.

Letters: B rows, D output width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dssm_assets.core.models.embedding import EmbeddingTables, Lookup
from dssm_assets.core.models.tower import Tower
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import Side, TowerSpec


class TwoTower(nn.Module):
    """User tower (user features, context features, pooled history) and item tower (item features)."""

    def __init__(self, spec: TowerSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.spec = spec
        self.tables = EmbeddingTables(spec, generator)
        user, item = spec.of(Side.USER, Side.CONTEXT), spec.of(Side.ITEM)
        self._user_groups = self.tables.groups(
            [f for f in user if not f.is_multi], [f for f in user if f.is_multi] + list(spec.sequences)
        )
        self._item_groups = self.tables.groups([f for f in item if not f.is_multi], [f for f in item if f.is_multi])
        user_width = sum(group.width for group in self._user_groups) + bool(spec.sequences)
        self.user_tower = Tower(user_width, spec, generator)
        self.item_tower = Tower(sum(group.width for group in self._item_groups), spec, generator)

    def user_vectors(
        self, inputs: TowerInput, tape: list[Lookup] | None = None, dropout: torch.Generator | None = None
    ) -> Tensor:
        """Returns the user tower's vectors [B, D]; with a tape and a dropout generator as training needs them."""
        found = self.tables.lookup(self._user_groups, inputs, tape)
        if inputs.is_empty_history is not None:
            # The flag's weights are a learned vector for "no history", which a mean of zero vectors cannot express.
            found = torch.cat([found, torch.from_numpy(inputs.is_empty_history)[:, None]], dim=1)
        vectors: Tensor = self.user_tower(found, dropout)
        return vectors

    def item_vectors(
        self, inputs: TowerInput, tape: list[Lookup] | None = None, dropout: torch.Generator | None = None
    ) -> Tensor:
        """Returns the item tower's vectors [B, D]; with a tape and a dropout generator as training needs them."""
        vectors: Tensor = self.item_tower(self.tables.lookup(self._item_groups, inputs, tape), dropout)
        return vectors
