"""Exports the fitted towers as ONNX models. These run without this package.

The graph is written node by node instead of traced. This takes milliseconds instead of seconds, and the same towers give the same
bytes on every machine. The graph repeats the arithmetic of `models/tower.py` and `models/embedding.py`. Before each publication the
check `exported_towers` of serving_bundle compares both, so a change on only one side is never served.

A model has only the embedding tables of its own features. Row 0 of each is the zero vector for "missing", so indices are used
unchanged.

Letters: B rows, L width of a padded feature, d width of an embedding, D output width, W width of an event, H heads, K interests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.event_layers import MASKED_SCORE, MAX_SECONDS
from dssm_assets.core.models.tower import EPSILON, BatchNorm, Tower
from dssm_assets.core.models.tower_spec import TowerFeature
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.service.bundle.tower_layout import (
    IS_EMPTY_HISTORY,
    OUTPUT,
    SINGLES,
    TowerLayout,
    indices_input,
    seconds_input,
    tower_layout,
    weights_input,
)

_ABOVE_ROUNDING: Final = 1e-9
"""Added to a logarithm before it is rounded down. It is larger than the logarithm's error, and too small to reach the next whole number."""
_SHORTEST: Final = 1e-12
"""A vector shorter than this is divided by this number instead of its length, as in torch's normalize."""
OPSET: Final = 18
IR_VERSION: Final = 9
INLINE_BYTES: Final = 1 << 30
"""Larger embedding tables are stored in a second file, because a protobuf message is limited to 2 GiB."""
_ALIGNMENT: Final = 4096

Values = npt.NDArray[Any] | Tensor | list[int] | float


@dataclass(frozen=True)
class ExportedTower:
    """A tower in ONNX format.

    Attributes:
        model: the bytes of the model.
        data: the bytes of its data file, in pieces. Empty if the tables are in the model.
    """

    model: bytes
    data: tuple[npt.NDArray[np.uint8], ...]


