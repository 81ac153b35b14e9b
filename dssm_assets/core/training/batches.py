"""Batches: which samples form a batch, in which order, and the input of the towers and the loss.

Belongs here: `Batch`, `Epoch`. Does not belong here: reading rows (`data`), the choice of negatives (`batch_negatives`),
learning from a batch (`trainer`).

The batches of an epoch are numbered and each draws from its own generator, so an epoch can be resumed at any batch.

Letters: B samples of a batch, V sessions, N sampled, Q queued, H hard negatives, D vector width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray, ranges
from dssm_assets.core.columns import USER_ROW, WEIGHT
from dssm_assets.core.config.model import History, ItemSnapshot, Model
from dssm_assets.core.config.training import Training, batches_per_epoch
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.losses.loss_terms import LossTerms
from dssm_assets.core.models.samplers.queue import queued_slice
from dssm_assets.core.models.tower_input import TowerInput, concatenate_rows, hide_features
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec
from dssm_assets.core.samples.sample_tables import DAY, HISTORY_END, ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.batch_negatives import NegativeRule
from dssm_assets.core.training.data import HistoryRule, TrainData
from dssm_assets.core.training.distinct_items import ItemSide, merge_items

SESSION_KEYS = (USER_INDEX, USER_ROW, HISTORY_END)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One step's input.

    Attributes:
        user: rows of the user tower: one per sample [B], or one per session [V].
        items: rows of the item tower: the samples' own items [B], the sampled negatives [N], the hard negatives [H].
        terms: what the loss needs in addition to the vectors.
        item_index: the items of the first B + N rows of `items`.
        user_of: which row of `user` is each sample's [B]; None: row k is sample k's.
        num_hard: H.
        num_queued: Q. The last Q columns are the own items of earlier batches of this epoch, oldest first.
    """

    user: TowerInput
    items: TowerInput
    terms: LossTerms
    item_index: IntArray
    user_of: IntArray | None = None
    num_hard: int = 0
    num_queued: int = 0

    def __len__(self) -> int:
        return len(self.terms.weight)

    def item_side(self, model: Model) -> ItemSide:
        """Returns the input of the item tower, with equal items merged where the model section allows it."""
        return merge_items(self.items, self.item_index, self.terms, model)

    def positives(self, own_items: Tensor) -> Tensor:
        """Returns the item vector of each of this process's samples [B, D], chosen from those of the whole batch."""
        return own_items

    def part_of_loss(self, loss: Tensor) -> Tensor:
        """Returns this process's part of the batch's loss, from the mean over its samples. The parts sum to the loss."""
        return loss


