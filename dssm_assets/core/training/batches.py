"""Batches: which samples come together, which negatives they share, and what the loss needs to know about them.

Belongs here: order, negatives, context dropout, masks and corrections of a batch. Does not belong here: reading rows
(`train_data`) and learning from them (`loop`).

Letters: B samples of a batch, N sampled negatives, C columns of logits (B + N, or N without in-batch negatives).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.columns import WEIGHT
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.losses.log_q import log_expected_counts
from dssm_assets.core.models.losses.masks import MaskedPairs, diagonal_pairs, matching_pairs, union_of
from dssm_assets.core.models.losses.sampled_softmax import SoftmaxTerms
from dssm_assets.core.models.tower_input import TowerInput, concatenated, without_columns
from dssm_assets.core.training.train_data import ITEM_INDEX, USER_INDEX, TrainData
from dssm_assets.core.training_config import Training


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        user: B rows of the user tower.
        items: B + N rows of the item tower, the samples' own items first.
        terms: what the loss needs beside the vectors.
    """

    user: TowerInput
    items: TowerInput
    terms: SoftmaxTerms


def epoch_batches(data: TrainData, *, model: Model, training: Training, seed: int, epoch: int) -> Iterator[Batch]:
    """Yields every sample once, in an order that seed and epoch alone decide; the last batch may be smaller."""
    order = np.random.default_rng([seed, epoch, 0]).permutation(data.num_samples)
    rng = np.random.default_rng([seed, epoch, 1])
    for begin in range(0, data.num_samples, training.batch_size):
        yield _batch(data, order[begin : begin + training.batch_size], model, training.logits_rows, rng)


def batches_per_epoch(data: TrainData, training: Training) -> int:
    """Returns how many batches an epoch has."""
    return -(-data.num_samples // training.batch_size)


def _batch(data: TrainData, rows: IntArray, model: Model, logits_rows: int, rng: np.random.Generator) -> Batch:
    keys = data.read_keys(rows)
    item_index = keys[ITEM_INDEX].astype(np.int64)
    negative_index, negative_probability = data.sampler.draw(model.num_sample, rng)
    user = data.read_user_side(rows, keys)
    is_hidden = rng.random(len(rows)) < model.context_dropout
    user = without_columns(user, is_hidden, data.context_singles, data.context_bags)
    items = concatenated(data.read_sample_items(rows), data.read_items(negative_index))
    sampled = log_expected_counts(negative_probability, model.num_sample, model.logq)
    if model.in_batch:
        own = log_expected_counts(data.item_share[item_index], len(rows), model.logq)
        columns, column_items = np.concatenate([own, sampled]), np.concatenate([item_index, negative_index])
    else:
        own = log_expected_counts(data.sampler.probability[item_index], model.num_sample, model.logq)
        columns, column_items = sampled, negative_index
    terms = SoftmaxTerms(
        positive_correction=torch.from_numpy(own),
        column_correction=torch.from_numpy(columns),
        weight=torch.from_numpy(keys[WEIGHT].astype(np.float32)),
        masked=_masked(data, model, item_index, keys[USER_INDEX], column_items),
        temperature=model.temperature,
        logits_rows=logits_rows,
    )
    return Batch(user, items, terms)


def _masked(
    data: TrainData, model: Model, item_index: IntArray, user_index: npt.NDArray[np.int32], column_items: IntArray
) -> MaskedPairs:
    own_rows = np.arange(len(item_index), dtype=np.int64)
    pairs = [diagonal_pairs(len(item_index) if model.in_batch else 0)]
    if model.collision_mask:
        pairs.append(matching_pairs(own_rows, item_index, column_items))
    if model.user_positive_mask:
        known = data.known_items(user_index)
        pairs.append(matching_pairs(np.repeat(own_rows, known.lengths), known.items, column_items))
    return union_of(*pairs)
