"""The two towers over shared embedding tables. Training and serving both use this object.

    user vector = user tower(user features, context features, pooled history)
    item vector = item tower(item features)
    score = user vector . item vector

Letters: B rows, K interests, W columns that a tower's layers read, D width of the vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from dssm_assets.core.models.embedding import EmbeddingTables, Lookup, SideLookup, append_frozen
from dssm_assets.core.models.event_layers import AttentionPooling, SequenceEncoder
from dssm_assets.core.models.tower import Tower, align_skips
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec


class TwoTower(nn.Module):
    """User tower (user features, context features, pooled history) and item tower (item features)."""

    def __init__(self, spec: TowerSpec, generator: torch.Generator, tables: EmbeddingTables | None = None) -> None:
        """Draws the initial weights.

        Args:
            tables: embedding tables already drawn from this generator. None: they are drawn here.
        """
        super().__init__()
        self.spec = spec
        self.tables = EmbeddingTables(spec, generator) if tables is None else tables
        learned = (*spec.attention_views, *spec.sequence_views)
        attended = [feature for view in learned for feature in view.features]
        user_singles, user_bags = _split_by_values(spec.features_of(TowerSide.USER, TowerSide.CONTEXT))
        bags = [*user_bags, *spec.pooled_features]
        self._num_bags = len(bags)
        pooled_bags = range(len(user_bags), len(bags))
        self.user_lookup = SideLookup(spec, self.tables, user_singles, bags, shared=((), pooled_bags), attended=attended)
        item_singles, item_bags = _split_by_values(spec.features_of(TowerSide.ITEM))
        history_embeddings = {feature.embedding_name for feature in spec.sequences}
        shared_singles, shared_bags = (
            [k for k, feature in enumerate(features) if feature.embedding_name in history_embeddings]
            for features in (item_singles, item_bags)
        )
        self.item_lookup = SideLookup(spec, self.tables, item_singles, item_bags, shared=(shared_singles, shared_bags))
        has_empty_flag = bool(spec.sequences)
        self.user_tower = Tower(self.user_lookup.width + has_empty_flag, spec, generator, self.user_lookup.shared_positions)
        self.item_tower = Tower(self.item_lookup.width, spec, generator, self.item_lookup.shared_positions)
        align_skips(
            self.user_tower.skip, self.user_lookup.shared_coordinates, self.item_tower.skip, self.item_lookup.shared_coordinates
        )
        self.attention = nn.ModuleList(AttentionPooling(v.width, spec.num_interests, generator) for v in spec.attention_views)
        self.encoders = nn.ModuleList(SequenceEncoder(v.width, v.pooling, generator) for v in spec.sequence_views)
        self.similarity = SimilarityScale(spec)

    def user_vectors(
        self,
        inputs: TowerInput,
        tape: list[Lookup] | None = None,
        dropout: torch.Generator | None = None,
        *,
        with_frozen: bool = True,
    ) -> Tensor:
        """Returns the user tower's vectors [B, D], or [B, K, D] with several interests.

        Args:
            tape: records look-ups for the tables' optimiser, None outside of training.
            dropout: source of the dropout's randomness, None outside of training.
            with_frozen: whether to append the frozen embedding. Without it, the vectors are narrower by its width.
        """
        found, frozen = self.user_lookup.lookup(self.tables, inputs, tape, with_frozen=with_frozen)
        count, interests = len(inputs), self.spec.num_interests
        if interests > 1:
            found = found.repeat_interleave(interests, dim=0)  # [B * K, W]
        parts = [found, *(mean.flatten(0, 1) for mean in self._attention_means(inputs, tape))]
        parts += [state.repeat_interleave(interests, dim=0) for state in self._encode_sequences(inputs, tape, dropout)]
        if inputs.is_empty_history is not None:
            # The flag's weights are a learned vector for "no history"; the mean of no events would only give zeros.
            is_empty = torch.from_numpy(inputs.is_empty_history).to(found.device)
            parts.append(is_empty.repeat_interleave(interests)[:, None])
        vectors = append_frozen(self.user_tower(torch.cat(parts, dim=1) if len(parts) > 1 else found, dropout), frozen)
        return vectors.view(count, interests, vectors.shape[1]) if interests > 1 else vectors

    def item_vectors(
        self,
        inputs: TowerInput,
        tape: list[Lookup] | None = None,
        dropout: torch.Generator | None = None,
        *,
        with_frozen: bool = True,
    ) -> Tensor:
        """Returns the item tower's vectors [B, D]. For the arguments see `user_vectors`."""
        found, frozen = self.item_lookup.lookup(self.tables, inputs, tape, with_frozen=with_frozen)
        return append_frozen(self.item_tower(found, dropout), frozen)

    def _attention_means(self, inputs: TowerInput, tape: list[Lookup] | None) -> list[Tensor]:
        means, begin = [], self._num_bags
        for view, pooling in zip(self.spec.attention_views, self.attention, strict=True):
            bags = inputs.bags[begin : begin + len(view.features)]
            begin += len(view.features)
            vectors = self.tables.lookup_each(view.features, [bag.values for bag in bags], tape)
            means.append(pooling(vectors, bags[0].offsets))
        return means

    def _encode_sequences(
        self, inputs: TowerInput, tape: list[Lookup] | None, dropout: torch.Generator | None
    ) -> Iterator[Tensor]:
        """Yields the state of each row's last event [B, width of the events], for each pooling of kind sequence."""
        for view, encoder, events in zip(self.spec.sequence_views, self.encoders, inputs.sequences, strict=True):
            yield encoder(self.tables.lookup_each(view.features, events.values, tape), events, dropout)


class SimilarityScale(nn.Module):
    """The scale of the similarity, learned or fixed: 1 / temperature, and w and b in |w| * similarity + b."""

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        self._fixed = 1.0 / spec.temperature
        # The logarithm is learned, so that a step changes the scale by a factor and the scale stays positive.
        self.log_scale = nn.Parameter(torch.tensor(math.log(self._fixed))) if spec.learn_temperature else None
        self.weight = nn.Parameter(torch.tensor(1.0)) if spec.learn_scale else None
        self.bias = nn.Parameter(torch.tensor(0.0)) if spec.learn_scale else None

    def scale(self) -> Tensor | float:
        """Returns 1 / temperature: a number, or a scalar tensor if it is learned."""
        return self._fixed if self.log_scale is None else self.log_scale.exp()

    def affine(self) -> tuple[Tensor, Tensor] | None:
        """Returns |w| and b, None if they are not learned."""
        return None if self.weight is None or self.bias is None else (self.weight.abs(), self.bias)


def nearest_interests(interests: Tensor, items: Tensor) -> Tensor:
    """Returns each row's interest [B, D], out of [B, K, D], with the largest product with the row's item [B, D].

    This is the label-aware attention of MIND (Li et al. 2019, section 3.4) with an infinite power, the best in section 4.3. A
    search scores an item by the user's best vector alone, so training must use this vector too. A finite power would mix the
    interests into a vector that no search uses, and cosines below 1 vanish in high powers. Ties go to the first interest. No
    gradient flows through the choice.
    """
    with torch.no_grad():
        best = (interests * items[:, None]).sum(2).argmax(1)
    return interests[torch.arange(len(interests), device=interests.device), best]


def _split_by_values(features: tuple[TowerFeature, ...]) -> tuple[list[TowerFeature], list[TowerFeature]]:
    return [f for f in features if not f.is_multi], [f for f in features if f.is_multi]
