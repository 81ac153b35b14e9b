"""Chooses the negatives of a batch, corrects the logits for the draw, and masks cells of the logits.

Letters: B samples of a batch, b samples of this process, N sampled, H hard negatives, C columns, I items, U users.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.arrays.ordering import sort_with_positions
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges, repeat_rows
from dssm_assets.core.config.model import Model
from dssm_assets.core.models.losses import LossTerms, MaskedPairs
from dssm_assets.core.models.samplers import Draws, Floats, HardDraw, HardSampler
from dssm_assets.core.training.data import TrainData

Users = npt.NDArray[np.int32]


class NegativeRule:
    """The choice of negatives in an epoch."""

    def __init__(self, data: TrainData, model: Model, item_frac: Floats, user_ends: IntArray, end_day: int) -> None:
        """Builds the sampler.

        Args:
            data: the corpus, and the users' interactions and exposures.
            item_frac: share of each item among the training samples [I].
            user_ends: end of each user's known events [U].
            end_day: interactions and exposures from this day on are unknown.
        """
        self._data, self._model, self._item_frac = data, model, item_frac
        self._user_ends, self._end_day, self._sampler = user_ends, end_day, data.sampler(model, end_day)

    def draw_sampled(self, rng: np.random.Generator) -> Draws:
        """Returns the sampled negatives of a batch."""
        return self._sampler.draw(self._model.num_sample, rng)

    def negatives_for(
        self,
        item_index: IntArray,
        user_index: Users,
        sampled: Draws,
        *,
        weight: npt.NDArray[np.float32],
        rng: np.random.Generator,
        rows: IntArray,
    ) -> tuple[IntArray, LossTerms]:
        """Returns the hard negatives of a batch, and the terms of its loss.

        Args:
            item_index: the samples' own items [B].
            user_index: the samples' users [B]; -1 for an unknown user.
            sampled: result of `draw_sampled`.
            weight: weight of each sample in the loss [B].
            rng: draws the hard negatives; the draw does not depend on `rows`.
            rows: this process's samples, ascending [b]. The result is for these samples, renumbered from 0.
        """
        logq, (items, probability) = self._model.logq, sampled
        own = log_expected_counts(self._item_frac[item_index], len(item_index), logq)
        columns, corrections = [items], [log_expected_counts(probability, len(items), logq)]
        if self._model.in_batch:
            columns, corrections = [item_index, items], [own, *corrections]
        else:
            own = log_expected_counts(self._sampler.probability[item_index], len(items), logq)
        hard = self._draw_hard(item_index, user_index, rows, rng)
        terms = LossTerms(
            positive_correction=torch.from_numpy(own[rows]),
            column_correction=torch.from_numpy(np.concatenate(corrections)),
            weight=torch.from_numpy(weight[rows]),
            masked=self._masked_pairs(item_index[rows], user_index[rows], np.concatenate(columns), rows),
            hard_rows=hard.rows,
            hard_correction=torch.from_numpy(log_expected_counts(hard.probability, 1, logq)),
        )
        return hard.items, terms

    def _draw_hard(self, item_index: IntArray, user_index: Users, rows: IntArray, rng: np.random.Generator) -> HardDraw:
        """Draws hard negatives of these samples, without masked items and without exposures from `end_day` on."""
        if not self._model.has_hard_negatives or not isinstance(self._sampler, HardSampler):
            return HardDraw.empty()
        drawn = self._sampler.edges.draw(user_index, self._model.num_hard_sample, rng)
        drawn = drawn.keep(np.isin(drawn.rows, rows))
        is_kept = (drawn.days < self._end_day) & (drawn.items != item_index[drawn.rows])
        if self._model.masks_user_positives:
            cells = self._known_cells(user_index[drawn.rows], drawn.items)
            is_kept[cells.rows[cells.rows == cells.columns]] = False
        kept = drawn.keep(is_kept)
        return replace(kept, rows=np.searchsorted(rows, kept.rows))

    def _masked_pairs(self, item_index: IntArray, user_index: Users, column_items: IntArray, rows: IntArray) -> MaskedPairs:
        """Returns the cells of the logits [b, B + N] that are no negatives: the row's own item, and items its user knows."""
        own_rows = np.arange(len(item_index), dtype=np.int64)
        pairs = [matching_pairs(own_rows, item_index, column_items)]
        if self._model.masks_user_positives:
            users, user = np.unique(user_index, return_inverse=True)  # a batch may have many samples of one user
            pairs.append(expand_to_members(self._known_cells(users, column_items), user.reshape(-1), len(users)))
        return merge_pairs(*pairs)

    def _known_cells(self, user_index: Users, column_items: IntArray) -> MaskedPairs:
        items, lengths = self._data.known_items(user_index, self._user_ends)
        return matching_pairs(repeat_rows(lengths), items, column_items)


