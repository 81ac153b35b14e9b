"""Portions of rows and their masked cells, by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dssm_assets.core.models.losses.masks import MaskedPairs
from dssm_assets.core.models.losses.row_chunks import add_product, columns_left, full, rounded, row_chunks
from dssm_assets_tests.core.models.losses.loss_worlds import no_pairs, plain_terms

_MASKED = MaskedPairs(np.array([0, 2, 2, 2]), np.array([1, 0, 2, 2]))


def test_every_row_comes_once_and_takes_its_masked_cells_along() -> None:
    chunks = list(row_chunks(plain_terms(3, 3, [], masked=_MASKED), 3, torch.device("cpu")))
    assert [chunk.rows for chunk in chunks] == [slice(0, 2), slice(2, 3)]
    cells = torch.arange(9.0).reshape(3, 3)
    for chunk in chunks:
        chunk.clear(cells[chunk.rows], -1.0)
    assert cells.tolist() == [[0, -1, 2], [3, 4, 5], [-1, 7, -1]]


def test_columns_that_are_named_twice_are_missing_once() -> None:
    assert columns_left(plain_terms(3, 3, [], masked=_MASKED), 3).tolist() == [2, 3, 1]
    assert columns_left(plain_terms(2, 0, [], masked=no_pairs()), 0).tolist() == [0, 0]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_factors_are_rounded_only_if_so_wished_and_sums_never(bfloat16: bool) -> None:
    terms = replace(plain_terms(1, 1, []), bfloat16=bfloat16)
    factor = rounded(torch.tensor([[1.0 + 2**-10]]), terms)
    total = torch.tensor([[2.0**-20]])
    add_product(total, torch.tensor([[1.0]]), factor)
    assert total.item() == (1.0 if bfloat16 else 1.0 + 2**-10) + 2**-20


def test_half_vectors_become_float32_and_wider_ones_stay() -> None:
    kinds = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    wide = [full(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert wide == [torch.float32, torch.float32, torch.float32, torch.float64]
