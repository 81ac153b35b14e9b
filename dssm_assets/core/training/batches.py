"""Batches: which samples come together, which negatives they share, and what the loss needs to know about them.

Belongs here: order, context dropout and what a batch is. Does not belong here: reading rows (`train_data`), the choice of
negatives (`negatives`) and learning from them (`loop`).

The batches of an epoch are numbered and each draws from its own generator, so an epoch can be entered at any of them.

Letters: B samples of a batch, N sampled, Q queued, H hard negatives, C columns of logits (B + N + Q; N without in-batch
negatives).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dssm_assets.core.arrays.ragged import IntArray, ranges
from dssm_assets.core.columns import USER_ROW, WEIGHT
from dssm_assets.core.config.model import History, Model
from dssm_assets.core.config.training import Training, batches_per_epoch
from dssm_assets.core.errors import Fault, SchemaError
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
from dssm_assets.core.models.samplers.queue import queued_items, queued_places
from dssm_assets.core.models.tower_input import TowerInput, concatenated, without_columns
from dssm_assets.core.models.tower_spec import Side, TowerSpec
from dssm_assets.core.samples.sample_tables import DAY, HISTORY_END, ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.data import KnownItems, SamplePast, TrainData

KEYS = (USER_INDEX, USER_ROW, HISTORY_END)


def session_of(keys: Mapping[str, npt.NDArray[Any]]) -> tuple[IntArray, IntArray]:
    """Returns the first sample of each visit [V] and the visit of each sample [B], visits by `KEYS`.

    A user without an index has no history, and is known by its row of features alone.

    Args:
        keys: the columns `KEYS` of the samples.
    """
    columns = [keys[name] for name in KEYS]
    order = np.lexsort(columns)  # stable: a visit's first sample comes first
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    visit = np.empty(len(order), np.int64)
    visit[order] = np.cumsum(is_new) - 1
    return order[is_new].astype(np.int64), visit


def session_order(visit: IntArray, rng: np.random.Generator) -> IntArray:
    """Returns the samples in a random order of their visits, each visit's samples in their own order, one after another.

    Args:
        visit: of each sample, every number from 0 on occurs [n].
        rng: decides the order.
    """
    by_session = np.argsort(visit, kind="stable")
    ends = np.cumsum(np.bincount(visit))
    chosen = rng.permutation(len(ends))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    places = ranges(starts[chosen], (ends - starts)[chosen])
    return by_session[places]


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
        logits_chunk_rows: rows of logits that the loss holds at once.
        share: of each item among the samples that are trained on [I].
        user_ends: where the events end that are known of each user; None: where they end [U].
        end_day: what users took or were shown from this day on is not known.
    """

    data: TrainData
    model: Model
    logits_chunk_rows: int
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
            logits_chunk_rows=self.logits_chunk_rows,
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
            pairs.append(expand_to_members(cells, user.reshape(-1), len(users)))
        return merge_pairs(*pairs)

    def _known(self, user_index: Users) -> KnownItems:
        return self.data.known_items(user_index, self.user_ends)


def _rows_of(known: KnownItems) -> IntArray:
    return np.repeat(np.arange(len(known.lengths), dtype=np.int64), known.lengths)


@dataclass(frozen=True)
class ItemSide:
    """What the item tower reads and where its vectors go.

    Attributes:
        items: rows of the item tower, hard negatives last.
        own: which of them is each sample's own item [B].
        columns: which of them are columns of the logits; queued columns come behind.
        terms: of these columns.
    """

    items: TowerInput
    own: IntArray
    columns: slice
    terms: LossTerms


@dataclass(frozen=True)
class Share:
    """One process's part of a batch that several share: the user tower's input and the terms are of its samples alone.

    Attributes:
        rows: its samples, ascending [b].
        count: B, samples of the whole batch.
        weight: of the whole batch in the loss, summed.
        side: its rows of the item tower: every W-th of M that all processes share, then its own hard negatives; places are
            among the M and the hard negatives behind them.
        num_items: M.
    """

    rows: IntArray
    count: int
    weight: float
    side: ItemSide
    num_items: int


@dataclass(frozen=True)
class Batch:
    """One step's input.

    Attributes:
        user: rows of the user tower: one per sample [B], or one per visit.
        items: B + N + H rows of the item tower: the samples' own items, the sampled, the hard negatives.
        terms: what the loss needs beside the vectors.
        item_index: the items of the first B + N rows of `items`.
        user_of: which row of `user` is each sample's [B]; None: its own.
        num_hard: H.
        num_queued: Q: the last so many own items of the batches before in this epoch are the last columns, oldest first.
        share: of a batch that several processes share, what this one's part is; None: all of it.
    """

    user: TowerInput
    items: TowerInput
    terms: LossTerms
    item_index: IntArray
    user_of: IntArray | None = None
    num_hard: int = 0
    num_queued: int = 0
    share: Share | None = None

    def __len__(self) -> int:
        return len(self.terms.weight) if self.share is None else self.share.count


