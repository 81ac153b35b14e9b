"""The fitted towers as ONNX models that run without this package.

Belongs here: the graph of a tower over plain padded inputs. Does not belong here: what the inputs are called and how they
are filled (`tower_layout.py`), running the models, files.

The graph is written out rather than traced: it has eight kinds of nodes, is ready in milliseconds where tracing takes
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

from dssm_assets.core.model_config import Similarity
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower import Tower
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

OPSET: Final = 18
IR_VERSION: Final = 9
INLINE_BYTES: Final = 1 << 30
"""Tables beyond this size together lie in a file beside the model: a protobuf message ends at 2 GiB."""
_ALIGNMENT: Final = 4096
_SHORTEST: Final = 1e-12
"""As in torch's normalize: a vector shorter than this is divided by it instead of by its length."""

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


class _Graph:
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


def _export(tower: Tower, two_tower: TwoTower, layout: TowerLayout, data_file: str, inline_bytes: int) -> ExportedTower:
    graph, tables, spec = _Graph(), two_tower.tables, two_tower.spec
    parts = _looked_up(graph, tables, layout)
    if layout.has_history:
        parts.append(graph.add("Unsqueeze", [IS_EMPTY_HISTORY, graph.constant("axis_1", np.array([1], np.int64))]))
    _dense(graph, tower, graph.add("Concat", parts, axis=1), is_unit=spec.similarity is Similarity.COSINE)
    owners = {_table(feature): feature for feature in (*layout.singles, *layout.bags)}
    pieces = {name: _rows(tables, feature) for name, feature in owners.items()}
    initializers, data = _initializers(pieces, data_file, inline_bytes)
    output = helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["batch", spec.output_dim])
    made = helper.make_graph(
        graph.nodes, "tower", _inputs(layout), [output], initializer=[*graph.constants.values(), *initializers]
    )
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(made, opset_imports=[opset], ir_version=IR_VERSION, producer_name="dssm-assets")
    return ExportedTower(model.SerializeToString(deterministic=True), data)


def _inputs(layout: TowerLayout) -> list[Any]:
    described: dict[str, tuple[int, list[Any]]] = {
        SINGLES: (TensorProto.INT64, ["batch", len(layout.singles)]),
        IS_EMPTY_HISTORY: (TensorProto.FLOAT, ["batch"]),
    }
    for feature in layout.bags:
        shape = ["batch", f"length of {feature.name}"]
        described[indices_of(feature.name)] = (TensorProto.INT64, shape)
        described[weights_of(feature.name)] = (TensorProto.FLOAT, shape)
    return [helper.make_tensor_value_info(name, *described[name]) for name in layout.input_names]


def _looked_up(graph: _Graph, tables: EmbeddingTables, layout: TowerLayout) -> list[str]:
    """Returns the pooled vectors [B, d] of the features, in the order in which `EmbeddingTables.lookup` puts them."""
    axis = graph.constant("axis_1", np.array([1], np.int64))
    parts = []
    for group in tables.groups(layout.singles, layout.bags):
        for column in group.single_columns.tolist():
            place = graph.constant(f"column_{column}", np.array(column, np.int64))
            index = graph.add("Gather", [SINGLES, place], axis=1)  # [B]
            parts.append(graph.add("Gather", [_table(layout.singles[column]), index], axis=0))
        for column in group.bag_columns:
            feature = layout.bags[column]
            found = graph.add("Gather", [_table(feature), indices_of(feature.name)], axis=0)  # [B, L, d]
            weights = graph.add("Unsqueeze", [weights_of(feature.name), axis])  # [B, 1, L]
            parts.append(graph.add("Squeeze", [graph.add("MatMul", [weights, found]), axis]))
    return parts


def _dense(graph: _Graph, tower: Tower, hidden: str, *, is_unit: bool) -> None:
    """Adds the layers from the features' vectors to the output."""
    last = len(tower.linears) - 1
    for place, linear in enumerate(tower.linears):
        weight = graph.constant(f"linear_{place}_weight", linear.get_parameter("weight"))
        bias = graph.constant(f"linear_{place}_bias", linear.get_parameter("bias"))
        output = OUTPUT if place == last and not is_unit else ""
        hidden = graph.add("Gemm", [hidden, weight, bias], output, transB=1)
        if place < last:
            norm: Any = tower.norms[place]
            scale = graph.constant(f"norm_{place}_weight", norm.weight)
            shift = graph.constant(f"norm_{place}_bias", norm.bias)
            hidden = graph.add("LayerNormalization", [hidden, scale, shift], axis=-1, epsilon=norm.eps)
            hidden = graph.add("Relu", [hidden])
    if is_unit:
        length = graph.add("ReduceL2", [hidden, graph.constant("axis_1", np.array([1], np.int64))], keepdims=1)
        longer = graph.add("Max", [length, graph.constant("shortest", np.array(_SHORTEST, np.float32))])
        graph.add("Div", [hidden, longer], OUTPUT)


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


def _table(feature: TowerFeature) -> str:
    return f"embedding/{feature.embedding_name}"
