"""Export of the fitted towers as ONNX models, which run without this package.

The graph is written node by node, not traced: this takes milliseconds instead of seconds, and the same towers give the same
bytes on every machine. It computes the same as `models/tower.py` and `models/embedding.py`. The check `exported_towers` of
serving_bundle compares both before each publication, so a change there without the same change here is never served.

A model holds only the embedding tables of its own features. Row 0 of each is the zero vector for "missing", so indices are
used unchanged.

Letters: B rows, L width of a padded feature, d width of an embedding, D output width, W width of an event, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.models.embedding import EmbeddingTables, SideLookup
from dssm_assets.core.models.event_layers import MASKED_SCORE, MAX_SECONDS, SequenceEncoder
from dssm_assets.core.models.tower import EPSILON, BatchNorm, Tower
from dssm_assets.core.models.tower_spec import TowerFeature
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.serving.tower_layout import (
    IS_EMPTY_HISTORY,
    OUTPUT,
    SINGLES,
    TowerLayout,
    indices_input,
    item_layout,
    seconds_input,
    user_layout,
    weights_input,
)

_FLOAT, _DOUBLE, _INT64 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64
_ABOVE_ROUNDING: Final = 1e-9
"""Added to a logarithm before it is rounded down: more than its error, less than the distance to the next whole number."""
_SHORTEST: Final = 1e-12
"""As in torch's normalize: a vector shorter than this is divided by it, not by its length."""
OPSET: Final = 18
IR_VERSION: Final = 9
INLINE_BYTES: Final = 1 << 30
"""Embedding tables larger than this go to a second file: a protobuf message is limited to 2 GiB."""
_ALIGNMENT: Final = 4096

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ExportedTower:
    """A tower as ONNX.

    Attributes:
        model: the bytes of the model.
        data: the bytes of its data file, in pieces; empty if the tables are in the model.
    """

    model: bytes
    data: tuple[Bytes, ...]


def export_user_tower(two_tower: TwoTower, data_file: str, inline_bytes: int = INLINE_BYTES) -> ExportedTower:
    """Returns the user tower as ONNX; `data_file` is the name of its data file, if it needs one."""
    return _export(two_tower.user_tower, two_tower, user_layout(two_tower.spec), data_file, inline_bytes)


def export_item_tower(two_tower: TwoTower, data_file: str, inline_bytes: int = INLINE_BYTES) -> ExportedTower:
    """Returns the item tower as ONNX; `data_file` is the name of its data file, if it needs one."""
    return _export(two_tower.item_tower, two_tower, item_layout(two_tower.spec), data_file, inline_bytes)