class Epoch:
    """The samples of an epoch in their order."""

    def __init__(
        self, data: TrainData, order: IntArray, model: Model, training: Training, window_shifts: IntArray | None = None
    ) -> None:
        """Prepares what all batches share.

        Args:
            order: the samples of the epoch, first to last.
            window_shifts: of each user [U], with `training.group_users`; None: without.
        """
        self._data, self._order, self._model, self._size = data, order, model, training.batch_size
        # One user vector serves a session only if its samples cannot differ in what the user tower reads.
        self._by_session = (
            training.group_sessions
            and model.history is not History.LEAVE_ONE_OUT
            and not data.spec.features_of(TowerSide.CONTEXT)
        )
        self._context = _context_positions(data.spec)
        is_whole = len(order) == data.num_samples
        end_day = data.num_days if is_whole else 1 + int(data.read_key(DAY, order).max())
        needs_ends = model.history is History.LEAVE_ONE_OUT or model.masks_user_positives
        ends = data.user_ends(data.first_time_ms(end_day)) if needs_ends and end_day < data.num_days else None
        self._history_rule = HistoryRule(model.history, model.history_cut, ends, window_shifts)
        item_frac = data.item_frac
        if not is_whole:
            item_frac = np.bincount(data.read_key(ITEM_INDEX, order), minlength=data.num_items) / len(order)
        self._negatives = NegativeRule(data, model, training.logits_chunk_rows, item_frac, ends, end_day)

    def read_batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Returns a batch by its number."""
        data, model = self._data, self._model
        rows = self._order[step * self._size : (step + 1) * self._size]
        keys = data.read_keys(rows)
        sampled = self._negatives.draw_sampled(rng)
        user, user_of = self._read_user_side(rows, keys, rng)
        queued = data.read_key(ITEM_INDEX, self._order[queued_slice(step, self._size, model.queue_batches)])
        negatives = self._negatives.negatives_for(
            keys[ITEM_INDEX].astype(np.int64),
            keys[USER_INDEX],
            sampled,
            weight=keys[WEIGHT].astype(np.float32),
            queued=queued,
            rng=rng,
        )
        is_corpus = model.item_snapshot is ItemSnapshot.CORPUS
        own = data.read_items(keys[ITEM_INDEX]) if is_corpus else data.read_sample_items(rows)
        others = data.read_items(np.concatenate([negatives.sampled, negatives.hard]))
        item_index = np.concatenate([keys[ITEM_INDEX], negatives.sampled])
        cold = draw_cold_items(item_index, model.cold_item_frac, rng)
        of_rows = np.concatenate([item_index, negatives.hard])
        return Batch(
            user=user,
            items=make_cold(data, concatenate_rows(own, others), np.isin(of_rows, cold)),
            terms=negatives.terms,
            item_index=item_index,
            user_of=user_of,
            num_hard=len(negatives.hard),
            num_queued=len(queued),
        )

    def _read_user_side(
        self, rows: IntArray, keys: dict[str, npt.NDArray[Any]], rng: np.random.Generator
    ) -> tuple[TowerInput, IntArray | None]:
        """Returns the user tower's input, and which row of it is each sample's (None: row k is sample k's)."""
        if not self._by_session:
            is_hidden = rng.random(len(rows)) < self._model.context_dropout
            user = self._data.read_user_side(rows, keys, self._history_rule, rng)
            return hide_features(user, is_hidden, *self._context), None
        first, session = find_sessions(keys)
        session_keys = {name: values[first] for name, values in keys.items()}
        return self._data.read_user_side(rows[first], session_keys, self._history_rule, rng), session


def epoch_batches(
    data: TrainData,
    rows: IntArray,
    *,
    model: Model,
    training: Training,
    seed: int,
    epoch: int,
    first: int = 0,
    new_epoch: Callable[[TrainData, IntArray, Model, Training, IntArray | None], Epoch] = Epoch,
) -> Iterator[Batch]:
    """Yields every sample once, in an order that depends on seed and epoch alone. The last batch may be smaller.

    With `epoch_frac` below 1 it ends after that fraction of the samples.

    Where the samples end before the window does, the later days are unknown: to the histories of
    `History.LEAVE_ONE_OUT`, to the masks of known positives, and to hard negatives.

    Args:
        epoch: from 0.
        first: number of the first batch to yield; earlier batches are not read.
        new_epoch: builds the epoch from the samples in their order.

    Raises:
        SchemaError: there is no sample.
    """
    if not len(rows):
        remedy = "lower model.min_history, or choose a window with positive events"
        raise SchemaError(Fault("samples to train on", "at least one", "none", remedy))
    rng = np.random.default_rng([seed, epoch, 0])
    shifts = _window_shifts(data, model, training, rng)
    order = _shuffle(data, rows, training, shifts, rng)
    samples = new_epoch(data, order, model, training, shifts)
    for step in range(first, batches_per_epoch(len(rows), training)):
        yield samples.read_batch(step, np.random.default_rng([seed, epoch, 1 + step]))


def draw_cold_items(items: IntArray, frac: float, rng: np.random.Generator) -> IntArray:
    """Returns the distinct items of a batch that are to look like items without an event: each with this probability.

    An item is cold in all rows of the batch or in none, so that equal columns stay equal.
    """
    if not frac:
        return np.zeros(0, np.int64)
    distinct = np.unique(items)
    return distinct[rng.random(len(distinct)) < frac].astype(np.int64)


def make_cold(data: TrainData, items: TowerInput, is_cold: npt.NDArray[np.bool_]) -> TowerInput:
    """Returns a copy in which some rows have the features of an item without an event; multi-valued ones stay.

    Args:
        items: rows of the item tower [n]; not changed.
        is_cold: bool [n].
    """
    if not is_cold.any():
        return items
    values = data.cold_values
    hidden = is_cold[:, None] & (values >= 0)[None]
    return replace(items, singles=np.where(hidden, values[None], items.singles))


def find_sessions(keys: Mapping[str, npt.NDArray[Any]]) -> tuple[IntArray, IntArray]:
    """Returns the first sample of each session [V] and the session of each sample [B].

    A session is all samples of one user with one history. Sessions are numbered by `SESSION_KEYS`. A user without an index
    has no history and is identified by its feature row alone.

    Args:
        keys: the columns `SESSION_KEYS` of the samples.
    """
    columns = [keys[name] for name in SESSION_KEYS]
    order = np.lexsort(columns)  # stable: a session's first sample comes first
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    session = np.empty(len(order), np.int64)
    session[order] = np.cumsum(is_new) - 1
    return order[is_new].astype(np.int64), session


def shuffle_sessions(session: IntArray, rng: np.random.Generator) -> IntArray:
    """Returns the samples in a random order of their sessions; each session's samples stay together, in their own order.

    Args:
        session: of each sample; every number from 0 on occurs [n].
    """
    by_session = np.argsort(session, kind="stable")
    ends = np.cumsum(np.bincount(session))
    shuffled = rng.permutation(len(ends))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    return by_session[ranges(starts[shuffled], (ends - starts)[shuffled])]


def find_windows(data: TrainData, keys: Mapping[str, npt.NDArray[Any]], shifts: IntArray) -> IntArray:
    """Returns the window of each sample, numbered from 0 [B]; a sample without history is a window of its own."""
    length = max(view.pooling.length for view in data.spec.sequence_views)
    firsts = data.window_starts(keys, shifts, length)
    firsts = np.where(firsts < 0, -1 - np.arange(len(firsts)), firsts)
    return np.unique(firsts, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _window_shifts(data: TrainData, model: Model, training: Training, rng: np.random.Generator) -> IntArray | None:
    """Returns the shift of each user's windows in this epoch [U]; None where samples do not share passes."""
    if not training.group_users or not data.spec.sequence_views or model.history is History.LEAVE_ONE_OUT:
        return None
    return rng.integers(0, 1 << 31, len(data.user_starts))


def _shuffle(
    data: TrainData, rows: IntArray, training: Training, shifts: IntArray | None, rng: np.random.Generator
) -> IntArray:
    if shifts is None and not training.group_sessions:
        return rng.permutation(rows)
    names = SESSION_KEYS if shifts is None else (USER_INDEX, HISTORY_END)
    keys = {name: data.read_key(name, rows) for name in names}
    groups = find_sessions(keys)[1] if shifts is None else find_windows(data, keys, shifts)
    return rows[shuffle_sessions(groups, rng)]


def _context_positions(spec: TowerSpec) -> tuple[list[int], list[int]]:
    """Returns the positions of the context features among the user tower's single-valued and multi-valued features."""
    features = spec.features_of(TowerSide.USER, TowerSide.CONTEXT)
    singles = [f for f in features if not f.is_multi]
    multis = [f for f in features if f.is_multi]
    return (
        [k for k, f in enumerate(singles) if f.side is TowerSide.CONTEXT],
        [k for k, f in enumerate(multis) if f.side is TowerSide.CONTEXT],
    )
