"""Embedding tables. All embeddings of one width share a fused table; each has a range of its rows.

Row 0 of every fused table stands for "missing" in all features. It is zero and never updated. Index i > 0 of a feature is
row base + i. The tables are buffers, not parameters: the result of a look-up is a leaf of the graph, and its gradient goes to
the rows read. So there is never a gradient of a table's full size.

Letters: B rows, F single-valued features, d width of a table, n values, G bags of a look-up.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from dssm_assets.core.arrays.ragged import FloatArray, IntArray, offsets_of
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSpec

INITIAL_STD = 0.05
Coordinate: TypeAlias = tuple[str, int]
"""An embedding_name, and a position in the vectors of this embedding."""


@dataclass(frozen=True)
class Lookup:
    """A pooled look-up: the rows of each bag, and the pooled vectors. The backward pass sets the gradient of `pooled`."""

    dim: int
    rows: IntArray  # [n]
    offsets: IntArray | None  # [G + 1]; None: each row is a bag
    weights: FloatArray | None  # [n]; None: all are 1
    pooled: Tensor  # [G, d], a leaf


@dataclass(frozen=True)
class WidthGroup:
    """The features of one tower in the same fused table: their positions in a `TowerInput`, and their base rows."""

    dim: int
    single_columns: IntArray
    single_bases: IntArray
    bag_columns: tuple[int, ...]
    bag_bases: tuple[int, ...]


class EmbeddingTables(nn.Module):
    """The fused tables of all features of both towers.

    A subclass that stores the rows elsewhere overrides the methods from `locate_rows` to `blocks`.

    Attributes:
        sizes: width -> number of rows of its fused table.
    """

    def __init__(self, spec: TowerSpec, generator: torch.Generator, given: Mapping[int, Tensor] | None = None) -> None:
        """Draws the tables at random, unless they are given (width -> table)."""
        super().__init__()
        self.bases, self.sizes = _layout(spec)
        self.dims = tuple(sorted(self.sizes))
        for dim in self.dims:
            self.register_buffer(f"table_{dim}", self._draw_table(dim, generator) if given is None else given[dim])

    def table(self, dim: int) -> Tensor:
        """Returns the fused table of a width [rows, d]."""
        return self.get_buffer(f"table_{dim}")

    def locate_rows(self, dim: int, rows: IntArray) -> tuple[Tensor, IntArray]:
        """Returns a table that contains these rows of the fused table, and the position of each row in it [n]."""
        return self.table(dim), rows

    def write_rows(self, dim: int, rows: IntArray, source: Tensor, source_rows: IntArray) -> None:
        """Overwrites these rows with rows `source_rows` of another table."""
        self.table(dim)[torch.from_numpy(rows)] = source[torch.from_numpy(source_rows)]

    def blocks(self, dim: int) -> Iterator[Tensor]:
        """Yields the fused table of a width in blocks of rows, first to last."""
        yield self.table(dim)

    def groups(
        self, features: Sequence[TowerFeature], bag_features: Sequence[TowerFeature], without: str | None = None
    ) -> tuple[WidthGroup, ...]:
        """Groups a tower's features by the width of their table.

        Args:
            features: the single-valued features, in the order of the columns of `TowerInput.singles`.
            bag_features: the multi-valued features, in the order of `TowerInput.bags`.
            without: an embedding_name to leave out.
        """
        read = [[(k, f) for k, f in enumerate(of) if f.embedding_name != without] for of in (features, bag_features)]
        groups = []
        for dim in self.dims:
            singles, bags = ([(k, self.bases[f.embedding_name]) for k, f in side if f.embedding_dim == dim] for side in read)
            if singles or bags:
                columns, bases = np.array(singles, np.int64).reshape(-1, 2).T
                groups.append(WidthGroup(dim, columns, bases, tuple(k for k, _ in bags), tuple(base for _, base in bags)))
        return tuple(groups)

    def lookup(self, groups: Sequence[WidthGroup], inputs: TowerInput, tape: list[Lookup] | None) -> Tensor:
        """Returns the pooled vectors of all features, concatenated [B, sum of widths].

        Args:
            groups: the result of `groups` for the input's tower.
            tape: records the look-up for the optimiser, None outside of training.
        """
        parts: list[Tensor] = []
        for group in groups:
            found = self._pool(group, inputs)
            if tape is not None:
                found.pooled.requires_grad_(True)
                tape.append(found)
            count, singles, bags = len(inputs), len(group.single_columns), len(group.bag_columns)
            pieces = torch.split(found.pooled, [count * singles] + [count] * bags) if bags else [found.pooled]
            parts += [pieces[0].view(count, singles * group.dim), *pieces[1:]]
        # If a tower's only input is a learned pooling of the history, nothing is looked up here.
        return torch.cat(parts, dim=1) if parts else self.table(self.dims[0]).new_zeros(len(inputs), 0)

    def lookup_each(self, features: Sequence[TowerFeature], values: Sequence[IntArray], tape: list[Lookup] | None) -> Tensor:
        """Returns the vector of each of n events without pooling, features concatenated [n, sum of widths].

        Args:
            values: per feature the embedding index of each event [n]; 0 is missing and has the zero vector.
            tape: see `lookup`.
        """
        parts: list[Tensor] = []
        for feature, indices in zip(features, values, strict=True):
            rows = np.where(indices > 0, indices + self.bases[feature.embedding_name], 0)
            table, positions = self.locate_rows(feature.embedding_dim, rows)
            vectors = gather_rows(table, positions)
            if tape is not None:
                vectors.requires_grad_(True)
                tape.append(Lookup(feature.embedding_dim, rows, None, None, vectors))
            parts.append(vectors)
        return torch.cat(parts, dim=1)

    def _pool(self, group: WidthGroup, inputs: TowerInput) -> Lookup:
        index = inputs.singles.take(group.single_columns, axis=1)  # [B, F]
        single_rows = ((index + group.single_bases) * (index > 0)).reshape(-1)
        if not group.bag_columns:
            table, positions = self.locate_rows(group.dim, single_rows)
            return Lookup(group.dim, single_rows, None, None, gather_rows(table, positions))
        rows = [single_rows]
        lengths = [np.ones(len(single_rows), np.int64)]
        weights = [np.ones(len(single_rows), np.float32)]
        for column, base in zip(group.bag_columns, group.bag_bases, strict=True):
            bag = inputs.bags[column]
            rows.append(bag.values + base)
            lengths.append(np.diff(bag.offsets))
            weights.append(bag.weights)
        all_rows, offsets = np.concatenate(rows), offsets_of(np.concatenate(lengths))
        weight = np.concatenate(weights)
        table, positions = self.locate_rows(group.dim, all_rows)
        return Lookup(group.dim, all_rows, offsets, weight, weighted_sums(table, positions, offsets, weight))

    def _draw_table(self, dim: int, generator: torch.Generator) -> Tensor:
        table = torch.empty(self.sizes[dim], dim).normal_(0.0, INITIAL_STD, generator=generator)
        table[0] = 0.0
        return table


class SideLookup(nn.Module):
    """Looks up one tower's features, and splits the vectors into the input of the tower's layers and the frozen columns.

    If a history is pooled in several ways, only the first pooling keeps its columns of the frozen embedding.

    Attributes:
        trained: the columns of the look-up that the layers read.
        frozen: the frozen columns [F].
        has_frozen: whether there is a frozen embedding.
        width: W, including the output of learned poolings.
        shared_positions: the columns, among the W, with an embedding that both towers read: the pooled history in the user
            tower, the features with the same embedding in the item tower.
        shared_coordinates: for each of these columns, its coordinate in the embedding.
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
        """Finds the trained, the frozen and the shared-embedding columns.

        Args:
            singles: single-valued features, by column of a `TowerInput`.
            bags: multi-valued features and sub-features of the history, by bag of a `TowerInput`.
            shared: positions of the features with a shared embedding, in `singles` and in `bags`.
            attended: sub-features read by learned poolings; none is frozen. Their columns are last and count as shared.
        """
        super().__init__()
        self._groups = tables.groups(singles, bags)
        self._trained_groups = tables.groups(singles, bags, without=spec.frozen_embedding)
        self.has_frozen = spec.frozen_embedding is not None
        columns: list[tuple[Coordinate, bool]] = []  # the look-up's columns, and whether each is shared
        for group in self._groups:
            read = [(singles[k], k in shared[0]) for k in group.single_columns.tolist()]
            read += [(bags[k], k in shared[1]) for k in group.bag_columns]
            columns += [(coordinate, is_shared) for feature, is_shared in read for coordinate in _coordinates(feature)]
        is_trained = [name != spec.frozen_embedding for (name, _), _ in columns]
        trained, frozen = ([k for k, flag in enumerate(is_trained) if flag is wanted] for wanted in (True, False))
        self.register_buffer("trained", torch.tensor(trained, dtype=torch.long), persistent=False)
        self.register_buffer("frozen", torch.tensor(frozen[: spec.frozen_dim], dtype=torch.long), persistent=False)
        layers = [columns[k] for k in trained] + [(c, True) for feature in attended for c in _coordinates(feature)]
        self.width = len(layers)
        self.shared_positions = [k for k, (_, is_shared) in enumerate(layers) if is_shared]
        self.shared_coordinates = [layers[k][0] for k in self.shared_positions]

    def lookup(
        self, tables: EmbeddingTables, inputs: TowerInput, tape: list[Lookup] | None, *, with_frozen: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns the input of the layers [B, W], without learned poolings, and the frozen vectors [B, F] (without gradient).

        The frozen vectors are None if there is no frozen embedding or the caller does not ask for it.
        """
        if not (with_frozen and self.has_frozen):
            return tables.lookup(self._trained_groups, inputs, tape), None
        found = tables.lookup(self._groups, inputs, tape)
        return found.index_select(1, self.trained), found.detach().index_select(1, self.frozen)


def append_frozen(vectors: Tensor, frozen: Tensor | None) -> Tensor:
    """Appends the frozen columns [B, F], if any, to vectors [B, D - F]."""
    return vectors if frozen is None else torch.cat([vectors, frozen], dim=1)


def _coordinates(feature: TowerFeature) -> list[Coordinate]:
    return [(feature.embedding_name, position) for position in range(feature.embedding_dim)]


def gather_rows(table: Tensor, rows: IntArray) -> Tensor:
    """Returns a copy of the given table rows [n, d]."""
    return table.detach().index_select(0, torch.from_numpy(rows).to(table.device))


def weighted_sums(table: Tensor, rows: IntArray, offsets: IntArray, weights: FloatArray | None) -> Tensor:
    """Returns the weighted sum of the given table rows per bag [G, d].

    One thread sums a bag, in the order of its rows, so the result does not depend on the number of threads.
    """
    if not len(rows):
        return table.new_zeros(len(offsets) - 1, table.shape[1])
    device = table.device
    return functional.embedding_bag(
        torch.from_numpy(rows).to(device),
        table.detach(),
        torch.from_numpy(offsets).to(device),
        mode="sum",
        per_sample_weights=None if weights is None else torch.from_numpy(weights).to(device),
        include_last_offset=True,
    )


def _layout(spec: TowerSpec) -> tuple[dict[str, int], dict[int, int]]:
    """Returns the base row of each embedding_name and the number of rows of each fused table."""
    bases: dict[str, int] = {}
    sizes: dict[int, int] = {}
    for feature in spec.features:
        if feature.embedding_name not in bases:
            bases[feature.embedding_name] = sizes.get(feature.embedding_dim, 1) - 1
            sizes[feature.embedding_dim] = sizes.get(feature.embedding_dim, 1) + feature.num_embeddings - 1
    return bases, sizes