def _export(tower: Tower, two_tower: TwoTower, layout: TowerLayout, data_file: str, inline_bytes: int) -> ExportedTower:
    graph, tables, spec = _Graph(), two_tower.tables, two_tower.spec
    is_user = tower is two_tower.user_tower
    parts = _add_lookups(graph, tables, layout)
    parts, frozen = _split_frozen(graph, parts, two_tower.user_lookup if is_user else two_tower.item_lookup)
    if layout.attended:
        means = [
            _add_attention(graph, pool, features) for features, pool in zip(layout.attended, two_tower.attention, strict=True)
        ]
        parts = _add_means(graph, parts, means, spec.num_interests)
    for number, (features, encoder) in enumerate(zip(layout.encoded, two_tower.encoders if is_user else (), strict=True)):
        assert isinstance(encoder, SequenceEncoder)
        events = _add_events(graph, features)
        state = _add_encoder(graph, encoder, events, features[0].name, f"encoder_{number}")
        parts.append(state if spec.num_interests == 1 else _repeat_for_interests(graph, state, spec.num_interests))
    if layout.has_history:
        parts.append(_add_empty_flag(graph, spec.num_interests))
    has_interests = is_user and spec.num_interests > 1
    inputs = graph.add_node("Concat", parts, axis=2 if has_interests else 1)
    if has_interests:
        inputs = graph.add_reshape(inputs, -1, tower.linears[0].get_parameter("weight").shape[1])
    vectors = _add_layers(graph, tower, inputs, is_unit=spec.similarity is Similarity.COSINE)
    if frozen:
        vectors = graph.add_node("Concat", [vectors, frozen], axis=1)
    if has_interests:
        vectors = graph.add_reshape(vectors, -1, spec.num_interests, spec.output_dim)
    if is_user and spec.prior:
        _append_one(graph, vectors, rank=3 if has_interests else 2)
    graph.rename_last(OUTPUT)
    owners = {_table_name(feature): feature for feature in (*layout.singles, *layout.padded)}
    pieces = {name: _table_rows(tables, feature) for name, feature in owners.items()}
    initializers, data = _initializers(pieces, data_file, inline_bytes)
    width = spec.output_dim + (is_user and spec.prior)
    shape = ["batch", spec.num_interests, width] if has_interests else ["batch", width]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)
    onnx_graph = helper.make_graph(
        graph.nodes, "tower", _value_infos(layout), [output], initializer=[*graph.constants.values(), *initializers]
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(onnx_graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="dssm-assets")
    return ExportedTower(model.SerializeToString(deterministic=True), data)


def _value_infos(layout: TowerLayout) -> list[Any]:
    infos: dict[str, tuple[int, list[Any]]] = {
        SINGLES: (TensorProto.INT64, ["batch", len(layout.singles)]),
        IS_EMPTY_HISTORY: (TensorProto.FLOAT, ["batch"]),
    }
    for feature in layout.padded:
        shape = ["batch", layout.length_name(feature)]
        infos[indices_input(feature.name)] = (TensorProto.INT64, shape)
        infos[weights_input(feature.name)] = (TensorProto.FLOAT, shape)
        infos[seconds_input(feature.name)] = (TensorProto.INT64, shape)
    return [helper.make_tensor_value_info(name, *infos[name]) for name in layout.input_names]


def _initializers(
    pieces: dict[str, list[npt.NDArray[np.float32]]], data_file: str, inline_bytes: int
) -> tuple[list[onnx.TensorProto], tuple[Bytes, ...]]:
    """Returns the tables as tensors of the model, and the content of its data file."""
    is_inline = sum(array.nbytes for arrays in pieces.values() for array in arrays) <= inline_bytes
    tensors, data, offset = [], [], 0
    for name, arrays in pieces.items():
        shape = [sum(len(array) for array in arrays), arrays[0].shape[1]]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        size = sum(array.nbytes for array in arrays)
        if is_inline:
            tensor.raw_data = b"".join(array.tobytes() for array in arrays)
        else:
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data_file), ("offset", offset), ("length", size)):
                tensor.external_data.add(key=key, value=str(value))
            padding = np.zeros(-size % _ALIGNMENT, np.uint8)
            data += [*(array.reshape(-1).view(np.uint8) for array in arrays), padding]
            offset += size + len(padding)
        tensors.append(tensor)
    return tensors, tuple(data)


def _table_rows(tables: EmbeddingTables, feature: TowerFeature) -> list[npt.NDArray[np.float32]]:
    """Returns the rows of a feature's table: the zero vector for "missing", then its rows of the fused table."""
    base = tables.bases[feature.embedding_name]
    fused = tables.table(feature.embedding_dim).detach().numpy()
    return [np.zeros((1, feature.embedding_dim), np.float32), fused[base + 1 : base + feature.num_embeddings]]


