"""The negatives of a batch: which are drawn, how logits are corrected for the draw, which cells of the logits are masked.

Letters: B samples of a batch, b of them of this process, N sampled, Q queued, H hard negatives, I items, U users.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.arrays.ragged import IntArray, repeat_rows
from dssm_assets.core.config.model import Model
from dssm_assets.core.models.losses.loss_terms import (
    LossTerms,
    MaskedPairs,
    diagonal_pairs,
    expand_to_members,
    log_expected_counts,
    matching_pairs,
    merge_pairs,
)
from dssm_assets.core.models.samplers.hard import HardDraw, HardSampler
from dssm_assets.core.training.data import KnownItems, TrainData

Users = npt.NDArray[np.int32]
Sampled = tuple[IntArray, npt.NDArray[np.float64]]
"""Item indices of the sampled negatives and the probability of each [N]."""


@dataclass(frozen=True)
class Negatives:
    """Negatives of one batch.

    Attributes:
        sampled: item indices [N].
        hard: item indices, each of them for one sample [H].
        terms: what the loss needs to know about them.
    """

    sampled: IntArray
    hard: IntArray
    terms: LossTerms


@dataclass(frozen=True)
class NegativeRule:
    """How an epoch chooses negatives.

    Attributes:
        data: the corpus, the users' interactions, and what they were shown.
        model: sampler, numbers, corrections and masks.
        item_frac: share of each item among the samples that are trained on [I].
        user_ends: where each user's known events end [U]; None: all are known.
        end_day: interactions and exposures from this day on are unknown.
    """

    data: TrainData
    model: Model
    item_frac: npt.NDArray[np.float64]
    user_ends: IntArray | None
    end_day: int

    def draw_sampled(self, rng: np.random.Generator) -> Sampled:
        """Returns the sampled negatives of a batch."""
        return self.data.sampler(self.model, self.end_day).draw(self.model.num_sample, rng)

    def negatives_for(
        self,
        item_index: IntArray,
        user_index: Users,
        sampled: Sampled,
        *,
        weight: npt.NDArray[np.float32],
        queued: npt.NDArray[np.int32],
        rng: np.random.Generator,
        rows: IntArray,
    ) -> Negatives:
        """Returns the negatives of a batch.

        Args:
            item_index: the samples' own items [B].
            user_index: the samples' users, -1 for an unknown one [B].
            sampled: from `draw_sampled`.
            weight: of the samples in the loss [B].
            queued: own items of the batches before [Q].
            rng: draws the hard negatives. It draws the same whatever `rows` is.
            rows: the samples that terms and hard negatives are for, ascending [b]; they number them from 0.
        """
        model, logq = self.model, self.model.logq
        items, probability = sampled
        own = log_expected_counts(self.item_frac[item_index], len(item_index), logq)
        columns, corrections = [items], [log_expected_counts(probability, len(items), logq)]
        if model.in_batch:
            # In a random order, an item's fraction of the samples is its probability in the queue, too.
            columns = [item_index, items, queued.astype(np.int64)]
            corrections = [own, *corrections, log_expected_counts(self.item_frac[queued], len(queued), logq)]
        else:
            own = log_expected_counts(self.data.sampler(model, self.end_day).probability[item_index], len(items), logq)
        hard = self._draw_hard(item_index, user_index, rows, rng)
        terms = LossTerms(
            positive_correction=torch.from_numpy(own[rows]),
            column_correction=torch.from_numpy(np.concatenate(corrections)),
            weight=torch.from_numpy(weight[rows]),
            masked=self._masked_pairs(item_index[rows], user_index[rows], np.concatenate(columns), rows),
            hard_rows=hard.rows,
            hard_correction=torch.from_numpy(log_expected_counts(hard.probability, 1, logq)),
        )
        return Negatives(items, hard.items, terms)

    def _draw_hard(self, item_index: IntArray, user_index: Users, rows: IntArray, rng: np.random.Generator) -> HardDraw:
        """Returns hard negatives of these samples that are known and not masked."""
        sampler = self.data.sampler(self.model, self.end_day)
        if not self.model.has_hard_negatives or not isinstance(sampler, HardSampler):
            return HardDraw.empty()
        drawn = sampler.draw_hard(user_index, self.model.num_hard_sample, rng)
        if len(rows) < len(item_index):
            drawn = drawn.keep(np.isin(drawn.rows, rows))
        is_kept = (drawn.days < self.end_day) & (drawn.items != item_index[drawn.rows])
        if self.model.masks_user_positives:
            known = self._known_items(user_index[drawn.rows])
            cells = matching_pairs(_user_of(known), known.items, drawn.items)
            is_kept[cells.rows[cells.rows == cells.columns]] = False
        kept = drawn.keep(is_kept)
        return replace(kept, rows=np.searchsorted(rows, kept.rows))

    def _masked_pairs(self, item_index: IntArray, user_index: Users, column_items: IntArray, rows: IntArray) -> MaskedPairs:
        """Returns the cells of the logits [b, B + N + Q] that are no negatives."""
        own_rows = np.arange(len(item_index), dtype=np.int64)
        diagonal = diagonal_pairs(len(item_index) if self.model.in_batch else 0)
        pairs = [MaskedPairs(diagonal.rows, rows[diagonal.columns]), matching_pairs(own_rows, item_index, column_items)]
        if self.model.masks_user_positives:
            users, user = np.unique(user_index, return_inverse=True)  # a batch may hold many samples of one user
            known = self._known_items(users)
            cells = matching_pairs(_user_of(known), known.items, column_items)
            pairs.append(expand_to_members(cells, user.reshape(-1), len(users)))
        return merge_pairs(*pairs)

    def _known_items(self, user_index: Users) -> KnownItems:
        return self.data.known_items(user_index, self.user_ends)


def _user_of(known: KnownItems) -> IntArray:
    return repeat_rows(known.lengths)
