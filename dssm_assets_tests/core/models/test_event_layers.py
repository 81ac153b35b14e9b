"""Layers over events, attention and an encoder: by hand, against independent implementations, and what must hold for any histories."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.event_sequences import EventSequences
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.config.model import Model, Pooling
from dssm_assets.core.models.embedding import EmbeddingTables, Lookup
from dssm_assets.core.models.event_layers import NUM_GAPS, AttentionPooling, SequenceEncoder, _attention_blocks, gap_classes
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets.core.training.optimisers import row_gradients
from dssm_assets_tests.core.models.features import tower_feature


def _pooling(width: int, interests: int) -> AttentionPooling:
    return AttentionPooling(width, interests, torch.Generator().manual_seed(1))


def test_weights_are_a_softmax_over_each_rows_history() -> None:
    pooling = _pooling(2, 1)
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.eye(2))
        pooling.score.weight.copy_(torch.tensor([[2.0, 0.0]]))
    vectors = torch.tensor([[1.0, 0.0], [0.0, 3.0], [5.0, 7.0]])
    # Scores 2 tanh(1) and 0: the first weighs e / (e + 1) of its row with e = exp(2 tanh 1). One item is itself, none is 0.
    weight = math.exp(2 * math.tanh(1)) / (math.exp(2 * math.tanh(1)) + 1)
    found = pooling(vectors, np.array([0, 2, 2, 3])).squeeze(1).tolist()
    assert found == [pytest.approx([weight, 3 * (1 - weight)]), [0.0, 0.0], pytest.approx([5.0, 7.0])]


def test_each_interest_has_its_own_weights() -> None:
    pooling = _pooling(2, 2)
    with torch.no_grad():
        pooling.hidden.weight.copy_(torch.eye(2))
        pooling.score.weight.copy_(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]))
    found = pooling(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), np.array([0, 2]))
    assert found.shape == (1, 2, 2)
    assert found[0].tolist() == [pytest.approx([4.0, 0.0], abs=1e-6), pytest.approx([0.0, 4.0], abs=1e-6)]


def test_a_batch_equals_its_rows_one_by_one() -> None:
    pooling, rng = _pooling(3, 2), np.random.default_rng(0)
    lengths = np.array([4, 0, 1, 7, 0])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    vectors = torch.from_numpy(rng.normal(size=(12, 3)).astype(np.float32))
    whole = pooling(vectors, offsets)
    for row, (begin, end) in enumerate(itertools.pairwise(offsets)):
        alone = pooling(vectors[begin:end], np.array([0, end - begin]))
        torch.testing.assert_close(whole[row], alone[0])
    assert not whole[1].any()


def test_gradients_reach_the_rows_of_the_tables_and_equal_finite_differences() -> None:
    views = [tower_feature(f"h__{name}", TowerSide.SEQUENCE, name) for name in ("item", "brand")]
    features = [tower_feature("item"), *views]
    spec = tower_spec(features, Model(poolings=[{"kind": "attention"}]))
    tables = EmbeddingTables(spec, torch.Generator().manual_seed(0)).double()
    tables.table(2)[1:] *= 20.0
    pooling = _pooling(4, 2).double()
    # Row 0 reads item 2 twice, and a brand that is missing; row 2 reads it again.
    offsets = np.array([0, 3, 3, 5])
    ones = np.ones(5, np.float32)
    bags = [Bags(np.array(values), offsets, ones) for values in ([2, 3, 2, 4, 2], [1, 0, 4, 4, 3])]
    (view,) = spec.attention_views
    factors = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 2, 4)))

    def loss(tape: list[Lookup] | None = None) -> torch.Tensor:
        return (pooling(tables.lookup_each(view.features, [bag.values for bag in bags], tape), offsets) * factors).sum()

    tape: list[Lookup] = []
    loss(tape).backward()
    rows, gradients = row_gradients(tape)
    assert 0 not in rows.tolist()
    found = torch.zeros_like(tables.table(2)).index_copy(0, rows, gradients)
    table, step = tables.table(2), 1e-6
    assert len(rows) == 6
    for row in range(1, len(table)):
        for column in range(2):
            kept = table[row, column].item()
            sides = []
            for moved in (kept + step, kept - step):
                table[row, column] = moved
                sides.append(loss().item())
            table[row, column] = kept
            assert found[row, column].item() == pytest.approx((sides[0] - sides[1]) / (2 * step), abs=1e-6)
    assert float(found.abs().max()) > 0.01


WIDTH, HEADS, LENGTH = 8, 2, 12
LENGTHS = [5, 0, 12, 1, 9]


def _encoder(blocks: int = 2, dropout: float = 0.0) -> SequenceEncoder:
    settings = Pooling(kind="sequence", length=LENGTH, num_blocks=blocks, num_heads=HEADS, dropout=dropout)
    encoder, generator = SequenceEncoder(WIDTH, settings, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weights in encoder.parameters():
            weights.add_(torch.empty_like(weights).uniform_(-0.4, 0.4, generator=generator))
    return encoder


def _sequences(lengths: list[int], seed: int = 0) -> EventSequences:
    """Returns sequences whose events are 0 seconds to 12 days apart; one row per event."""
    rng, offsets = np.random.default_rng(seed), offsets_of(lengths)
    count = int(offsets[-1])
    steps = np.where(rng.random(count) < 0.3, 0, np.exp(rng.uniform(0, 14, count)).astype(np.int64))
    return EventSequences((np.ones(count, np.int64),), np.cumsum(steps), offsets, np.arange(count))


def _vectors(count: int, seed: int = 3) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_blocks_equal_those_of_torch() -> None:
    """torch's layer has no gate: the gate's other factor is 1, and its own is what torch's activation is applied to."""
    encoder = _encoder()
    layers: list[Any] = []
    with torch.no_grad():
        for name, weights in encoder.named_parameters():
            if name.endswith(("distance_bias", "gap_bias")):
                weights.zero_()
        for block in encoder.blocks:
            own: Any = block
            own.value.weight.zero_()
            own.value.bias.fill_(1.0)
            layer = nn.TransformerEncoderLayer(
                WIDTH, HEADS, own.gate.out_features, 0.0, nn.functional.silu, batch_first=True, norm_first=True
            )
            layer.self_attn.in_proj_weight.copy_(own.attention.query_key_value.weight)
            layer.self_attn.in_proj_bias.copy_(own.attention.query_key_value.bias)
            for theirs, ours in (
                (layer.self_attn.out_proj, own.attention.out),
                (layer.norm1, own.attention_norm),
                (layer.norm2, own.forward_norm),
                (layer.linear1, own.gate),
                (layer.linear2, own.out),
            ):
                theirs.load_state_dict(ours.state_dict())
            layers.append(layer)
    sequences = _sequences(LENGTHS)
    vectors = _vectors(sum(LENGTHS))
    found = encoder.encode(vectors, sequences)
    for begin, end in itertools.pairwise(sequences.offsets):
        states = vectors[None, begin:end] * encoder.scale
        later = torch.ones(end - begin, end - begin, dtype=torch.bool).triu(1)
        for layer in layers if end > begin else ():
            states = layer(states, src_mask=later)
        torch.testing.assert_close(found[begin:end], encoder.norm(states)[0], atol=1e-5, rtol=1e-5)