def _add_lookups(graph: _Graph, tables: EmbeddingTables, layout: TowerLayout) -> list[str]:
    """Returns the pooled vectors [B, d] of the features, in the order of `EmbeddingTables.lookup`."""
    parts = []
    for group in tables.groups(layout.singles, layout.bags):
        for column in group.single_columns.tolist():
            position = graph.add_constant(f"column_{column}", np.array(column, np.int64))
            index = graph.add_node("Gather", [SINGLES, position], axis=1)  # [B]
            parts.append(graph.add_node("Gather", [_table_name(layout.singles[column]), index], axis=0))
        for column in group.bag_columns:
            feature = layout.bags[column]
            found = graph.add_node("Gather", [_table_name(feature), indices_input(feature.name)], axis=0)  # [B, L, d]
            axis = graph.add_axes(1)
            weights = graph.add_node("Unsqueeze", [weights_input(feature.name), axis])  # [B, 1, L]
            parts.append(graph.add_node("Squeeze", [graph.add_node("MatMul", [weights, found]), axis]))
    return parts


def _split_frozen(graph: _Graph, parts: list[str], lookup: SideLookup) -> tuple[list[str], str]:
    """Returns the vectors that the layers read, and the frozen ones, concatenated to the output; "" if there are none."""
    if not lookup.has_frozen:
        return parts, ""
    found = graph.add_node("Concat", parts, axis=1)
    read = graph.add_node("Gather", [found, graph.add_constant("read_columns", lookup.trained)], axis=1)
    return [read], graph.add_node("Gather", [found, graph.add_constant("frozen_columns", lookup.frozen)], axis=1)


def _add_events(graph: _Graph, features: Sequence[TowerFeature]) -> str:
    """Returns the vectors of the events [B, L, W], their sub-features side by side."""
    found = [graph.add_node("Gather", [_table_name(feature), indices_input(feature.name)], axis=0) for feature in features]
    return graph.add_node("Concat", found, axis=2)


def _add_attention(graph: _Graph, pooling: Any, features: Sequence[TowerFeature]) -> str:
    """Returns the weighted means [B, K, W] of an `AttentionPooling` over the concatenated sub-features."""
    first = features[0].name
    events = _add_events(graph, features)
    hidden = graph.add_constant(f"attention_hidden/{first}", pooling.hidden.weight.t())
    score = graph.add_constant(f"attention_score/{first}", pooling.score.weight.t())
    scores = graph.add_node(
        "MatMul", [graph.add_node("Tanh", [graph.add_node("MatMul", [events, hidden])]), score]
    )  # [B, L, K]
    is_present = graph.add_node("Unsqueeze", [weights_input(first), graph.add_axes(2)])  # [B, L, 1]
    minus_missing = graph.add_node("Sub", [is_present, graph.add_constant("one", np.array(1, np.float32))])
    shift = graph.add_node("Mul", [minus_missing, graph.add_constant("nowhere", np.array(-MASKED_SCORE, np.float32))])
    weights = graph.add_node("Softmax", [graph.add_node("Add", [scores, shift])], axis=1)
    return graph.add_node("MatMul", [graph.add_node("Transpose", [weights], perm=[0, 2, 1]), events])


def _add_means(graph: _Graph, parts: Sequence[str], means: Sequence[str], interests: int) -> list[str]:
    """Returns the parts [B, d] followed by the means [B, K, W], all as [B, K, .], or as [B, .] for one interest."""
    if interests == 1:
        return [*parts, *(graph.add_node("Squeeze", [mean, graph.add_axes(1)]) for mean in means)]
    return [*(_repeat_for_interests(graph, part, interests) for part in parts), *means]


def _add_empty_flag(graph: _Graph, interests: int) -> str:
    """Returns `is_empty_history` as a column [B, 1], or [B, K, 1] for several interests."""
    flag = graph.add_node("Unsqueeze", [IS_EMPTY_HISTORY, graph.add_axes(1)])
    return flag if interests == 1 else _repeat_for_interests(graph, flag, interests)