class _Graph:
    """A graph under construction. Each node has one output with the node's name."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[TensorProto] = []

    def add(self, kind: str, *inputs: str | Values, **attributes: Any) -> str:
        """Adds a node. Returns its name. Inputs are names or constants; a float becomes float32, whole numbers int64."""
        name = f"{kind}_{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._add_constant(value) for value in inputs]
        self.nodes.append(helper.make_node(kind, names, [name], name=name, **attributes))
        return name

    def _add_constant(self, values: Values) -> str:
        array = values.detach().numpy() if isinstance(values, Tensor) else np.array(values)
        name = f"constant_{len(self.constants)}"
        kind = np.float32 if type(values) is float else array.dtype
        self.constants.append(numpy_helper.from_array(np.array(array, kind, order="C"), name))
        return name


def export_tower(two_tower: TwoTower, data_file: str, inline_bytes: int = INLINE_BYTES, *, is_user: bool) -> ExportedTower:
    """Exports the user or the item tower to ONNX. `data_file`: name of its data file, if it needs one."""
    graph, spec, layout = _Graph(), two_tower.spec, tower_layout(two_tower.spec, is_user=is_user)
    tower, lookup = (two_tower.user_tower, two_tower.user_lookup) if is_user else (two_tower.item_tower, two_tower.item_lookup)
    interests = spec.num_interests if is_user else 1
    parts, frozen = _add_lookups(graph, two_tower.tables, layout), ""
    if lookup.has_frozen:
        found = graph.add("Concat", *parts, axis=1)
        parts, frozen = [graph.add("Gather", found, lookup.trained, axis=1)], graph.add("Gather", found, lookup.frozen, axis=1)
    attention, encoders = (two_tower.attention, two_tower.encoders) if is_user else ((), ())
    means = [_add_attention_pooling(graph, pool, own) for pool, own in zip(attention, layout.attended, strict=True)]
    history = [_add_encoder(graph, encoder, own) for encoder, own in zip(encoders, layout.encoded, strict=True)]
    history += [graph.add("Unsqueeze", IS_EMPTY_HISTORY, [1])] if layout.has_history else []
    if interests == 1:
        means = [graph.add("Squeeze", mean, [1]) for mean in means]
    else:  # repeats each value [B, .] as [B, K, .]
        parts, history = (
            [graph.add("Expand", graph.add("Unsqueeze", value, [1]), [1, interests, 1]) for value in values]
            for values in (parts, history)
        )
    vectors = graph.add("Concat", *parts, *means, *history, axis=-1)
    if interests > 1:
        vectors = graph.add("Reshape", vectors, [-1, tower.linears[0].get_parameter("weight").shape[1]])
    vectors = _add_layers(graph, tower, vectors)
    if spec.similarity is Similarity.COSINE:
        length = graph.add("Max", graph.add("ReduceL2", vectors, [1], keepdims=1), _SHORTEST)
        vectors = graph.add("Div", vectors, length)
    if frozen:
        vectors = graph.add("Concat", vectors, frozen, axis=1)
    width, shape = spec.output_dim, list[str | int](["batch"])
    if interests > 1:
        vectors, shape = graph.add("Reshape", vectors, [-1, interests, width]), ["batch", interests]
    if is_user and spec.prior:  # appends a 1 to each vector, so that the inner product adds an item's prior
        graph.add("Pad", vectors, [0] * (2 * len(shape) + 1) + [1], 1.0)
        width += 1
    graph.nodes[-1].name = graph.nodes[-1].output[0] = OUTPUT
    tables, data = _store_tables(two_tower.tables, layout, data_file, inline_bytes)
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [*shape, width])
    onnx_graph = helper.make_graph(graph.nodes, "tower", _value_infos(layout), [output], initializer=graph.constants + tables)
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


def _table_name(feature: TowerFeature) -> str:
    return f"embedding/{feature.embedding_name}"


def _store_tables(
    tables: EmbeddingTables, layout: TowerLayout, data_file: str, inline_bytes: int
) -> tuple[list[TensorProto], tuple[npt.NDArray[np.uint8], ...]]:
    """Returns the embedding tables as tensors of the model, and the content of its data file. Row 0, "missing", is zeros."""
    pieces = {}
    for feature in (*layout.singles, *layout.padded):
        first = tables.bases[feature.embedding_name] + 1
        fused = tables.table(feature.embedding_dim).detach().numpy()
        rows = fused[first : first - 1 + feature.num_embeddings]
        pieces[_table_name(feature)] = [np.zeros((1, feature.embedding_dim), np.float32), rows]
    sizes = {name: sum(array.nbytes for array in arrays) for name, arrays in pieces.items()}
    is_inline = sum(sizes.values()) <= inline_bytes
    tensors, data, offset = [], [], 0
    for name, arrays in pieces.items():
        shape = [sum(len(array) for array in arrays), arrays[0].shape[1]]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
        if is_inline:
            tensor.raw_data = b"".join(array.tobytes() for array in arrays)
        else:
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", data_file), ("offset", offset), ("length", sizes[name])):
                tensor.external_data.add(key=key, value=str(value))
            padding = np.zeros(-sizes[name] % _ALIGNMENT, np.uint8)
            data += [*(array.reshape(-1).view(np.uint8) for array in arrays), padding]
            offset += sizes[name] + len(padding)
        tensors.append(tensor)
    return tensors, tuple(data)


def _add_lookups(graph: _Graph, tables: EmbeddingTables, layout: TowerLayout) -> list[str]:
    """Returns the pooled vectors [B, d] of the features, in the order of `EmbeddingTables.lookup`."""
    parts = []
    for group in tables.groups(layout.singles, layout.bags):
        for column in group.single_columns.tolist():
            index = graph.add("Gather", SINGLES, column, axis=1)  # [B]
            parts.append(graph.add("Gather", _table_name(layout.singles[column]), index, axis=0))
        for column in group.bag_columns:
            feature = layout.bags[column]
            found = graph.add("Gather", _table_name(feature), indices_input(feature.name), axis=0)  # [B, L, d]
            weights = graph.add("Unsqueeze", weights_input(feature.name), [1])  # [B, 1, L]
            parts.append(graph.add("Squeeze", graph.add("MatMul", weights, found), [1]))
    return parts


def _add_layers(graph: _Graph, tower: Tower, inputs: str) -> str:
    """Returns the output [B, D] of a tower's layers for their input [B, W]."""
    hidden = inputs
    for number, layer in enumerate(tower.linears):
        hidden = graph.add("Gemm", hidden, layer.get_parameter("weight"), layer.get_parameter("bias"), transB=1)
        if number < len(tower.norms):
            hidden = graph.add("Relu", _add_norm(graph, hidden, tower.norms[number]))
    if tower.skip is None:
        return hidden
    shared = graph.add("Gather", inputs, tower.shared_columns, axis=1)
    return graph.add("Add", hidden, graph.add("MatMul", shared, tower.skip.weight.t()))


