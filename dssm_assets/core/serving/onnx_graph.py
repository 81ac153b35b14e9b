"""An ONNX graph under construction: nodes with names, constants, reshapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper, numpy_helper
from torch import Tensor


class OnnxGraph:
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