def _add_layers(graph: _Graph, tower: Tower, inputs: str, *, is_unit: bool) -> str:
    """Returns the vectors [B, D] that a tower's layers compute from their input [B, W]."""
    last = len(tower.linears) - 1
    hidden = inputs
    for number, layer in enumerate(tower.linears):
        weight = graph.add_constant(f"linear_{number}_weight", layer.get_parameter("weight"))
        bias = graph.add_constant(f"linear_{number}_bias", layer.get_parameter("bias"))
        hidden = graph.add_node("Gemm", [hidden, weight, bias], transB=1)
        if number < last:
            hidden = graph.add_node("Relu", [_add_norm(graph, hidden, tower.norms[number], number)])
    if tower.skip is not None:
        shared = graph.add_node("Gather", [inputs, graph.add_constant("shared_columns", tower.shared_columns)], axis=1)
        skipped = graph.add_node("MatMul", [shared, graph.add_constant("skip_weight", tower.skip.weight.t())])
        hidden = graph.add_node("Add", [hidden, skipped])
    if is_unit:
        length = graph.add_node("ReduceL2", [hidden, graph.add_axes(1)], keepdims=1)
        divisor = graph.add_node("Max", [length, graph.add_constant("shortest", np.array(_SHORTEST, np.float32))])
        hidden = graph.add_node("Div", [hidden, divisor])
    return hidden


def _append_one(graph: _Graph, vectors: str, rank: int) -> str:
    """Returns the vectors with a 1 appended to each, so that the inner product adds an item's prior."""
    pads = graph.add_constant("one_behind", np.array([0] * (2 * rank - 1) + [1], np.int64))
    return graph.add_node("Pad", [vectors, pads, graph.add_constant("one", np.array(1, np.float32))])


def _table_name(feature: TowerFeature) -> str:
    """Returns the name of a feature's embedding table in the model."""
    return f"embedding/{feature.embedding_name}"


def _add_norm(graph: _Graph, hidden: str, norm: Any, number: int) -> str:
    if not hasattr(norm, "weight"):
        return hidden
    scale = graph.add_constant(f"norm_{number}_weight", norm.weight)
    shift = graph.add_constant(f"norm_{number}_bias", norm.bias)
    if not isinstance(norm, BatchNorm):
        return graph.add_node("LayerNormalization", [hidden, scale, shift], axis=-1, epsilon=norm.eps)
    mean = graph.add_constant(f"norm_{number}_mean", norm.running_mean)
    variance = graph.add_constant(f"norm_{number}_var", norm.running_var)
    return graph.add_node("BatchNormalization", [hidden, scale, shift, mean, variance], epsilon=EPSILON)


def _repeat_for_interests(graph: _Graph, value: str, interests: int) -> str:
    """Returns a value [B, .] as [B, K, .]."""
    repeats = graph.add_constant("each_interest", np.array([1, interests, 1], np.int64))
    return graph.add_node("Expand", [graph.add_node("Unsqueeze", [value, graph.add_axes(1)]), repeats])


class _Graph:
    """A graph under construction. Each node has one output, which has the node's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add_node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds a node; returns its name."""
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def add_constant(self, name: str, values: npt.NDArray[Any] | Tensor) -> str:
        array = values.detach().numpy() if isinstance(values, Tensor) else values
        self.constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def add_axes(self, *axes: int) -> str:
        """Adds a constant with some axes; returns its name."""
        return self.add_constant("axis_" + "_".join(map(str, axes)), np.array(axes, np.int64))

    def add_reshape(self, value: str, *shape: int) -> str:
        """Adds a reshape of a value; one size may be -1."""
        return self.add_node(
            "Reshape", [value, self.add_constant("shape_" + "_".join(map(str, shape)), np.array(shape, np.int64))]
        )

    def rename_last(self, name: str) -> None:
        """Renames the last node and its output."""
        last = self.nodes[-1]
        last.name = last.output[0] = name


def _add_encoder(graph: _Graph, encoder: SequenceEncoder, events: str, feature: str, name: str) -> str:
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

    def __init__(self, graph: _Graph, name: str) -> None:
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
        """Returns the attention of each event to the others [B, L, W]."""
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