def epoch_batches(
    data: TrainData,
    rows: IntArray,
    *,
    model: Model,
    training: Training,
    seed: int,
    epoch: int,
    first: int = 0,
    made_by: Callable[[TrainData, IntArray, Model, Training], Epoch] | None = None,
) -> Iterator[Batch]:
    """Yields every one of the samples once, in an order that seed and epoch alone decide; the last batch may be smaller.

    With `epoch_frac` below 1 it ends after that share of them.

    Where the samples end before the window does, nothing of the later days is known: not in the histories of
    `History.LEAVE_ONE_OUT`, not among known positives, not among hard negatives.

    Args:
        data: the window.
        rows: the samples that are trained on.
        model: histories, negatives, corrections and masks.
        training: batch_size and logits_chunk_rows.
        seed: of the whole training.
        epoch: from 0.
        first: number of the first batch that is wanted; those before are not made.
        made_by: makes the batches of samples in their order; None: `Epoch`, which makes them whole.

    Raises:
        SchemaError: there is no sample.
    """
    if not len(rows):
        remedy = "lower model.min_history, or choose a window with positive events"
        raise SchemaError(Fault("samples to train on", "at least one", "none", remedy))
    order = _order(data, rows, training, np.random.default_rng([seed, epoch, 0]))
    epoch_of = (made_by or Epoch)(data, order, model, training)
    for step in range(first, batches_per_epoch(len(rows), training)):
        yield epoch_of.batch(step, np.random.default_rng([seed, epoch, 1 + step]))


class Epoch:
    """The samples of an epoch in their order."""

    def __init__(self, data: TrainData, order: IntArray, model: Model, training: Training) -> None:
        self._data, self._order, self._model, self._size = data, order, model, training.batch_size
        # What samples of one visit differ in may not matter to the user tower.
        self._by_session = (
            training.group_sessions and model.history is not History.LEAVE_ONE_OUT and not data.spec.of(Side.CONTEXT)
        )
        self._context = _context_places(data.spec)
        is_whole = len(order) == data.num_samples
        end_day = data.num_days if is_whole else 1 + int(data.read_key(DAY, order).max())
        needs_ends = model.history is History.LEAVE_ONE_OUT or model.masks_user_positives
        ends = data.user_ends(data.first_time_ms(end_day)) if needs_ends and end_day < data.num_days else None
        self._past = SamplePast(model.history, model.history_cut, ends)
        share = data.item_share if is_whole else _share(data.read_key(ITEM_INDEX, order), data.num_items)
        self._negatives = NegativeRule(data, model, training.logits_chunk_rows, share, ends, end_day)

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Returns a batch by its number."""
        data, model = self._data, self._model
        rows = self._order[step * self._size : (step + 1) * self._size]
        keys = data.read_keys(rows)
        sampled = self._negatives.sampled(rng)
        user, user_of = self._user_side(rows, keys, rng)
        queued = data.read_key(ITEM_INDEX, self._order[queued_places(step, self._size, model.queue_batches)])
        negatives = self._negatives.of(
            keys[ITEM_INDEX].astype(np.int64),
            keys[USER_INDEX],
            sampled,
            weight=keys[WEIGHT].astype(np.float32),
            queued=queued,
            rng=rng,
        )
        others = data.read_items(np.concatenate([negatives.sampled, negatives.hard]))
        return Batch(
            user=user,
            items=concatenated(data.read_sample_items(rows), others),
            terms=negatives.terms,
            item_index=np.concatenate([keys[ITEM_INDEX], negatives.sampled]),
            user_of=user_of,
            num_hard=len(negatives.hard),
            num_queued=len(queued),
        )

    def _user_side(
        self, rows: IntArray, keys: dict[str, npt.NDArray[Any]], rng: np.random.Generator
    ) -> tuple[TowerInput, IntArray | None]:
        if not self._by_session:
            is_hidden = rng.random(len(rows)) < self._model.context_dropout
            user = self._data.read_user_side(rows, keys, self._past, rng)
            return without_columns(user, is_hidden, *self._context), None
        first, visit = session_of(keys)
        chosen = {name: values[first] for name, values in keys.items()}
        return self._data.read_user_side(rows[first], chosen, self._past, rng), visit


def _order(data: TrainData, rows: IntArray, training: Training, rng: np.random.Generator) -> IntArray:
    if not training.group_sessions:
        return rows[rng.permutation(len(rows))]
    _, visit = session_of({name: data.read_key(name, rows) for name in KEYS})
    return rows[session_order(visit, rng)]


def _share(item_index: npt.NDArray[np.int32], num_items: int) -> npt.NDArray[np.float64]:
    return np.asarray(np.bincount(item_index, minlength=num_items) / len(item_index))


def _context_places(spec: TowerSpec) -> tuple[list[int], list[int]]:
    """Returns where the context features lie among the user tower's single-valued and multi-valued features."""
    features = spec.of(Side.USER, Side.CONTEXT)
    singles = [f for f in features if not f.is_multi]
    multis = [f for f in features if f.is_multi]
    return (
        [k for k, f in enumerate(singles) if f.side is Side.CONTEXT],
        [k for k, f in enumerate(multis) if f.side is Side.CONTEXT],
    )
