"""The two towers over shared embedding tables: the one object that training and serving have in common.

Belongs here: `TwoTower`. Does not belong here: losses, samplers, optimisers, the search index.

Letters: B rows, K interests, D output width.
"""

from __future__ import annotations

import math
from collections.abc import Container, Sequence

import torch
from torch import Tensor, nn

from dssm_assets.core.models.attention_pooling import AttentionPooling
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup, WidthGroup
from dssm_assets.core.models.interests import chosen_interests
from dssm_assets.core.models.skip_start import FrozenColumns, align_skips, beside, coordinates, read_coordinates
from dssm_assets.core.models.tower import Tower
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import Side, TowerFeature, TowerSpec


class SideReading(nn.Module):
    """The look-ups of one tower.

    Attributes:
        columns: which columns of a look-up the layers read, and which are held.
        width: of what the layers read, means of attention poolings included.
        shared_positions: where in it the taste is: the pooled history, or what shares its embeddings.
        taste: what each of those places is a part of.
    """

    def __init__(
        self,
        spec: TowerSpec,
        tables: EmbeddingTables,
        singles: Sequence[TowerFeature],
        bags: Sequence[TowerFeature],
        *,
        taste: tuple[Container[int], Container[int]],
        attended: Sequence[TowerFeature] = (),
    ) -> None:
        """Notes how the tables are read.

        Args:
            spec: whose embedding may be held.
            tables: of both towers.
            singles: single-valued features, by column of a `TowerInput`.
            bags: by bag of it.
            taste: which of the singles and which of the bags are taste.
            attended: sub-features under attention poolings, whose means stand behind the look-up and are taste.
        """
        super().__init__()
        self._groups = tables.groups(singles, bags)
        self._learned_groups = tables.groups(singles, bags, without=spec.frozen_embedding)
        read = [*read_coordinates(self._groups, singles, bags), *coordinates(attended)]
        self.columns = FrozenColumns(read, spec.frozen_embedding, spec.frozen_dim)
        self.width = len(self.columns.read)
        looked_up = sum(group.width for group in self._groups)
        of_taste = [*_places(self._groups, *taste), *range(looked_up, len(read))]
        self.shared_positions = self.columns.places(of_taste)
        self.taste = [read[k] for k in of_taste if read[k][0] != spec.frozen_embedding]

    def lookup(
        self, tables: EmbeddingTables, inputs: TowerInput, tape: list[Lookup] | None, *, with_frozen: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Returns what the layers read [B, W], but for attention's means, and what is held [B, H], if it is asked for."""
        if with_frozen:
            return self.columns.split(tables.lookup(self._groups, inputs, tape))
        return tables.lookup(self._learned_groups, inputs, tape), None


def _places(groups: Sequence[WidthGroup], singles: Container[int], bags: Container[int]) -> list[int]:
    """Returns the columns of these features in what a look-up by these groups returns."""
    places, begin = [], 0
    for group in groups:
        places += [begin + place for place in group.places(singles, bags)]
        begin += group.width
    return places


class SimilarityScale(nn.Module):
    """1 / temperature, and |w| and b of |w| * similarity + b; only what is learned is a parameter."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self._fixed = 1.0 / spec.temperature
        # Its logarithm moves by the same step whatever the temperature is, and cannot turn its sign.
        self.log_scale = nn.Parameter(torch.tensor(math.log(self._fixed))) if spec.learn_temperature else None
        self.weight = nn.Parameter(torch.tensor(1.0)) if spec.learn_scale else None
        self.bias = nn.Parameter(torch.tensor(0.0)) if spec.learn_scale else None

    def scale(self) -> Tensor | float:
        """Returns 1 / temperature: a number, or a tensor without dimensions where it is learned."""
        return self._fixed if self.log_scale is None else self.log_scale.exp()

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Returns |w| and b; None where they are not learned."""
        return None if self.weight is None or self.bias is None else (self.weight.abs(), self.bias)


class TwoTower(nn.Module):
    """User tower (user features, context features, pooled history) and item tower (item features)."""

    def __init__(self, spec: TowerSpec, generator: torch.Generator, tables: EmbeddingTables | None = None) -> None:
        """Draws the weights; tables that are given were drawn from the generator before."""
        super().__init__()
        self.spec = spec
        self.tables = EmbeddingTables(spec, generator) if tables is None else tables
        user, item = spec.of(Side.USER, Side.CONTEXT), spec.of(Side.ITEM)
        multis, singles = [f for f in item if f.is_multi], [f for f in item if not f.is_multi]
        own_bags, own_singles = [f for f in user if f.is_multi], [f for f in user if not f.is_multi]
        bags = [*own_bags, *spec.pooled_features]
        self._bag_count = len(bags)
        attended = [feature for view in spec.attention_views for feature in view.features]
        past = range(len(own_bags), len(bags))
        self.user_reading = SideReading(spec, self.tables, own_singles, bags, taste=((), past), attended=attended)
        shared = {feature.embedding_name for feature in spec.sequences}
        alike = [[k for k, f in enumerate(part) if f.embedding_name in shared] for part in (singles, multis)]
        self.item_reading = SideReading(spec, self.tables, singles, multis, taste=(alike[0], alike[1]))
        user_width = self.user_reading.width + bool(spec.sequences)
        self.user_tower = Tower(user_width, spec, generator, self.user_reading.shared_positions)
        self.item_tower = Tower(self.item_reading.width, spec, generator, self.item_reading.shared_positions)
        align_skips(self.user_tower.skip, self.user_reading.taste, self.item_tower.skip, self.item_reading.taste)
        widths = [sum(feature.embedding_dim for feature in view.features) for view in spec.attention_views]
        self.attention = nn.ModuleList(AttentionPooling(width, spec.num_interests, generator) for width in widths)
        self.similarity = SimilarityScale(spec)

    def user_vectors(
        self,
        inputs: TowerInput,
        tape: list[Lookup] | None = None,
        dropout: torch.Generator | None = None,
        *,
        with_frozen: bool = True,
    ) -> Tensor:
        """Returns the user tower's vectors [B, D], of several interests [B, K, D].

        Args:
            inputs: the rows.
            tape: receives the look-ups that the optimiser of the tables needs; None when nothing is to be learned.
            dropout: source of the dropout's randomness; None outside of training.
            with_frozen: False leaves out the last places, those of a held embedding.
        """
        found, held = self.user_reading.lookup(self.tables, inputs, tape, with_frozen=with_frozen)
        count, interests = len(inputs), self.spec.num_interests
        if interests > 1:
            found = found.repeat_interleave(interests, dim=0)  # [B * K, W]
        parts = [found, *(pooled.flatten(0, 1) for pooled in self._attended(inputs, tape))]
        if inputs.is_empty_history is not None:
            # The flag's weights are a learned vector for "no history", which a mean of zero vectors cannot express.
            is_empty = torch.from_numpy(inputs.is_empty_history).to(found.device)
            parts.append(is_empty.repeat_interleave(interests)[:, None])
        vectors = beside(self.user_tower(torch.cat(parts, dim=1) if len(parts) > 1 else found, dropout), held)
        return vectors.view(count, interests, vectors.shape[1]) if interests > 1 else vectors

    def user_vectors_for(
        self,
        inputs: TowerInput,
        items: Tensor,
        tape: list[Lookup] | None = None,
        dropout: torch.Generator | None = None,
        *,
        with_frozen: bool = True,
    ) -> Tensor:
        """Returns the vector [B, D] with which each user meets the item of its row [B, D]; else as `user_vectors`."""
        vectors = self.user_vectors(inputs, tape, dropout, with_frozen=with_frozen)
        return chosen_interests(vectors, items) if self.spec.num_interests > 1 else vectors

    def item_vectors(
        self,
        inputs: TowerInput,
        tape: list[Lookup] | None = None,
        dropout: torch.Generator | None = None,
        *,
        with_frozen: bool = True,
    ) -> Tensor:
        """Returns the item tower's vectors [B, D]; with a tape and a dropout generator as training needs them."""
        found, held = self.item_reading.lookup(self.tables, inputs, tape, with_frozen=with_frozen)
        return beside(self.item_tower(found, dropout), held)

    def similarity_scale(self) -> Tensor | float:
        """Returns 1 / temperature, by which the loss multiplies similarities; a tensor where it is learned."""
        return self.similarity.scale()

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Returns |w| and b of the point-wise losses' |w| * similarity + b; None where they are not learned."""
        return self.similarity.affine()

    def _attended(self, inputs: TowerInput, tape: list[Lookup] | None) -> list[Tensor]:
        """Returns the means [B, K, W] of each attention pooling."""
        means, begin = [], self._bag_count
        for view, pooling in zip(self.spec.attention_views, self.attention, strict=True):
            bags = inputs.bags[begin : begin + len(view.features)]
            begin += len(view.features)
            means.append(pooling(self.tables.lookup_each(view.features, bags, tape), bags[0].offsets))
        return means
