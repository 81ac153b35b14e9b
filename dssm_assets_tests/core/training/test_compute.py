"""Devices and number formats: what is configured, what the machine has, and a fit with each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dssm_assets.core.config.training import Device, Precision
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.training.compute import ComputeContext, device_of, is_bfloat16
from dssm_assets_tests.core.training.worlds import fitted, infer_item_vectors, world

CPU = torch.device("cpu")
HAS_CUDA = torch.cuda.is_available()


@pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason="no CUDA device"))]
)
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_fit_on_each_device_and_format_gives_similar_losses(device: str, kind: str) -> None:
    result = fitted({"dropout": 0.0}, {"device": device, "precision": kind, "epochs": 8, "embedding_optimiser": "adam"})
    reference = fitted({"dropout": 0.0}, {"device": "cpu", "epochs": 8, "embedding_optimiser": "adam"})
    assert (result.report["device"], result.report["is_bfloat16"]) == (device, kind == "bfloat16")
    assert result.loss_by_step == pytest.approx(reference.loss_by_step, abs=0.1)
    assert all(tensor.device == CPU and tensor.dtype == torch.float32 for tensor in result.two_tower.state_dict().values())
    assert np.isfinite(infer_item_vectors(result.two_tower, world().items, 5)).all()


def test_bfloat16_rounds_only_products() -> None:
    left = torch.tensor([[1.0 + 2**-9]])
    with ComputeContext(CPU, bfloat16=True).products():
        rounded = torch.mm(left, torch.ones(1, 1))
        summed = left + 0.0
    with ComputeContext(CPU).products():
        exact = torch.mm(left, torch.ones(1, 1))
    assert (rounded.dtype, float(rounded), float(exact), float(summed)) == (torch.bfloat16, 1.0, 1 + 2**-9, 1 + 2**-9)


@pytest.mark.parametrize(
    ("choice", "native", "expected"), [("auto", True, True), ("auto", False, False), ("float32", True, False)]
)
def test_auto_precision_depends_on_the_processor(
    choice: str, native: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    assert is_bfloat16(Precision(choice), CPU) == expected
    assert is_bfloat16(Precision.BFLOAT16, CPU)


@pytest.mark.parametrize(
    ("choice", "has_cuda", "expected"), [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu")]
)
def test_device_of_the_configuration(choice: str, has_cuda: bool, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_cuda)
    assert device_of(Device(choice)).type == expected


def test_cuda_without_a_device_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"training.device: expected a CUDA device"):
        device_of(Device.CUDA)