def _add_norm(graph: _Graph, values: str, norm: Any) -> str:
    if isinstance(norm, BatchNorm):
        inputs = (values, norm.weight, norm.bias, norm.running_mean, norm.running_var)
        return graph.add("BatchNormalization", *inputs, epsilon=EPSILON)
    if not hasattr(norm, "weight"):
        return values
    return graph.add("LayerNormalization", values, norm.weight, norm.bias, axis=-1, epsilon=norm.eps)


def _add_events(graph: _Graph, features: Sequence[TowerFeature]) -> str:
    """Returns the vectors of the events [B, L, W]: the vectors of their sub-features, joined."""
    found = [graph.add("Gather", _table_name(feature), indices_input(feature.name), axis=0) for feature in features]
    return graph.add("Concat", *found, axis=2)


def _add_attention_pooling(graph: _Graph, pooling: Any, features: Sequence[TowerFeature]) -> str:
    """Returns the weighted means [B, K, W] of an `AttentionPooling`."""
    events = _add_events(graph, features)
    hidden = graph.add("Tanh", graph.add("MatMul", events, pooling.hidden.weight.t()))
    scores = graph.add("MatMul", hidden, pooling.score.weight.t())  # [B, L, K]
    is_present = graph.add("Unsqueeze", weights_input(features[0].name), [2])  # [B, L, 1]
    shift = graph.add("Mul", graph.add("Sub", is_present, 1.0), -MASKED_SCORE)
    weights = graph.add("Softmax", graph.add("Add", scores, shift), axis=1)
    return graph.add("MatMul", graph.add("Transpose", weights, perm=[0, 2, 1]), events)


def _add_encoder(graph: _Graph, encoder: Any, features: Sequence[TowerFeature]) -> str:
    """Returns the `SequenceEncoder`'s state of each row's last event [B, W], zeros for a row without events."""
    first = features[0].name
    states = graph.add("Mul", _add_events(graph, features), encoder.scale)
    length = graph.add("Squeeze", graph.add("Shape", indices_input(first), start=1, end=2))
    places = graph.add("Range", 0, length, 1)
    # Number of events by which the row's event is later than the column's [L, L].
    distances = graph.add("Sub", graph.add("Unsqueeze", places, [1]), graph.add("Unsqueeze", places, [0]))
    gaps = _add_gap_classes(graph, seconds_input(first))
    for block in encoder.blocks:
        normed = _add_norm(graph, states, block.attention_norm)
        states = graph.add("Add", states, _add_attention(graph, block.attention, normed, distances, gaps))
        normed = _add_norm(graph, states, block.forward_norm)
        gate = _add_linear(graph, normed, block.gate.weight, block.gate.bias)
        gate = graph.add("Mul", gate, graph.add("Sigmoid", gate))
        value = _add_linear(graph, normed, block.value.weight, block.value.bias)
        read = _add_linear(graph, graph.add("Mul", gate, value), block.out.weight, block.out.bias)
        states = graph.add("Add", states, read)
    states = _add_norm(graph, states, encoder.norm)
    weights = weights_input(first)
    counts = graph.add("ReduceSum", weights, [1], keepdims=1)  # [B, 1]
    is_at_end = graph.add("Equal", graph.add("CumSum", weights, 1), counts)
    chosen = graph.add("Mul", graph.add("Cast", is_at_end, to=TensorProto.FLOAT), weights)  # padding has weight 0
    row = graph.add("Unsqueeze", chosen, [1])  # [B, 1, L]
    return graph.add("Squeeze", graph.add("MatMul", row, states), [1])