def matching_pairs(rows: IntArray, items: IntArray, column_items: IntArray) -> MaskedPairs:
    """Returns every (row, column) with the same item.

    Args:
        rows: row of each entry, ascending.
        items: item index of each entry.
        column_items: item index of each column [C], not negative. A negative index in `items` matches nothing.
    """
    # Looked up in a table over item indices instead of a binary search, because most entries match no column.
    no_item = int(max(column_items.max(initial=-1), items.max(initial=-1))) + 1
    columns_per_item = np.bincount(column_items, minlength=no_item + 1)
    ends = np.cumsum(columns_per_item)
    known = np.where(items < 0, no_item, items)
    matching = np.flatnonzero(columns_per_item[known])
    last = ends[known[matching]]
    first = last - columns_per_item[known[matching]]
    positions = ranges(first, last - first)
    return MaskedPairs(np.repeat(rows[matching], last - first), sort_with_positions(column_items)[1][positions])


def expand_to_members(cells: MaskedPairs, group: IntArray, count: int) -> MaskedPairs:
    """Gives each row the cells of its group.

    Example: group 0 has the cell (0, 5), group 1 the cells (1, 7) and (1, 8). Rows in the groups 1, 0, 1 get the cells (0, 7),
    (0, 8), (1, 5), (2, 7), (2, 8).

    Args:
        cells: (group, column) pairs, sorted by group.
        group: group of each row [B].
        count: number of groups.
    """
    bounds = offsets_of(np.bincount(cells.rows, minlength=count))
    lengths = np.diff(bounds)[group]
    return MaskedPairs(repeat_rows(lengths), cells.columns[ranges(bounds[group], lengths)])


def merge_pairs(*pairs: MaskedPairs) -> MaskedPairs:
    """Joins several sets of masked cells and sorts the result by row."""
    rows = np.concatenate([pair.rows for pair in pairs])
    order = np.argsort(rows, kind="stable")
    return MaskedPairs(rows[order], np.concatenate([pair.columns for pair in pairs])[order])


def log_expected_counts(probability: Floats, draws: int, strength: float) -> npt.NDArray[np.float32]:
    """Returns strength * log(draws * probability) per column: the logQ correction of columns from one sampler.

    Args:
        probability: probability of each column's item, positive unless the strength is 0.
        draws: number of columns from this sampler.
        strength: 1 corrects fully, 0 not at all.
    """
    if strength == 0:
        return np.zeros(len(probability), np.float32)
    return (strength * np.log(draws * probability)).astype(np.float32)


def merge_columns(terms: LossTerms, group: IntArray, count: int) -> LossTerms:
    """Merges columns with equal items. The returned terms give the same loss.

    Args:
        group: new number, below `count`, of each column.
    """
    merged = terms.column_correction.numpy().astype(np.float64)
    correction = -np.log(np.bincount(group, weights=np.exp(-merged), minlength=count))
    return replace(
        terms,
        column_correction=torch.from_numpy(correction.astype(np.float32)),
        masked=MaskedPairs(terms.masked.rows, group[terms.masked.columns]),
    )
