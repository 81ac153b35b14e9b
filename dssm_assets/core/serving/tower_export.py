"""The fitted towers as ONNX models that run without this package.

Belongs here: a tower as one model, its tables and its inputs. Does not belong here: the nodes of its layers
(`tower_graph.py`), what the inputs are called and how they are filled (`tower_layout.py`), running the models, files.

The graph is written out rather than traced: it has few kinds of nodes, is ready in milliseconds where tracing takes
seconds, and the same towers give the same bytes on every machine. What it computes is what `models/tower.py` and
`models/embedding.py` compute; the check `exported_towers` of serving_bundle compares the two on every publication, so a
change there that is not made here is never served.

A model carries the embedding tables of its own features alone. Row 0 of each is the zero vector of "missing", so an index
needs no shift.

Letters: B rows, L width of a padded feature, d width of an embedding, D output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.models.attention_pooling import NOWHERE
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.skip_start import FrozenColumns
from dssm_assets.core.models.tower import EPSILON, BatchNorm, Tower
from dssm_assets.core.models.tower_spec import TowerFeature
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.serving.tower_layout import (
    IS_EMPTY_HISTORY,
    OUTPUT,
    SINGLES,
    TowerLayout,
    indices_of,
    item_layout,
    user_layout,
    weights_of,
)

_SHORTEST: Final = 1e-12
"""As in torch's normalize: a vector shorter than this is divided by it instead of by its length."""


class Graph:
    """A graph that grows node by node; every value has the name of the node that makes it."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}

    def add(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Adds a node; returns the name of its value."""
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: npt.NDArray[Any] | Tensor) -> str:
        """Adds a small constant; returns its name."""
        array = values.detach().numpy() if isinstance(values, Tensor) else values
        self.constants[name] = numpy_helper.from_array(np.array(array, order="C"), name)
        return name

    def axes(self, *axes: int) -> str:
        """Returns the name of a constant that holds these axes."""
        return self.constant("axis_" + "_".join(map(str, axes)), np.array(axes, np.int64))

    def reshaped(self, value: str, *shape: int) -> str:
        """Returns the value in another shape; one of its sizes may be -1, whatever is left."""
        return self.add("Reshape", [value, self.constant("shape_" + "_".join(map(str, shape)), np.array(shape, np.int64))])

    def rename_last(self, name: str) -> None:
        """Gives the last node, and the value that it makes, another name."""
        last = self.nodes[-1]
        last.name = last.output[0] = name


def looked_up(graph: Graph, tables: EmbeddingTables, layout: TowerLayout) -> list[str]:
    """Returns the pooled vectors [B, d] of the features, in the order in which `EmbeddingTables.lookup` puts them."""
    parts = []
    for group in tables.groups(layout.singles, layout.bags):
        for column in group.single_columns.tolist():
            place = graph.constant(f"column_{column}", np.array(column, np.int64))
            index = graph.add("Gather", [SINGLES, place], axis=1)  # [B]
            parts.append(graph.add("Gather", [table_of(layout.singles[column]), index], axis=0))
        for column in group.bag_columns:
            feature = layout.bags[column]
            found = graph.add("Gather", [table_of(feature), indices_of(feature.name)], axis=0)  # [B, L, d]
            axis = graph.axes(1)
            weights = graph.add("Unsqueeze", [weights_of(feature.name), axis])  # [B, 1, L]
            parts.append(graph.add("Squeeze", [graph.add("MatMul", [weights, found]), axis]))
    return parts


def held_apart(graph: Graph, parts: list[str], columns: FrozenColumns) -> tuple[list[str], str]:
    """Returns the looked-up vectors that the layers read, and those that stand beside them; without a held one "" ."""
    if columns.is_none:
        return parts, ""
    found = graph.add("Concat", parts, axis=1)
    read = graph.add("Gather", [found, graph.constant("read_columns", columns.read)], axis=1)
    return [read], graph.add("Gather", [found, graph.constant("frozen_columns", columns.held)], axis=1)


