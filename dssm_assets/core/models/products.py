"""Products of float32 matrices: by torch, or by numpy where that is faster.

torch multiplies by Intel's MKL, which leaves AVX-512 unused on processors of AMD and is half as fast there as the OpenBLAS of
numpy. On several threads nothing is gained: those of OpenBLAS and of torch wait for each other.

Shapes: R rows, D width, C columns.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

_BY_NUMPY: Final = ContextVar("by_numpy", default=False)


def is_numpy_faster() -> bool:
    """Returns whether numpy multiplies faster than torch, by the processor and the number of torch's threads."""
    processor = torch.cpu.get_capabilities()
    has_unused = str(processor.get("cpu_name", "")).startswith("AMD") and bool(processor.get("avx512_f"))
    return has_unused and torch.get_num_threads() == 1


@contextmanager
def by_numpy(is_on: bool) -> Iterator[None]:
    """Runs the block with products of float32 matrices in the CPU's memory by numpy, if it is on.

    The limit of numpy's threads holds for the whole process: blocks of several threads must not overlap.
    """
    if not is_on:
        yield
        return
    token = _BY_NUMPY.set(True)
    try:
        with threadpool_limits(1, user_api="blas"):
            yield
    finally:
        _BY_NUMPY.reset(token)


def product(left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
    """Returns left @ right [R, C], without a gradient.

    Args:
        left: [R, D].
        right: [D, C], of the same number format.
        out: where to write the result [R, C]; None: a new tensor.
    """
    if not _is_by_numpy(right):
        return torch.mm(left, right, out=out)
    out = left.new_empty(len(left), right.shape[1]) if out is None else out
    np.matmul(left.detach().numpy(), right.detach().numpy(), out=out.numpy())
    return out


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds left @ right to the float32 total, the left factor in the number format of the right one."""
    if right.dtype == total.dtype and not _is_by_numpy(right):
        total.addmm_(left, right)
    else:
        total += product(left.to(right.dtype), right)


def map_rows(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Returns inputs @ weight.T + bias [..., C], with gradients.

    Args:
        inputs: [..., D].
        weight: [C, D].
        bias: [C]; None: without.
    """
    if not _is_by_numpy(inputs) or torch.is_autocast_enabled("cpu"):
        return torch.nn.functional.linear(inputs, weight, bias)
    rows: Tensor = _RowMap.apply(inputs.flatten(0, -2), weight, bias)  # type: ignore[no-untyped-call]
    return rows.view(*inputs.shape[:-1], len(weight))


class _RowMap(torch.autograd.Function):
    """inputs @ weight.T + bias of inputs [R, D], a weight [C, D] and a bias [C] or none."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        rows = product(inputs, weight.T)
        return rows if bias is None else rows.add_(bias)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (inputs, weight), gradient = ctx.saved_tensors, grad_outputs[0]
        of_inputs, of_weight, of_bias = ctx.needs_input_grad
        return (
            product(gradient, weight) if of_inputs else None,
            product(gradient.T, inputs) if of_weight else None,
            gradient.sum(0) if of_bias else None,
        )


def _is_by_numpy(factor: Tensor) -> bool:
    return _BY_NUMPY.get() and factor.dtype == torch.float32 and factor.device.type == "cpu"
