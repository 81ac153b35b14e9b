"""The embedding look-ups of one tower, and what each column of them means.

Letters: B rows, W columns that the layers read, F frozen columns.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dssm_assets.core.models.embedding import EmbeddingTables, Lookup, WidthGroup
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSpec

Coordinate: TypeAlias = tuple[str, int]
"""An embedding_name and a position in its vectors."""


class SideLookup(nn.Module):
    """Looks up one tower's features.

    Attributes:
        columns: which columns of the look-up the layers read, and which are frozen.
        width: W, what learned poolings add included.
        shared_positions: the positions among these W of the shared-embedding columns: the pooled history in the user tower,
            the features that share an embedding with it in the item tower.
        shared_coordinates: what each of the shared-embedding columns is.
    """

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
        coordinates, learned = _group_coordinates(self._groups, singles, bags), _feature_coordinates(attended)
        self.columns = FrozenColumns(coordinates, spec.frozen_embedding, spec.frozen_dim)
        looked_up = len(self.columns.trained)
        self.width = looked_up + len(learned)
        shared_columns = _columns_in_lookup(self._groups, *shared)
        self.shared_positions = [*self.columns.positions_in_layers(shared_columns), *range(looked_up, self.width)]
        trained = [coordinates[k] for k in shared_columns if coordinates[k][0] != spec.frozen_embedding]
        self.shared_coordinates = [*trained, *learned]

    def lookup(
        self, tables: EmbeddingTables, inputs: TowerInput, tape: list[Lookup] | None, *, with_frozen: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns what the layers read, without learned poolings, and the frozen vectors [B, F] if they are wanted."""
        if with_frozen:
            return self.columns.split(tables.lookup(self._groups, inputs, tape))
        return tables.lookup(self._trained_groups, inputs, tape), None


class FrozenColumns(nn.Module):
    """Splits the columns of one tower's look-up into those that the layers read and those that are frozen.

    If a history is pooled in several ways, the frozen columns are those of the first pooling. The other poolings' columns of
    the frozen embedding are left out.
    """

    trained: Tensor
    frozen: Tensor

    def __init__(self, coordinates: Sequence[Coordinate], embedding: str | None, width: int) -> None:
        """Sorts the columns.

        Args:
            coordinates: what each column of the look-up is.
            embedding: the frozen embedding; None if there is none, and the layers read every column.
            width: F.
        """
        super().__init__()
        frozen = [column for column, (name, _) in enumerate(coordinates) if name == embedding]
        self.register_buffer("trained", _index(sorted(set(range(len(coordinates))) - set(frozen))), persistent=False)
        self.register_buffer("frozen", _index(frozen[:width]), persistent=False)
        self.is_none = embedding is None

    def positions_in_layers(self, columns: Sequence[int]) -> list[int]:
        """Returns where the layers find these columns of the look-up; frozen columns are left out."""
        position = {column: place for place, column in enumerate(self.trained.tolist())}
        return [position[column] for column in columns if column in position]

    def split(self, found: Tensor) -> tuple[Tensor, Tensor | None]:
        """Returns what the layers read of a look-up [B, W], and its frozen columns [B, F], which get no gradient."""
        if self.is_none:
            return found, None
        return found.index_select(1, self.trained), found.detach().index_select(1, self.frozen)


def append_frozen(vectors: Tensor, frozen: Tensor | None) -> Tensor:
    """Returns the vectors [B, D - F] with the frozen columns [B, F] appended, if there are any."""
    return vectors if frozen is None else torch.cat([vectors, frozen], dim=1)


def _feature_coordinates(features: Sequence[TowerFeature]) -> list[Coordinate]:
    return [(feature.embedding_name, position) for feature in features for position in range(feature.embedding_dim)]


def _group_coordinates(
    groups: Sequence[WidthGroup], singles: Sequence[TowerFeature], bags: Sequence[TowerFeature]
) -> list[Coordinate]:
    """Returns what the columns of a look-up by these groups are."""
    read = [[singles[k] for k in group.single_columns.tolist()] + [bags[k] for k in group.bag_columns] for group in groups]
    return [coordinate for features in read for coordinate in _feature_coordinates(features)]


def _columns_in_lookup(groups: Sequence[WidthGroup], singles: Container[int], bags: Container[int]) -> list[int]:
    """Returns the columns of these features in a look-up by these groups."""
    columns, begin = [], 0
    for group in groups:
        columns += [begin + column for column in group.columns_of(singles, bags)]
        begin += group.width
    return columns


def _index(positions: Sequence[int]) -> Tensor:
    return torch.tensor(list(positions), dtype=torch.long)