def attended(graph: Graph, pooling: Any, features: Sequence[TowerFeature]) -> str:
    """Returns the means [B, K, W] of an `AttentionPooling` over the sub-features side by side."""
    first = features[0].name
    found = [graph.add("Gather", [table_of(feature), indices_of(feature.name)], axis=0) for feature in features]
    past = graph.add("Concat", found, axis=2)  # [B, L, W]
    hidden = graph.constant(f"attention_hidden/{first}", pooling.hidden.weight.t())
    score = graph.constant(f"attention_score/{first}", pooling.score.weight.t())
    scores = graph.add("MatMul", [graph.add("Tanh", [graph.add("MatMul", [past, hidden])]), score])  # [B, L, K]
    is_there = graph.add("Unsqueeze", [weights_of(first), graph.axes(2)])  # [B, L, 1]
    lacking = graph.add("Sub", [is_there, graph.constant("one", np.array(1, np.float32))])
    shift = graph.add("Mul", [lacking, graph.constant("nowhere", np.array(-NOWHERE, np.float32))])
    weights = graph.add("Softmax", [graph.add("Add", [scores, shift])], axis=1)
    return graph.add("MatMul", [graph.add("Transpose", [weights], perm=[0, 2, 1]), past])


def side_by_side(graph: Graph, parts: Sequence[str], means: Sequence[str], interests: int) -> list[str]:
    """Returns the parts [B, d] before the means [B, K, W], all of them [B, K, .], or [B, .] where there is one interest."""
    if interests == 1:
        return [*parts, *(graph.add("Squeeze", [mean, graph.axes(1)]) for mean in means)]
    return [*(_for_each_interest(graph, part, interests) for part in parts), *means]


def empty_flag(graph: Graph, interests: int) -> str:
    """Returns `is_empty_history` as a column [B, 1], or [B, K, 1] where there are several interests."""
    flag = graph.add("Unsqueeze", [IS_EMPTY_HISTORY, graph.axes(1)])
    return flag if interests == 1 else _for_each_interest(graph, flag, interests)


def dense(graph: Graph, tower: Tower, inputs: str, *, is_unit: bool) -> str:
    """Returns the vectors [B, D] that a tower's layers make of their input [B, W]."""
    last = len(tower.linears) - 1
    hidden = inputs
    for place, layer in enumerate(tower.linears):
        weight = graph.constant(f"linear_{place}_weight", layer.get_parameter("weight"))
        bias = graph.constant(f"linear_{place}_bias", layer.get_parameter("bias"))
        hidden = graph.add("Gemm", [hidden, weight, bias], transB=1)
        if place < last:
            hidden = graph.add("Relu", [_normed(graph, hidden, tower.norms[place], place)])
    if tower.skip is not None:
        taste = graph.add("Gather", [inputs, graph.constant("shared_columns", tower.shared_columns)], axis=1)
        passed = graph.add("MatMul", [taste, graph.constant("skip_weight", tower.skip.weight.t())])
        hidden = graph.add("Add", [hidden, passed])
    if is_unit:
        length = graph.add("ReduceL2", [hidden, graph.axes(1)], keepdims=1)
        longer = graph.add("Max", [length, graph.constant("shortest", np.array(_SHORTEST, np.float32))])
        hidden = graph.add("Div", [hidden, longer])
    return hidden


def with_one(graph: Graph, vectors: str, ranks: int) -> str:
    """Returns the vectors with a 1 behind each, which takes an item's prior as it is."""
    pads = graph.constant("one_behind", np.array([0] * (2 * ranks - 1) + [1], np.int64))
    return graph.add("Pad", [vectors, pads, graph.constant("one", np.array(1, np.float32))])


def tower_width(tower: Tower) -> int:
    """Returns the width of a tower's input."""
    return int(tower.linears[0].get_parameter("weight").shape[1])


def table_of(feature: TowerFeature) -> str:
    """Returns the name of a feature's embedding table."""
    return f"embedding/{feature.embedding_name}"


def _normed(graph: Graph, hidden: str, norm: Any, place: int) -> str:
    if not hasattr(norm, "weight"):
        return hidden
    scale = graph.constant(f"norm_{place}_weight", norm.weight)
    shift = graph.constant(f"norm_{place}_bias", norm.bias)
    if not isinstance(norm, BatchNorm):
        return graph.add("LayerNormalization", [hidden, scale, shift], axis=-1, epsilon=norm.eps)
    mean = graph.constant(f"norm_{place}_mean", norm.running_mean)
    variance = graph.constant(f"norm_{place}_var", norm.running_var)
    return graph.add("BatchNormalization", [hidden, scale, shift, mean, variance], epsilon=EPSILON)


def _for_each_interest(graph: Graph, value: str, interests: int) -> str:
    """Returns a value [B, .] as [B, K, .]."""
    repeats = graph.constant("each_interest", np.array([1, interests, 1], np.int64))
    return graph.add("Expand", [graph.add("Unsqueeze", [value, graph.axes(1)]), repeats])


