"""The embedding look-ups of one tower, and what each column of them means.

Letters: B rows, W columns that the layers read, F frozen columns.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dssm_assets.core.models.embedding import EmbeddingTables, Lookup
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSpec

Coordinate: TypeAlias = tuple[str, int]
"""An embedding_name and a position in its vectors."""


class SideLookup(nn.Module):
    """Looks up one tower's features, and splits what it finds into what the layers read and what is frozen.

    If a history is pooled in several ways, the frozen columns are those of the first pooling. The other poolings' columns of
    the frozen embedding are left out.

    Attributes:
        trained: the columns of the look-up that the layers read.
        frozen: the frozen columns [F].
        has_frozen: whether there is a frozen embedding.
        width: W, what learned poolings add included.
        shared_positions: the positions among these W of the shared-embedding columns: the pooled history in the user tower,
            the features that share an embedding with it in the item tower.
        shared_coordinates: what each of the shared-embedding columns is.
    """

    trained: Tensor
    frozen: Tensor

    def __init__(
        self,
        spec: TowerSpec,
        tables: EmbeddingTables,
        singles: Sequence[TowerFeature],
        bags: Sequence[TowerFeature],
        *,
        shared: tuple[Container[int], Container[int]],
        attended: Sequence[TowerFeature] = (),
    ) -> None:
        """Works out the columns.

        Args:
            spec: names the frozen embedding, if there is one.
            tables: of both towers.
            singles: single-valued features, by column of a `TowerInput`.
            bags: multi-valued features and sub-features of the history, by bag of a `TowerInput`.
            shared: which of the singles and which of the bags have shared-embedding columns.
            attended: sub-features under learned poolings, none of them frozen; what these give follows the look-up's columns
                and is of shared embeddings too.
        """
        super().__init__()
        self._groups = tables.groups(singles, bags)
        self._trained_groups = tables.groups(singles, bags, without=spec.frozen_embedding)
        self.has_frozen = spec.frozen_embedding is not None
        columns: list[tuple[Coordinate, bool]] = []  # of the look-up, and whether each is shared
        for group in self._groups:
            read = [(singles[k], k in shared[0]) for k in group.single_columns.tolist()]
            read += [(bags[k], k in shared[1]) for k in group.bag_columns]
            columns += [(coordinate, is_shared) for feature, is_shared in read for coordinate in _coordinates(feature)]
        trained = [k for k, ((name, _), _) in enumerate(columns) if name != spec.frozen_embedding]
        frozen = [k for k in range(len(columns)) if k not in set(trained)][: spec.frozen_dim]
        self.register_buffer("trained", torch.tensor(trained, dtype=torch.long), persistent=False)
        self.register_buffer("frozen", torch.tensor(frozen, dtype=torch.long), persistent=False)
        learned = [coordinate for feature in attended for coordinate in _coordinates(feature)]
        self.width = len(trained) + len(learned)
        is_shared = [columns[k][1] for k in trained] + [True] * len(learned)
        coordinates = [columns[k][0] for k in trained] + learned
        self.shared_positions = [k for k in range(self.width) if is_shared[k]]
        self.shared_coordinates = [coordinates[k] for k in self.shared_positions]

    def lookup(
        self, tables: EmbeddingTables, inputs: TowerInput, tape: list[Lookup] | None, *, with_frozen: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns what the layers read [B, W], without learned poolings, and the frozen vectors [B, F], which get no gradient.

        There are none without a frozen embedding, or where they are not asked for.
        """
        if not (with_frozen and self.has_frozen):
            return tables.lookup(self._trained_groups, inputs, tape), None
        found = tables.lookup(self._groups, inputs, tape)
        return found.index_select(1, self.trained), found.detach().index_select(1, self.frozen)


def append_frozen(vectors: Tensor, frozen: Tensor | None) -> Tensor:
    """Returns the vectors [B, D - F] with the frozen columns [B, F] appended, if there are any."""
    return vectors if frozen is None else torch.cat([vectors, frozen], dim=1)


def _coordinates(feature: TowerFeature) -> list[Coordinate]:
    return [(feature.embedding_name, position) for position in range(feature.embedding_dim)]