def _add_gap_classes(graph: _Graph, seconds: str) -> str:
    """Returns the class (`gap_classes`) of the time between any two events [B, L, L]."""
    columns, rows = (graph.add("Unsqueeze", seconds, [axis]) for axis in (1, 2))
    gaps = graph.add("Cast", graph.add("Sub", columns, rows), to=TensorProto.DOUBLE)
    numbers = graph.add("Add", graph.add("Clip", gaps, np.float64(0), np.float64(MAX_SECONDS)), np.float64(1))
    octaves = graph.add("Div", graph.add("Log", numbers), np.float64(math.log(2)))
    octave = graph.add("Floor", graph.add("Add", octaves, np.float64(_ABOVE_ROUNDING)))
    middle = graph.add("Mul", graph.add("Pow", np.float64(2), octave), np.float64(1.5))
    is_upper = graph.add("Cast", graph.add("GreaterOrEqual", numbers, middle), to=TensorProto.DOUBLE)
    classes = graph.add("Add", graph.add("Add", octave, octave), is_upper)
    return graph.add("Cast", classes, to=TensorProto.INT64)


def _add_attention(graph: _Graph, attention: Any, states: str, distances: str, gaps: str) -> str:
    """Returns the output of `CausalAttention` for each event [B, L, W]."""
    heads, width, joint = attention.heads, attention.out.in_features, attention.query_key_value
    by_head = []
    for weight, bias in zip(joint.weight.split(width), joint.bias.split(width), strict=True):
        mapped = graph.add("Reshape", _add_linear(graph, states, weight, bias), [0, 0, heads, width // heads])
        by_head.append(graph.add("Transpose", mapped, perm=[0, 2, 1, 3]))
    query, key, value = by_head  # [B, H, L, W / H]
    query = graph.add("Mul", query, float(width // heads) ** -0.5)
    scores = graph.add("MatMul", query, graph.add("Transpose", key, perm=[0, 1, 3, 2]))  # [B, H, L, L]
    most = len(attention.distance_bias) - 1
    near = graph.add("Gather", attention.distance_bias, graph.add("Clip", distances, 0, most), axis=0)  # [L, L, H]
    masked = graph.add("Where", graph.add("Less", distances, 0), MASKED_SCORE, 0.0)
    scores = graph.add("Add", scores, graph.add("Add", graph.add("Transpose", near, perm=[2, 0, 1]), masked))
    by_gap = graph.add("Gather", attention.gap_bias, gaps, axis=0)  # [B, L, L, H]
    scores = graph.add("Add", scores, graph.add("Transpose", by_gap, perm=[0, 3, 1, 2]))
    mixed = graph.add("MatMul", graph.add("Softmax", scores, axis=3), value)
    joined = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), [0, 0, width])
    return _add_linear(graph, joined, attention.out.weight, attention.out.bias)


def _add_linear(graph: _Graph, states: str, weight: Tensor, bias: Tensor) -> str:
    return graph.add("Add", graph.add("MatMul", states, weight.t()), bias)
