"""The negatives of a batch: who they are, with what probability each came, and for which rows it does not count.

Belongs here: putting own items, sampled, queued and hard negatives of a batch together. Does not belong here: the draws
(`core/models/samplers`), finding cells (`core/models/losses/masks`) and the order of samples (`batches`).

Columns of the logits, in this order: the batch's own items (with in_batch), the sampled, the queued. Hard negatives are
no columns: each counts for one row.

Letters: B rows, N sampled, Q queued, H hard negatives, C columns, I items, U users.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.model_config import Model
from dssm_assets.core.models.bags import IntArray
from dssm_assets.core.models.losses.log_q import log_expected_counts
from dssm_assets.core.models.losses.masks import MaskedPairs, diagonal_pairs, matching_pairs, of_members, union_of
from dssm_assets.core.models.losses.terms import LossTerms
from dssm_assets.core.models.samplers.hard import HardDraw, HardSampler
from dssm_assets.core.models.samplers.queue import queued_items
from dssm_assets.core.training.train_data import KnownItems, TrainData

Users = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Negatives:
    """Negatives of one batch.

    Attributes:
        sampled: item indices [N].
        hard: item indices, each for one row [H].
        terms: what the loss needs to know of them.
    """

    sampled: IntArray
    hard: IntArray
    terms: LossTerms


@dataclass(frozen=True)
class NegativeRule:
    """How the negatives of an epoch come.

    Attributes:
        data: the corpus, what users took, and what they were shown.
        model: sampler, numbers, corrections and masks.
        logits_rows: rows of logits that the loss holds at once.
        share: of each item among the samples that are trained on [I].
        user_ends: where the events end that are known of each user; None: where they end [U].
        end_day: what users took or were shown from this day on is not known.
    """

    data: TrainData
    model: Model
    logits_rows: int
    share: npt.NDArray[np.float64]
    user_ends: IntArray | None
    end_day: int

    def sampled(self, rng: np.random.Generator) -> tuple[IntArray, npt.NDArray[np.float64]]:
        """Returns the batch's sampled negatives [N] and the probability of each."""
        return self.data.sampler(self.model, self.end_day).draw(self.model.num_sample, rng)

    def of(
        self,
        item_index: IntArray,
        user_index: Users,
        sampled: tuple[IntArray, npt.NDArray[np.float64]],
        *,
        weight: npt.NDArray[np.float32],
        queued: npt.NDArray[np.int32],
        rng: np.random.Generator,
        rows: IntArray | None = None,
    ) -> Negatives:
        """Returns the negatives of a batch.

        Args:
            item_index: the rows' own items [B].
            user_index: the rows' users, -1 for an unknown one [B].
            sampled: what `sampled` returned.
            weight: of the rows in the loss [B].
            queued: own items of the batches before [Q].
            rng: draws the hard negatives, the same whatever `rows`.
            rows: those, ascending, that the terms and the hard negatives are to be of, numbered from 0; None: all [b].
        """
        rows = np.arange(len(item_index), dtype=np.int64) if rows is None else rows
        model, logq = self.model, self.model.logq
        items, probability = sampled
        own = log_expected_counts(self.share[item_index], len(item_index), logq)
        columns, corrections = [items], [log_expected_counts(probability, len(items), logq)]
        if model.in_batch:
            later, later_probability = queued_items(queued, self.share)
            columns = [item_index, items, later]
            corrections = [own, *corrections, log_expected_counts(later_probability, len(later), logq)]
        else:
            own = log_expected_counts(self.data.sampler(model, self.end_day).probability[item_index], model.num_sample, logq)
        hard = self._hard(item_index, user_index, rows, rng)
        terms = LossTerms(
            positive_correction=torch.from_numpy(own[rows]),
            column_correction=torch.from_numpy(np.concatenate(corrections)),
            weight=torch.from_numpy(weight[rows]),
            masked=self._masked(item_index[rows], user_index[rows], np.concatenate(columns), rows),
            logits_rows=self.logits_rows,
            hard_rows=hard.rows,
            hard_correction=torch.from_numpy(log_expected_counts(hard.probability, 1, logq)),
        )
        return Negatives(items, hard.items, terms)

    def _hard(self, item_index: IntArray, user_index: Users, rows: IntArray, rng: np.random.Generator) -> HardDraw:
        sampler = self.data.sampler(self.model, self.end_day)
        if not self.model.has_hard_negatives or not isinstance(sampler, HardSampler):
            return HardDraw.nothing()
        drawn = sampler.draw_hard(user_index, self.model.num_hard_sample, rng)
        if len(rows) < len(item_index):
            drawn = drawn.where(np.isin(drawn.rows, rows))
        is_kept = drawn.days < self.end_day
        if self.model.collision_mask:
            is_kept &= drawn.items != item_index[drawn.rows]
        if self.model.masks_user_positives:
            known = self._known(user_index[drawn.rows])
            cells = matching_pairs(_rows_of(known), known.items, drawn.items)
            is_kept[cells.rows[cells.rows == cells.columns]] = False
        kept = drawn.where(is_kept)
        return replace(kept, rows=np.searchsorted(rows, kept.rows))

    def _masked(self, item_index: IntArray, user_index: Users, column_items: IntArray, rows: IntArray) -> MaskedPairs:
        own_rows = np.arange(len(item_index), dtype=np.int64)
        diagonal = diagonal_pairs(len(item_index) if self.model.in_batch else 0)
        pairs = [MaskedPairs(diagonal.rows, rows[diagonal.columns])]
        if self.model.collision_mask:
            pairs.append(matching_pairs(own_rows, item_index, column_items))
        if self.model.masks_user_positives:
            users, user = np.unique(user_index, return_inverse=True)  # a batch may hold many samples of one
            known = self._known(users)
            cells = matching_pairs(_rows_of(known), known.items, column_items)
            pairs.append(of_members(cells, user.reshape(-1), len(users)))
        return union_of(*pairs)

    def _known(self, user_index: Users) -> KnownItems:
        return self.data.known_items(user_index, self.user_ends)


def _rows_of(known: KnownItems) -> IntArray:
    return np.repeat(np.arange(len(known.lengths), dtype=np.int64), known.lengths)
