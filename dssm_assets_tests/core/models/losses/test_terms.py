"""The terms keep their values on the way to a device."""

from __future__ import annotations

from dataclasses import fields

import torch

from dssm_assets_tests.core.models.losses.loss_worlds import plain_terms


def test_every_tensor_moves_and_nothing_else() -> None:
    terms = plain_terms(2, 3, [1])
    moved = terms.to(torch.device("meta"))
    for field in fields(terms):
        before, after = getattr(terms, field.name), getattr(moved, field.name)
        if isinstance(before, torch.Tensor):
            assert (after.device.type, after.shape) == ("meta", before.shape)
        else:
            assert after is before


def test_no_hard_negatives_by_default() -> None:
    terms = plain_terms(2, 3, [])
    bare = type(terms)(terms.positive_correction, terms.column_correction, terms.weight, terms.masked, 2)
    assert (len(bare.hard_rows), len(bare.hard_correction), bare.bfloat16) == (0, 0, False)
