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

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from dssm_assets.core.model_config import Similarity
from dssm_assets.core.models.embedding import EmbeddingTables
from dssm_assets.core.models.tower import Tower
from dssm_assets.core.models.tower_feature import TowerFeature
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.serving.tower_graph import (
    Graph,
    attended,
    dense,
    empty_flag,
    held_apart,
    looked_up,
    side_by_side,
    table_of,
    tower_width,
    with_one,
)
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
