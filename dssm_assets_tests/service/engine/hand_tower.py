"""The user tower of the hand-written bundle (`bundles.py`), as an ONNX graph written node by node.

Belongs here: its numbers and its graph. Does not belong here: the other files of the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from dssm_assets.core.features.expressions import Side

DIMS = 2
ITEMS = {"n0": (1.0, 0.0), "n1": (0.0, 1.0), "n2": (0.6, 0.8), "n3": (-1.0, 0.0)}
_NONE = (0.0, 0.0)
TABLES: dict[str, list[tuple[float, float]]] = {
    "city": [_NONE, (-1.0, -1.0), (1.0, 0.0), (0.0, 1.0)],
    "tags": [_NONE, _NONE, (0.5, 0.0), (0.0, 0.5)],
    "page": [_NONE, _NONE, (0.0, 2.0)],
    "item": [_NONE, _NONE, *ITEMS.values()],
    "history__brand": [_NONE, _NONE, (0.0, -1.0)],
}
SINGLES = {"city": Side.USER, "page": Side.CONTEXT}
BAGS = {"tags": "tags", "history__item": "item", "history__brand": "history__brand"}


def user_tower(dims: int = DIMS) -> onnx.ModelProto:
    """Returns the user tower of `bundles.py`, with zeros in dimensions beyond the second."""
    inputs = [_input("singles", TensorProto.INT64, ["B", len(SINGLES)])]
    inputs += [_input(f"indices/{name}", TensorProto.INT64, ["B", f"L{name}"]) for name in BAGS]
    inputs += [_input(f"weights/{name}", TensorProto.FLOAT, ["B", f"L{name}"]) for name in BAGS]
    inputs.append(_input("is_empty_history", TensorProto.FLOAT, ["B"]))
    constants = {f"table/{name}": _zero_padded(rows, dims) for name, rows in TABLES.items()}
    constants |= {f"position/{position}": np.array(position, np.int64) for position in range(len(SINGLES))}
    constants |= {
        "last": np.array([-1], np.int64),
        "middle": np.array([1], np.int64),
        "no_history": _zero_padded([(0.0, 0.25)], dims),
    }
    nodes: list[onnx.NodeProto] = []

    def add(kind: str, *inputs: str, output: str = "", **attributes: int) -> str:
        nodes.append(helper.make_node(kind, inputs, [output or f"node/{len(nodes)}"], **attributes))
        return nodes[-1].output[0]

    parts = [
        add("Gather", f"table/{name}", add("Gather", "singles", f"position/{position}", axis=1), axis=0)
        for position, name in enumerate(SINGLES)
    ]
    for name, table in BAGS.items():
        found = add("Gather", f"table/{table}", f"indices/{name}", axis=0)
        weighted = add("Mul", found, add("Unsqueeze", f"weights/{name}", "last"))
        parts.append(add("ReduceSum", weighted, "middle", keepdims=0))
    parts.append(add("Mul", add("Unsqueeze", "is_empty_history", "last"), "no_history"))
    add("Sum", *parts, output="vectors")
    output = helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["B", dims])
    stored = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "user_tower", inputs, [output], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def _input(name: str, kind: int, shape: list[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def _zero_padded(rows: Sequence[Sequence[float]], dims: int) -> np.ndarray:
    padded = np.zeros((len(rows), dims), np.float32)
    padded[:, :DIMS] = rows
    return padded
