"""Products by torch and by numpy are the same numbers; numpy is chosen where torch leaves the processor's width unused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from threadpoolctl import threadpool_info
from torch import Tensor
from torch.nn import functional

from dssm_assets.core.models.losses.loss_terms import to_factor
from dssm_assets.core.models.products import add_product, by_numpy, is_numpy_faster, map_rows, product
from dssm_assets_tests.core.models.losses.loss_batches import plain_terms

LEFT, RIGHT = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), torch.tensor([[1.0, -1.0], [0.5, 2.0]])
PRODUCT = [[2.0, 3.0], [5.0, 5.0], [8.0, 7.0]]


@pytest.mark.parametrize("is_on", [False, True])
def test_a_product_is_new_or_written_where_it_is_wanted(is_on: bool) -> None:
    buffer = torch.zeros(4, 2)
    with by_numpy(is_on):
        assert product(LEFT, RIGHT).tolist() == PRODUCT
        assert product(LEFT.double(), RIGHT.double()).tolist() == PRODUCT
        written = product(LEFT, RIGHT, out=buffer[:3])
    assert written.data_ptr() == buffer.data_ptr()
    assert buffer.tolist() == [*PRODUCT, [0.0, 0.0]]


@pytest.mark.parametrize("is_on", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_bfloat16_rounds_factors_and_never_sums(bfloat16: bool, is_on: bool) -> None:
    terms = replace(plain_terms(1, 1, []), bfloat16=bfloat16)
    factor = to_factor(torch.tensor([[1.0 + 2**-10]]), terms)
    total = torch.tensor([[2.0**-20]])
    with by_numpy(is_on):
        add_product(total, torch.tensor([[1.0]]), factor)
    assert total.item() == (1.0 if bfloat16 else 1.0 + 2**-10) + 2**-20


@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 5), (0, 5)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_mapped_rows_and_their_gradients_are_those_of_torch(shape: tuple[int, ...], has_bias: bool) -> None:
    generator = torch.Generator().manual_seed(3)

    def drawn(*of: int) -> Tensor:
        return torch.randn(*of, generator=generator, requires_grad=True)

    inputs, weight, bias = drawn(*shape), drawn(4, 5), drawn(4) if has_bias else None
    factors = torch.randn(*shape[:-1], 4, generator=generator)
    leaves = [one for one in (inputs, weight, bias) if one is not None]
    expected = functional.linear(inputs, weight, bias)
    wanted = torch.autograd.grad((expected * factors).sum(), leaves)
    with by_numpy(True):
        mapped = map_rows(inputs, weight, bias)
        found = torch.autograd.grad((mapped * factors).sum(), leaves)
    torch.testing.assert_close(mapped, expected)
    torch.testing.assert_close(found, wanted)


def test_dense_layers_keep_the_number_format_of_autocast() -> None:
    with by_numpy(True), torch.autocast("cpu", dtype=torch.bfloat16):
        assert map_rows(LEFT, RIGHT, None).dtype == torch.bfloat16


def test_numpy_has_one_thread_while_it_multiplies() -> None:
    before = _blas_threads()
    with by_numpy(True):
        assert set(_blas_threads()) == {1}
    assert _blas_threads() == before


@pytest.mark.parametrize(
    ("name", "has_avx512", "threads", "is_faster"),
    [
        ("AMD EPYC 9R45", True, 1, True),
        ("AMD EPYC 9R45", True, 2, False),
        ("AMD EPYC 7R13", False, 1, False),
        ("Intel(R) Xeon(R) Platinum 8488C", True, 1, False),
    ],
)
def test_numpy_is_faster_on_one_thread_where_mkl_leaves_avx512_unused(
    monkeypatch: pytest.MonkeyPatch, name: str, has_avx512: bool, threads: int, is_faster: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"cpu_name": name, "avx512_f": has_avx512})
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert is_numpy_faster() == is_faster


def _blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]
