"""The ONNX graph of a sequence encoder: what `core/models/sequence_encoder.py` computes, for padded sequences.

Events are at the front of their row and padding behind them, so causal attention never reads padding.

Letters: B rows, L width of the padded events, W width of an event, H heads.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from onnx import TensorProto
from torch import Tensor

from dssm_assets.core.models.attention_pooling import MASKED_SCORE
from dssm_assets.core.models.sequence_encoder import MAX_SECONDS, SequenceEncoder
from dssm_assets.core.serving.onnx_graph import OnnxGraph
from dssm_assets.core.serving.tower_layout import indices_input, seconds_input, weights_input

_FLOAT, _DOUBLE, _INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
_ABOVE_ROUNDING: Final = 1e-9
"""Added to a logarithm before it is rounded down: more than its error, less than the distance to the next whole number."""


def add_encoder(graph: OnnxGraph, encoder: SequenceEncoder, events: str, feature: str, name: str) -> str:
    """Returns the state of each row's last event [B, W], zeros for a row without events.

    Args:
        events: the node with the events' vectors [B, L, W].
        feature: the first sub-feature, which names the inputs of weights and seconds.
        name: prefix of the encoder's constants.
    """
    part = _EncoderGraph(graph, name)
    distances = part.add_distances(indices_input(feature))
    gaps = part.add_gap_classes(seconds_input(feature))
    states = graph.add_node("Mul", [events, part.add_number("scale", encoder.scale)])
    for number, block in enumerate(encoder.blocks):
        states = part.add_block(block, states, distances, gaps, f"block_{number}")
    states = part.add_norm(encoder.norm, states, "norm")
    return part.add_last(states, weights_input(feature))


class _EncoderGraph:
    """The nodes of one encoder; its constants have names of their own."""

    def __init__(self, graph: OnnxGraph, name: str) -> None:
        self._graph, self._name = graph, name

    def add_number(self, name: str, number: float, kind: Any = np.float32) -> str:
        return self._graph.add_constant(f"{self._name}/{name}", np.array(number, kind))

    def add_distances(self, indices: str) -> str:
        """Returns by how many events the row's event is later than the column's [L, L]."""
        graph = self._graph
        shape = graph.add_node("Shape", [indices], start=1, end=2)
        zero, one = self.add_number("zero_events", 0, np.int64), self.add_number("one_event", 1, np.int64)
        places = graph.add_node("Range", [zero, graph.add_node("Squeeze", [shape]), one])
        rows, columns = (graph.add_node("Unsqueeze", [places, graph.add_axes(axis)]) for axis in (1, 0))
        return graph.add_node("Sub", [rows, columns])

    def add_gap_classes(self, seconds: str) -> str:
        """Returns the class of the time between two events [B, L, L]; see `gap_classes`."""
        graph, double = self._graph, np.float64
        columns, rows = (graph.add_node("Unsqueeze", [seconds, graph.add_axes(axis)]) for axis in (1, 2))
        gaps = graph.add_node("Cast", [graph.add_node("Sub", [columns, rows])], to=_DOUBLE)
        bounds = [self.add_number("no_seconds", 0, double), self.add_number("most_seconds", MAX_SECONDS, double)]
        numbers = graph.add_node("Add", [graph.add_node("Clip", [gaps, *bounds]), self.add_number("one_second", 1, double)])
        octaves = graph.add_node("Div", [graph.add_node("Log", [numbers]), self.add_number("log_2", math.log(2), double)])
        above = graph.add_node("Add", [octaves, self.add_number("above_rounding", _ABOVE_ROUNDING, double)])
        octave = graph.add_node("Floor", [above])
        power = graph.add_node("Pow", [self.add_number("two", 2, double), octave])
        middle = graph.add_node("Mul", [power, self.add_number("middle", 1.5, double)])
        is_upper = graph.add_node("Cast", [graph.add_node("GreaterOrEqual", [numbers, middle])], to=_DOUBLE)
        found = graph.add_node("Add", [graph.add_node("Add", [octave, octave]), is_upper])
        return graph.add_node("Cast", [found], to=_INT64)

    def add_block(self, block: Any, states: str, distances: str, gaps: str, name: str) -> str:
        """Returns the states behind a block [B, L, W]."""
        graph = self._graph
        normed = self.add_norm(block.attention_norm, states, f"{name}/attention_norm")
        states = graph.add_node("Add", [states, self._add_attention(block.attention, normed, distances, gaps, name)])
        normed = self.add_norm(block.forward_norm, states, f"{name}/forward_norm")
        gate = self._add_linear(normed, block.gate.weight, block.gate.bias, f"{name}/gate")
        gate = graph.add_node("Mul", [gate, graph.add_node("Sigmoid", [gate])])
        value = self._add_linear(normed, block.value.weight, block.value.bias, f"{name}/value")
        product = graph.add_node("Mul", [gate, value])
        return graph.add_node("Add", [states, self._add_linear(product, block.out.weight, block.out.bias, f"{name}/out")])

    def add_norm(self, norm: Any, states: str, name: str) -> str:
        """Returns normalised states [B, L, W]."""
        scale, shift = (
            self._graph.add_constant(f"{self._name}/{name}/{part}", values)
            for part, values in (("weight", norm.weight), ("bias", norm.bias))
        )
        return self._graph.add_node("LayerNormalization", [states, scale, shift], axis=-1, epsilon=norm.eps)

    def add_last(self, states: str, weights: str) -> str:
        """Returns the state of each row's last event [B, W]."""
        graph = self._graph
        counts = graph.add_node("ReduceSum", [weights, graph.add_axes(1)], keepdims=1)  # [B, 1]
        places = graph.add_node("CumSum", [weights, self.add_number("along_events", 1, np.int64)])  # 1 at the first event
        is_at_end = graph.add_node("Cast", [graph.add_node("Equal", [places, counts])], to=_FLOAT)
        chosen = graph.add_node("Mul", [is_at_end, weights])  # padding has weight 0
        row = graph.add_node("Unsqueeze", [chosen, graph.add_axes(1)])  # [B, 1, L]
        return graph.add_node("Squeeze", [graph.add_node("MatMul", [row, states]), graph.add_axes(1)])

    def _add_attention(self, attention: Any, states: str, distances: str, gaps: str, name: str) -> str:
        """Returns what each event reads from the others [B, L, W]."""
        graph, heads = self._graph, attention.heads
        width = attention.out.in_features
        parts = zip(
            ("query", "key", "value"),
            attention.query_key_value.weight.split(width),
            attention.query_key_value.bias.split(width),
            strict=True,
        )
        by_head = []
        for part, weight, bias in parts:
            mapped = self._add_linear(states, weight, bias, f"{name}/attention_{part}")
            split = graph.add_reshape(mapped, 0, 0, heads, width // heads)
            by_head.append(graph.add_node("Transpose", [split], perm=[0, 2, 1, 3]))
        query, key, value = by_head  # [B, H, L, W / H]
        query = graph.add_node("Mul", [query, self.add_number("attention_scale", (width // heads) ** -0.5)])
        scores = graph.add_node("MatMul", [query, graph.add_node("Transpose", [key], perm=[0, 1, 3, 2])])  # [B, H, L, L]
        scores = graph.add_node("Add", [scores, self._add_distance_bias(attention.distance_bias, distances, name)])
        table = graph.add_constant(f"{self._name}/{name}/gap_bias", attention.gap_bias)
        by_gap = graph.add_node("Gather", [table, gaps], axis=0)  # [B, L, L, H]
        scores = graph.add_node("Add", [scores, graph.add_node("Transpose", [by_gap], perm=[0, 3, 1, 2])])
        mixed = graph.add_node("MatMul", [graph.add_node("Softmax", [scores], axis=3), value])
        joined = graph.add_reshape(graph.add_node("Transpose", [mixed], perm=[0, 2, 1, 3]), 0, 0, width)
        return self._add_linear(joined, attention.out.weight, attention.out.bias, f"{name}/attention_out")

    def _add_distance_bias(self, bias: Tensor, distances: str, name: str) -> str:
        """Returns the bias by distance [H, L, L], with the score of masked events where the column's is later."""
        graph = self._graph
        none, most = self.add_number("zero_events", 0, np.int64), self.add_number("most_events", len(bias) - 1, np.int64)
        table = graph.add_constant(f"{self._name}/{name}/distance_bias", bias)
        near = graph.add_node("Gather", [table, graph.add_node("Clip", [distances, none, most])], axis=0)  # [L, L, H]
        is_later = graph.add_node("Less", [distances, none])
        masked = graph.add_node("Where", [is_later, self.add_number("masked", MASKED_SCORE), self.add_number("kept", 0.0)])
        return graph.add_node("Add", [graph.add_node("Transpose", [near], perm=[2, 0, 1]), masked])

    def _add_linear(self, states: str, weight: Tensor, bias: Tensor, name: str) -> str:
        graph, prefix = self._graph, f"{self._name}/{name}"
        product = graph.add_node("MatMul", [states, graph.add_constant(f"{prefix}_weight", weight.t())])
        return graph.add_node("Add", [product, graph.add_constant(f"{prefix}_bias", bias)])
