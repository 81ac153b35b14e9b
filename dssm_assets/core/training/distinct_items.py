"""The item tower's part of a batch, with equal items merged.

Popular items occur several times among a batch's own items and the sampled ones; the tower and the loss need each only once.
Columns of the softmax that have the same vector and the corrections c_1 .. c_k equal one column with the correction
-log(exp(-c_1) + ... + exp(-c_k)), as long as masks treat them alike. They do: equal columns are of the same item, and every
mask depends on the item alone. So the loss and its gradients are unchanged, except that dropout is drawn once for all of
them.

Letters: B samples, N sampled negatives, n rows, M distinct ones, C columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.model import Loss, Model, Norm
from dssm_assets.core.models.losses.loss_terms import LossTerms, MaskedPairs
from dssm_assets.core.models.tower_input import TowerInput, select_rows, slice_rows

Fingerprints = npt.NDArray[np.uint64]

_FACTOR, _FOLD = 0x9E3779B97F4A7C15, 29


@dataclass(frozen=True)
class ItemSide:
    """What the item tower reads and where its vectors go.

    Attributes:
        items: rows of the item tower, hard negatives last.
        num_shared: number of rows before the hard negatives, over all processes that share the batch.
        own: which of these rows is each sample's own item [B].
        columns: which of these rows are columns of the logits; queued columns follow them.
        terms: loss terms of these columns.
    """

    items: TowerInput
    num_shared: int
    own: IntArray
    columns: slice
    terms: LossTerms


def merge_items(items: TowerInput, item_index: IntArray, terms: LossTerms, model: Model) -> ItemSide:
    """Returns the item side of a batch, equal columns merged where that leaves the loss unchanged.

    Args:
        items: rows of the samples' own items [B], of the sampled negatives [N], then of the hard negatives.
        item_index: the items of the first B + N rows.
        model: the loss, the item tower's norm, the masks.
    """
    count, end = len(terms.weight), len(item_index)
    begin = 0 if model.in_batch else count
    own = np.arange(count, dtype=np.int64)
    if not can_merge_items(model):
        return ItemSide(items, end, own, slice(begin, end), terms)
    first, group = find_equal_rows(slice_rows(items, begin, end), item_index[begin:])
    kept = np.concatenate([np.arange(begin), begin + first, np.arange(end, len(items))])
    return ItemSide(
        items=select_rows(items, kept),
        num_shared=begin + len(first),
        own=own if begin else group[:count],
        columns=slice(begin, begin + len(first)),
        terms=merge_columns(terms, group, len(first)),
    )


def can_merge_items(model: Model) -> bool:
    """Returns whether equal columns may be merged.

    A mean over columns or a batch norm over items depends on how often each item occurs. Without the
    collision mask a sample is compared with other columns of its own item, but not with its own column.
    """
    return model.loss is Loss.SOFTMAX and model.norm is not Norm.BATCH and model.collision_mask


def find_equal_rows(inputs: TowerInput, item_index: IntArray) -> tuple[IntArray, IntArray]:
    """Groups rows with the same item and the same values: returns the first row of each group, ascending [M], and the group
    of each row [n].

    Rows are compared by a fingerprint, which is then verified. If two different rows have the same fingerprint, every row
    is a group of its own.
    """
    columns = [item_index.astype(np.int64, copy=False), inputs.singles.astype(np.int64, copy=False)]
    parts = np.column_stack([*columns, *(_hash_bag_rows(bag).view(np.int64) for bag in inputs.bags)])
    # Each part has a factor of its own, so that swapping the values of two features changes the fingerprint.
    fingerprints = parts.view(np.uint64) @ _mix(_mix(np.arange(1, parts.shape[1] + 1, dtype=np.uint64)))
    _, first, group = np.unique(fingerprints, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    first, group = first[order], rank[group.reshape(-1)]
    if _are_equal(inputs, item_index, first[group]):
        return first, group
    every = np.arange(len(item_index), dtype=np.int64)
    return every, every


def merge_columns(terms: LossTerms, group: IntArray, count: int) -> LossTerms:
    """Returns the terms of the same loss in which column j has become column group[j].

    Args:
        group: of the first columns. The queued columns follow in their order.
    """
    merged = terms.column_correction[: len(group)].numpy().astype(np.float64)
    correction = -np.log(np.bincount(group, weights=np.exp(-merged), minlength=count))
    queued = terms.column_correction[len(group) :]
    column = np.concatenate([group, count + np.arange(len(queued), dtype=np.int64)])
    return replace(
        terms,
        column_correction=torch.cat([torch.from_numpy(correction.astype(np.float32)), queued]),
        masked=MaskedPairs(terms.masked.rows, column[terms.masked.columns]),
    )


def _mix(fingerprints: Fingerprints) -> Fingerprints:
    product = fingerprints * np.uint64(_FACTOR)
    return product ^ (product >> np.uint64(_FOLD))


def _hash_bag_rows(bag: Bags) -> Fingerprints:
    positions = np.arange(len(bag.values), dtype=np.int64) - np.repeat(bag.offsets[:-1], np.diff(bag.offsets))
    weights = np.ascontiguousarray(bag.weights).view(np.uint32).astype(np.uint64)
    values = _mix(_mix(bag.values.astype(np.uint64) | weights << np.uint64(32)) + positions.astype(np.uint64) + np.uint64(1))
    ends = np.concatenate([np.zeros(1, np.uint64), np.cumsum(values, dtype=np.uint64)])
    sums: Fingerprints = ends[bag.offsets[1:]] - ends[bag.offsets[:-1]]
    return sums


def _are_equal(inputs: TowerInput, item_index: IntArray, others: IntArray) -> bool:
    merged = np.flatnonzero(others != np.arange(len(others)))
    mine, theirs = select_rows(inputs, merged), select_rows(inputs, others[merged])
    if not np.array_equal(item_index, item_index[others]) or not np.array_equal(mine.singles, theirs.singles):
        return False
    return all(
        np.array_equal(a.offsets, b.offsets) and np.array_equal(a.values, b.values) and np.array_equal(a.weights, b.weights)
        for a, b in zip(mine.bags, theirs.bags, strict=True)
    )
