"""LightGCN (He et al. 2020): embeddings of users and items, averaged over the layers of their graph, fitted by BPR.

    layer k + 1 = A layer k,   A = D^-1/2 (0, R; R', 0) D^-1/2,   vectors = mean of layers 0 .. K

As published: Adam, one uniform negative per event, and half of the squares of a batch's embeddings, per event, as penalty.

Belongs here: the model. Does not belong here: its settings (`quality_text_settings.py`).

Letters: U users, I items, D vector width.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional

from dssm_assets_tests.benchmarks.quality_features import Entities
from dssm_assets_tests.benchmarks.quality_scores import ByVectors, Recommender
from dssm_assets_tests.benchmarks.quality_splits import Split

INITIAL_STD = 0.1


def fit_lightgcn(split: Split, settings: dict[str, Any], seed: int, entities: Entities | None) -> tuple[Recommender, float]:
    """Returns the fitted vectors, and events per CPU-second."""
    del entities
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(seed)
    num_users, num_items = len(split.user_ids), len(split.item_ids)
    begin = time.process_time()
    graph = normalised_graph(split)
    table = torch.empty(num_users + num_items, settings["dim"]).normal_(0.0, INITIAL_STD, generator=generator)
    table.requires_grad_(True)
    optimiser = torch.optim.Adam([table], lr=settings["lr"])
    users, items = torch.from_numpy(split.user), torch.from_numpy(split.item) + num_users
    for _ in range(settings["epochs"]):
        for batch in torch.split(torch.randperm(len(users), generator=generator), settings["batch_size"]):
            negatives = num_users + torch.randint(num_items, (len(batch),), generator=generator)
            rows = torch.stack([users[batch], items[batch], negatives])
            user, positive, negative = mean_of_layers(graph, table, settings["layers"])[rows]
            penalty = table[rows].square().sum() / (2 * len(batch))
            loss = functional.softplus((user * (negative - positive)).sum(1)).mean() + settings["l2"] * penalty
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    with torch.no_grad():
        vectors = mean_of_layers(graph, table, settings["layers"]).numpy()
    speed = len(users) * settings["epochs"] / (time.process_time() - begin)
    return ByVectors(vectors[:num_users], vectors[num_users:]), speed


def normalised_graph(split: Split) -> csr_matrix:
    """Returns A, float32 [U + I, U + I]; an event that is repeated is one edge."""
    size = len(split.user_ids) + len(split.item_ids)
    pairs = np.unique(np.stack([split.user, split.item + len(split.user_ids)]), axis=1)
    begins, ends = np.concatenate([pairs, pairs[::-1]], axis=1)
    degree = np.bincount(begins, minlength=size).astype(np.float32)
    return csr_matrix(((degree[begins] * degree[ends]) ** -0.5, (begins, ends)), (size, size))


def mean_of_layers(graph: csr_matrix, table: Tensor, layers: int) -> Tensor:
    """Returns the mean of the table and of so many layers over it [U + I, D]."""
    multiply: Callable[[csr_matrix, Tensor], Tensor] = _Product.apply
    layer = total = table
    for _ in range(layers):
        layer = multiply(graph, layer)
        total = total + layer
    return total / (layers + 1)


class _Product(torch.autograd.Function):
    """A times a dense matrix; A is symmetric, so the gradient is A times the gradient."""

    @staticmethod
    def forward(ctx: Any, graph: csr_matrix, dense: Tensor) -> Tensor:
        ctx.graph = graph
        return torch.from_numpy(graph @ dense.detach().numpy())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        return None, torch.from_numpy(ctx.graph @ gradients[0].numpy())
