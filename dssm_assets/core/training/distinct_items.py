"""The item tower's part of a batch, with items that it cannot tell apart taken together.

Popular items come several times among a batch's own items and the sampled ones, and the tower and the loss need see each
only once. Columns of the softmax that have the same vector and the corrections c_1 .. c_k are one column with the
correction -log(exp(-c_1) + ... + exp(-c_k)), as long as masks treat them alike: they are of the same item, and every mask
is a matter of the item. So the loss and its gradients are the same; only dropout is drawn once for all of them.

Belongs here: which rows are equal, and the columns and terms that are left. Does not belong here: what is in a batch
(`batches`), the tower and the loss.

Letters: B samples, N sampled negatives, n rows, M distinct ones, C columns.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges
from dssm_assets.core.config.model import Loss, Model, Norm
from dssm_assets.core.models.losses.loss_terms import LossTerms, MaskedPairs
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.training.batches import Batch, ItemSide

Words = npt.NDArray[np.uint64]

_FACTOR, _FOLD = 0x9E3779B97F4A7C15, 29


def item_side(batch: Batch, model: Model) -> ItemSide:
    """Returns the item side of a batch, equal columns taken together where that leaves the loss as it is."""
    if batch.share is not None:
        return batch.share.side
    count, end = len(batch), len(batch.item_index)
    begin = 0 if model.in_batch else count
    own = np.arange(count, dtype=np.int64)
    if not takes_together(model):
        return ItemSide(batch.items, own, slice(begin, end), batch.terms)
    first, kind = equal_rows(rows_of(batch.items, np.arange(begin, end)), batch.item_index[begin:])
    kept = np.concatenate([np.arange(begin), begin + first, np.arange(end, len(batch.items))])
    return ItemSide(
        items=rows_of(batch.items, kept),
        own=own if begin else kind[:count],
        columns=slice(begin, begin + len(first)),
        terms=as_one_column(batch.terms, kind, len(first)),
    )


def takes_together(model: Model) -> bool:
    """Tells whether equal columns may be one.

    A mean over columns or a batch norm over items needs each as often as it comes; without the collision mask a sample
    meets other columns of its own item but not its own one.
    """
    return model.loss is Loss.SOFTMAX and model.norm is not Norm.BATCH and model.collision_mask


def equal_rows(inputs: TowerInput, item_index: IntArray) -> tuple[IntArray, IntArray]:
    """Returns the first row of each kind, ascending [M], and the kind of each row [n]: same item, same values.

    Rows are compared by a fingerprint, which is then checked; should two different rows have one, every row is a kind.
    """
    parts = [item_index.astype(np.uint64), *inputs.singles.T.astype(np.uint64), *map(_bag_words, inputs.bags)]
    words = np.zeros(len(item_index), np.uint64)
    for place, part in enumerate(parts):
        # Each part is spread in a way of its own, or a value here could stand for one there.
        words = _mixed(words + _mixed(part + np.uint64((place + 1) * _FACTOR % 2**64)))
    _, first, kind = np.unique(words, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first, kind = first[order], rank[kind.reshape(-1)]
    if _are_equal(inputs, item_index, first[kind]):
        return first, kind
    every = np.arange(len(item_index), dtype=np.int64)
    return every, every


def rows_of(inputs: TowerInput, rows: IntArray) -> TowerInput:
    """Returns these rows of an input without history."""
    return TowerInput(inputs.singles[rows], tuple(_bag_rows(bag, rows) for bag in inputs.bags))


def as_one_column(terms: LossTerms, kind: IntArray, count: int) -> LossTerms:
    """Returns the terms of the same loss where each of the first columns has become column kind[j].

    Args:
        terms: of C columns.
        kind: of the first columns; those behind (the queued) follow in their order.
        count: of kinds.
    """
    first = terms.column_correction[: len(kind)].numpy().astype(np.float64)
    together = -np.log(np.bincount(kind, weights=np.exp(-first), minlength=count))
    behind = terms.column_correction[len(kind) :]
    column = np.concatenate([kind, count + np.arange(len(behind), dtype=np.int64)])
    return replace(
        terms,
        column_correction=torch.cat([torch.from_numpy(together.astype(np.float32)), behind]),
        masked=MaskedPairs(terms.masked.rows, column[terms.masked.columns]),
    )


def _mixed(words: Words) -> Words:
    spread = words * np.uint64(_FACTOR)
    return spread ^ (spread >> np.uint64(_FOLD))


def _bag_words(bag: Bags) -> Words:
    places = np.arange(len(bag.values), dtype=np.int64) - np.repeat(bag.offsets[:-1], np.diff(bag.offsets))
    weights = np.ascontiguousarray(bag.weights).view(np.uint32).astype(np.uint64)
    values = _mixed(_mixed(bag.values.astype(np.uint64) | weights << np.uint64(32)) + places.astype(np.uint64) + np.uint64(1))
    ends = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    sums: Words = ends[bag.offsets[1:]] - ends[bag.offsets[:-1]]
    return sums


def _are_equal(inputs: TowerInput, item_index: IntArray, others: IntArray) -> bool:
    if not np.array_equal(item_index, item_index[others]) or not np.array_equal(inputs.singles, inputs.singles[others]):
        return False
    again = rows_of(inputs, others)
    return all(
        np.array_equal(a.offsets, b.offsets) and np.array_equal(a.values, b.values) and np.array_equal(a.weights, b.weights)
        for a, b in zip(inputs.bags, again.bags, strict=True)
    )


def _bag_rows(bag: Bags, rows: IntArray) -> Bags:
    starts, ends = bag.offsets[rows], bag.offsets[rows + 1]
    positions = ranges(starts, ends - starts)
    return replace(bag, values=bag.values[positions], offsets=offsets_of(ends - starts), weights=bag.weights[positions])
