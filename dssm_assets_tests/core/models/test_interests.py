"""The interest that meets an item is the one that would find it."""

from __future__ import annotations

import torch

from dssm_assets.core.models.interests import chosen_interests

INTERESTS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]], [[3.0, 0.0], [3.0, 0.0]]])


def test_the_vector_with_the_largest_product_is_chosen() -> None:
    items = torch.tensor([[0.6, 0.8], [0.8, 0.6], [1.0, 0.0]])
    assert chosen_interests(INTERESTS, items).tolist() == [[0.0, 1.0], [1.0, 0.0], [3.0, 0.0]]


def test_only_the_chosen_vector_learns_and_the_item_only_by_the_loss() -> None:
    interests, items = INTERESTS.clone().requires_grad_(True), torch.tensor([[0.6, 0.8]] * 3).requires_grad_(True)
    chosen_interests(interests, items).sum().backward()
    assert interests.grad is not None
    assert interests.grad.sum(2).tolist() == [[0.0, 2.0], [0.0, 2.0], [2.0, 0.0]]
    assert items.grad is None