def test_biases_by_distance_and_gap_by_hand() -> None:
    """Without queries, an event's weights are the softmax of the biases alone."""
    encoder = _encoder(blocks=1)
    attention: Any = encoder.blocks[0].attention  # type: ignore[union-attr]
    with torch.no_grad():
        attention.query_key_value.weight.zero_()
        attention.query_key_value.bias.zero_()
        attention.query_key_value.weight[2 * WIDTH :] = torch.eye(WIDTH)
        attention.out.weight.copy_(torch.eye(WIDTH))
        attention.out.bias.zero_()
    sequences = EventSequences((np.ones(3, np.int64),), np.array([100, 100, 107]), np.array([0, 3]), np.arange(3))
    states = _vectors(3)
    blocks = list(_attention_blocks(sequences, states.device, 2, LENGTH))
    found = attention(states, blocks, lambda values: values)
    assert gap_classes(torch.tensor([0, 7])).tolist() == [0, 6]
    for head, columns in enumerate((slice(0, 4), slice(4, 8))):
        distance, gap = attention.distance_bias[:, head], attention.gap_bias[:, head]
        # The last event is 2, 1 and 0 events and 7, 7 and 0 seconds from the three.
        scores = torch.stack([distance[2] + gap[6], distance[1] + gap[6], distance[0] + gap[0]])
        torch.testing.assert_close(found[2, columns], scores.softmax(0) @ states[:, columns])
        torch.testing.assert_close(found[0, columns], states[0, columns])