OPSET: Final = 18
IR_VERSION: Final = 9
INLINE_BYTES: Final = 1 << 30
"""Tables beyond this size together lie in a file beside the model: a protobuf message ends at 2 GiB."""
_ALIGNMENT: Final = 4096

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ExportedTower:
    """A tower as ONNX.

    Attributes:
        model: the bytes of the model.
        data: the bytes of the file beside it, in pieces; empty where the tables are in the model.
    """

    model: bytes
    data: tuple[Bytes, ...]


def export_user_tower(two_tower: TwoTower, data_file: str, inline_bytes: int = INLINE_BYTES) -> ExportedTower:
    """Returns the user tower as ONNX; `data_file` is what the file beside it will be called, should it need one."""
    return _export(two_tower.user_tower, two_tower, user_layout(two_tower.spec), data_file, inline_bytes)


def export_item_tower(two_tower: TwoTower, data_file: str, inline_bytes: int = INLINE_BYTES) -> ExportedTower:
    """Returns the item tower as ONNX; `data_file` is what the file beside it will be called, should it need one."""
    return _export(two_tower.item_tower, two_tower, item_layout(two_tower.spec), data_file, inline_bytes)


def _export(tower: Tower, two_tower: TwoTower, layout: TowerLayout, data_file: str, inline_bytes: int) -> ExportedTower:
    graph, tables, spec = Graph(), two_tower.tables, two_tower.spec
    is_user = tower is two_tower.user_tower
    parts = looked_up(graph, tables, layout)
    columns = (two_tower.user_reading if is_user else two_tower.item_reading).columns
    parts, held = held_apart(graph, parts, columns)
    if layout.attended:
        means = [attended(graph, pool, features) for features, pool in zip(layout.attended, two_tower.attention, strict=True)]
        parts = side_by_side(graph, parts, means, spec.num_interests)
    if layout.has_history:
        parts.append(empty_flag(graph, spec.num_interests))
    is_several = is_user and spec.num_interests > 1
    inputs = graph.add("Concat", parts, axis=2 if is_several else 1)
    if is_several:
        inputs = graph.reshaped(inputs, -1, tower_width(tower))
    made = dense(graph, tower, inputs, is_unit=spec.similarity is Similarity.COSINE)
    if held:
        made = graph.add("Concat", [made, held], axis=1)
    if is_several:
        made = graph.reshaped(made, -1, spec.num_interests, spec.output_dim)
    if is_user and spec.prior:
        with_one(graph, made, ranks=3 if is_several else 2)
    graph.rename_last(OUTPUT)
    owners = {table_of(feature): feature for feature in (*layout.singles, *layout.padded)}
    pieces = {name: _rows(tables, feature) for name, feature in owners.items()}
    initializers, data = _initializers(pieces, data_file, inline_bytes)
    width = spec.output_dim + (is_user and spec.prior)
    shape = ["batch", spec.num_interests, width] if is_several else ["batch", width]
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, shape)
    made_graph = helper.make_graph(
        graph.nodes, "tower", _inputs(layout), [output], initializer=[*graph.constants.values(), *initializers]
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(made_graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="dssm-assets")
    return ExportedTower(model.SerializeToString(deterministic=True), data)


def _inputs(layout: TowerLayout) -> list[Any]:
    described: dict[str, tuple[int, list[Any]]] = {
        SINGLES: (TensorProto.INT64, ["batch", len(layout.singles)]),
        IS_EMPTY_HISTORY: (TensorProto.FLOAT, ["batch"]),
    }
    for feature in layout.padded:
        shape = ["batch", layout.length_of(feature)]
        described[indices_of(feature.name)] = (TensorProto.INT64, shape)
        described[weights_of(feature.name)] = (TensorProto.FLOAT, shape)
    return [helper.make_tensor_value_info(name, *described[name]) for name in layout.input_names]


def _initializers(
    pieces: dict[str, list[npt.NDArray[np.float32]]], data_file: str, inline_bytes: int
) -> tuple[list[onnx.TensorProto], tuple[Bytes, ...]]:
    """Returns the tables as tensors of the model, and what the file beside it holds of them."""
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


def _rows(tables: EmbeddingTables, feature: TowerFeature) -> list[npt.NDArray[np.float32]]:
    """Returns the rows of a feature's table: the zeros of "missing", then its range of the fused table."""
    base = tables.bases[feature.embedding_name]
    fused = tables.table(feature.embedding_dim).detach().numpy()
    return [np.zeros((1, feature.embedding_dim), np.float32), fused[base + 1 : base + feature.num_embeddings]]
