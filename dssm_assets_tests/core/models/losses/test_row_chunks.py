"""Chunks of rows with their masks, and the number formats of products."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from dssm_assets.core.models.losses.loss_terms import MaskedPairs
from dssm_assets.core.models.losses.row_chunks import (
    add_product,
    at_least_float32,
    count_unmasked_columns,
    row_chunks,
    to_factor,
)
from dssm_assets_tests.core.models.losses.loss_batches import no_pairs, plain_terms

MASKED = MaskedPairs(np.array([0, 2, 2, 2]), np.array([1, 0, 2, 2]))


def test_chunks_hold_every_row_once_with_its_masked_cells() -> None:
    chunks = list(row_chunks(plain_terms(3, 3, [], masked=MASKED), 3, torch.device("cpu")))
    assert [chunk.rows for chunk in chunks] == [slice(0, 2), slice(2, 3)]
    cells = torch.arange(9.0).reshape(3, 3)
    for chunk in chunks:
        chunk.fill_masked(cells[chunk.rows], -1.0)
    assert cells.tolist() == [[0, -1, 2], [3, 4, 5], [-1, 7, -1]]


def test_a_column_masked_twice_is_left_out_of_the_count_once() -> None:
    assert count_unmasked_columns(plain_terms(3, 3, [], masked=MASKED), 3).tolist() == [2, 3, 1]
    assert count_unmasked_columns(plain_terms(2, 0, [], masked=no_pairs()), 0).tolist() == [0, 0]


@pytest.mark.parametrize("bfloat16", [False, True])
def test_bfloat16_rounds_factors_and_never_sums(bfloat16: bool) -> None:
    terms = replace(plain_terms(1, 1, []), bfloat16=bfloat16)
    factor = to_factor(torch.tensor([[1.0 + 2**-10]]), terms)
    total = torch.tensor([[2.0**-20]])
    add_product(total, torch.tensor([[1.0]]), factor)
    assert total.item() == (1.0 if bfloat16 else 1.0 + 2**-10) + 2**-20


def test_half_precision_becomes_float32_and_wider_types_stay() -> None:
    kinds = [torch.bfloat16, torch.float16, torch.float32, torch.float64]
    wide = [at_least_float32(torch.ones(1, dtype=kind)).dtype for kind in kinds]
    assert wide == [torch.float32, torch.float32, torch.float32, torch.float64]