def test_gap_classes_are_two_per_doubling() -> None:
    seconds = np.array([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 22, 23, 2**20 - 2, 2**20 - 1, 2**29 - 2, 2**40, -9])
    octave = np.floor(np.log2(np.clip(seconds, 0, 2**29 - 2) + 1.0)).astype(int)
    upper = np.clip(seconds, 0, 2**29 - 2) + 1 >= 1.5 * 2.0**octave
    found = gap_classes(torch.from_numpy(seconds)).tolist()
    assert found == (2 * octave + upper).tolist()
    assert found[:8] == [0, 2, 3, 4, 4, 5, 5, 6]
    assert max(found) == NUM_GAPS - 1


def test_state_depends_on_no_later_event() -> None:
    encoder, sequences, vectors = _encoder(), _sequences(LENGTHS), _vectors(sum(LENGTHS))
    before = encoder.encode(vectors, sequences)
    later = vectors.clone()
    later[5 + 7, 2] += 3.0  # event 7 of the sequence of twelve
    moved = (encoder.encode(later, sequences) - before).abs().amax(1) > 1e-6
    assert moved.nonzero()[:, 0].tolist() == list(range(5 + 7, 5 + 12))


def test_one_pass_over_a_sequence_equals_a_pass_per_row() -> None:
    encoder, sequences, vectors = _encoder(), _sequences(LENGTHS), _vectors(sum(LENGTHS))
    whole = encoder(vectors, sequences)
    rows = sequences.select_rows(np.arange(len(sequences.last)))
    at = np.concatenate(
        [np.arange(b, e) for b, e in zip(np.repeat(sequences.offsets[:-1], LENGTHS), range(1, 28), strict=True)]
    )
    torch.testing.assert_close(encoder(vectors[at], rows), whole, atol=1e-5, rtol=1e-5)


def test_rows_without_events_have_the_zero_vector() -> None:
    sequences = EventSequences((np.ones(2, np.int64),), np.zeros(2, np.int64), np.array([0, 2]), np.array([-1, 1]))
    found = _encoder()(_vectors(2), sequences)
    assert not found[0].any()
    assert found[1].any()
    nothing = EventSequences((np.zeros(0, np.int64),), np.zeros(0, np.int64), np.zeros(3, np.int64), np.array([-1, -1]))
    assert _encoder()(_vectors(0), nothing).tolist() == np.zeros((2, WIDTH)).tolist()


def test_distances_beyond_the_length_share_the_last_bias() -> None:
    encoder = _encoder(blocks=1)
    longer = _sequences([LENGTH + 4])
    assert encoder.encode(_vectors(LENGTH + 4), longer).isfinite().all()


def test_bfloat16_products_are_close() -> None:
    encoder, sequences, vectors = _encoder(), _sequences(LENGTHS), _vectors(sum(LENGTHS))
    exact = encoder(vectors, sequences)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = encoder(vectors, sequences)
    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).detach().abs().max()) < 0.1
