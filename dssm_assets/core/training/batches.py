"""Makes batches: the order of an epoch's samples, and for each step the input of both towers and of the loss.

Batches are numbered, and each has its own random generator. So an epoch can be resumed at any batch.

Several processes draw the same batch, and each computes a part of it:

    user tower   every W-th sample; samples of one session, or of one window, go to the same process
    item tower   every W-th of the batch's distinct items, and the hard negatives of the process's own samples

A process reads the users, histories and hard negatives of its part alone. It reads the features of all items, because items
with equal features are computed once.

Letters: W processes, B samples of a batch, b samples of this process, V sessions, N sampled, H hard negatives, M rows
of the item tower that all processes share, D vector width.

Does not belong here: reading rows (`data`), the choice of negatives (`batch_negatives`), learning from a batch (`trainer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, number_values
from dssm_assets.core.columns import ITEM_ROW, USER_ROW, WEIGHT
from dssm_assets.core.config.model import History, ItemSnapshot, Loss, Model, Norm
from dssm_assets.core.config.training import Training, batches_per_epoch
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.models.losses import LossTerms
from dssm_assets.core.models.tower_input import TowerInput, concatenate_rows, find_equal_rows
from dssm_assets.core.models.tower_spec import TowerSide
from dssm_assets.core.samples.sample_tables import DAY, HISTORY_END, ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.batch_negatives import NegativeRule, merge_columns
from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.data import HistoryRule, TrainData, draw_cuts

SESSION_KEYS = (USER_INDEX, USER_ROW, HISTORY_END)
Keys = Mapping[str, npt.NDArray[Any]]
"""Key columns of a sample."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The input of this process for one step: its samples, and its part of the item tower's rows.

    Attributes:
        rows: the samples of this process, ascending [b].
        weight_frac: these samples' share of the batch's weight.
        user: rows of the user tower: one per sample of this process [b], or one per session.
        user_of: each sample's row in `user` [b]. None: sample k has row k.
        items: rows of the item tower: every W-th of the M shared rows, then the hard negatives of these samples [H].
        num_shared: M. The shared rows are the own items of all samples [B] and the sampled negatives [N], equal columns merged.
        own: row of each sample's own item among the M shared rows [B].
        columns: the shared rows that become columns of the logits.
        terms: corrections, weights and masks of these samples.
    """

    count: int
    rows: IntArray
    weight_frac: float
    user: TowerInput
    user_of: IntArray | None
    items: TowerInput
    num_shared: int
    own: IntArray
    columns: slice
    terms: LossTerms


class Epoch:
    """The samples of an epoch in their order."""

    def __init__(
        self,
        data: TrainData,
        order: IntArray,
        model: Model,
        training: Training,
        window_shifts: IntArray | None = None,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        """Prepares the epoch. `window_shifts`: each user's shift [U], if `training.group_users` is on."""
        self._data, self._order, self._model, self._size, self._ranks = data, order, model, training.batch_size, ranks
        # The samples of a session share a user vector only if the user tower's input cannot differ between them.
        self._by_session = (
            training.group_sessions
            and model.history is not History.LEAVE_ONE_OUT
            and not data.spec.features_of(TowerSide.CONTEXT)
        )
        end_day = 1 + int(data.read_key(DAY, order).max())
        ends = data.user_ends(end_day)
        self._history_rule = HistoryRule(model.history, ends, window_shifts)
        counts = np.bincount(data.read_key(ITEM_INDEX, order), minlength=data.num_items)
        self._negatives = NegativeRule(data, model, counts / len(order), ends, end_day)

    def read_batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Returns this process's part of a batch, given by its number. All processes draw the same batch."""
        size, model = self._size, self._model
        samples = self._order[step * size : (step + 1) * size]
        keys = self._data.read_keys(samples)
        sampled = self._negatives.draw_sampled(rng)
        user, user_of, rows = self._read_users(samples, keys, rng)
        weight, own_items = keys[WEIGHT].astype(np.float32), keys[ITEM_INDEX].astype(np.int64)
        hard, terms = self._negatives.negatives_for(own_items, keys[USER_INDEX], sampled, weight=weight, rng=rng, rows=rows)
        count, items = len(samples), np.concatenate([own_items, sampled[0]])
        # An item's features come from its sample's row, or from the corpus (row -1).
        source = np.full(len(items), -1)
        if model.item_snapshot is not ItemSnapshot.CORPUS:
            source[:count] = keys[ITEM_ROW]
        begin = 0 if model.in_batch else count
        kept, own, num_columns = np.arange(len(items)), np.arange(count), len(items) - begin
        if can_merge_items(model):
            first, group = self._find_equal_items(items[begin:], source[begin:])
            kept, num_columns = np.concatenate([kept[:begin], begin + first]), len(first)
            own = own if begin else group[:count]
            terms = merge_columns(terms, group, num_columns)
        part = kept[self._ranks.rows(len(kept))]
        return Batch(
            count=count,
            rows=rows,
            weight_frac=float(weight[rows].sum() / weight.sum()),
            user=user,
            user_of=user_of,
            items=self._read_items(items[part], source[part], hard),
            num_shared=len(kept),
            own=own,
            columns=slice(begin, begin + num_columns),
            terms=terms,
        )

    def _read_users(
        self, samples: IntArray, keys: Keys, rng: np.random.Generator
    ) -> tuple[TowerInput, IntArray | None, IntArray]:
        """Returns the user tower's input, each sample's row in it (None: sample k has row k), and this process's samples [b]."""
        data, model = self._data, self._model
        if not self._by_session:
            rows = self._own_rows(keys)
            is_hidden = rng.random(len(samples))[rows] < model.context_dropout
            kept_frac = draw_cuts(len(samples), model.history_cut, rng)[rows]
            user = data.read_user_side(samples[rows], _select(keys, rows), self._history_rule, kept_frac, is_hidden)
            return user, None, rows
        first, session = find_sessions(keys)
        own = self._own_rows(_select(keys, first))
        rows = np.flatnonzero(np.isin(session, own))
        kept_frac = draw_cuts(len(first), model.history_cut, rng)[own]
        user = data.read_user_side(samples[first[own]], _select(keys, first[own]), self._history_rule, kept_frac)
        return user, np.searchsorted(own, session[rows]), rows

    def _own_rows(self, keys: Keys) -> IntArray:
        """Returns every W-th row, ascending. Rows with a shared window go to the same process."""
        shifts = self._history_rule.window_shifts
        if shifts is None:
            return self._ranks.rows(len(keys[USER_INDEX]))
        return np.flatnonzero(self._data.window_numbers(keys, shifts) % self._ranks.count == self._ranks.rank)

    def _find_equal_items(self, items: IntArray, source: IntArray) -> tuple[IntArray, IntArray]:
        """Groups positions with the same item and features. Returns each group's first position, ascending [M], and the group of each position [n]."""
        first, group = number_values(pa.array(items * (int(source.max(initial=0)) + 2) + source + 1))
        if (source < 0).all():
            return first, group
        features = self._read_items(items[first], source[first], items[:0])
        same, of_pair = find_equal_rows(replace(features, singles=np.column_stack([items[first], features.singles])))
        return first[same], of_pair[group]

    def _read_items(self, items: IntArray, source: IntArray, hard: IntArray) -> TowerInput:
        """Returns the item tower's input for these items, then for the hard negatives.

        Args:
            source: row of each item's features; -1: read from the corpus. Items with -1 must be last.
        """
        num_rows = int((source >= 0).sum())
        of_samples = self._data.sample_items.read(source[:num_rows])
        return concatenate_rows(of_samples, self._data.items.read(np.concatenate([items[num_rows:], hard])))


def epoch_batches(
    data: TrainData,
    rows: IntArray,
    *,
    model: Model,
    training: Training,
    seed: int,
    epoch: int,
    first: int = 0,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[Batch]:
    """Yields batches with every sample once. The order depends only on seed and epoch. The last batch may be smaller.

    With `epoch_frac` below 1, only this fraction of the samples is yielded.

    Days after the last sample's day stay hidden: from histories of `History.LEAVE_ONE_OUT`, masks of known positives, and hard
    negatives.

    Args:
        epoch: number of the epoch, from 0.
        first: number of the first batch to yield; earlier batches are not read.

    Raises:
        SchemaError: there is no sample.
    """
    if not len(rows):
        remedy = "lower model.min_history, or choose a window with positive events"
        raise SchemaError(Fault("samples to train on", "at least one", "none", remedy))
    rng = np.random.default_rng([seed, epoch, 0])
    shifts = _window_shifts(data, model, training, rng)
    samples = Epoch(data, _shuffle(data, rows, training, shifts, rng), model, training, shifts, ranks)
    for step in range(first, batches_per_epoch(len(rows), training)):
        yield samples.read_batch(step, np.random.default_rng([seed, epoch, 1 + step]))


def can_merge_items(model: Model) -> bool:
    """Returns whether equal columns may be merged. A mean over columns, or a batch norm, forbids it: it depends on their number.

    In a softmax, columns with equal vectors and corrections c_1 .. c_k equal one column with the correction -log(exp(-c_1) +
    ... + exp(-c_k)), since every mask depends only on the item. One thing differs: a merged column draws its dropout once.
    """
    return model.loss is Loss.SOFTMAX and model.norm is not Norm.BATCH


def find_sessions(keys: Mapping[str, npt.NDArray[Any]]) -> tuple[IntArray, IntArray]:
    """Groups samples into sessions. Returns the first sample of each session [V], and the session of each sample [B].

    A session is all samples of one user with the same history (`SESSION_KEYS`). Users without an index have no history and
    differ only in their feature rows.
    """
    columns = [keys[name] for name in SESSION_KEYS]
    order = np.lexsort(columns)  # stable: a session's first sample comes first
    is_new = np.ones(len(order), np.bool_)
    is_new[1:] = np.any([column[order[1:]] != column[order[:-1]] for column in columns], axis=0)
    session = np.empty(len(order), np.int64)
    session[order] = np.cumsum(is_new) - 1
    return order[is_new].astype(np.int64), session


def shuffle_sessions(session: IntArray, rng: np.random.Generator) -> IntArray:
    """Shuffles sessions. A session's samples stay together, in their own order. Returns the samples' positions [n].

    Args:
        session: session of each sample [n]. Every number from 0 on must occur.
    """
    rank = np.argsort(rng.permutation(int(session.max()) + 1))
    return np.argsort(rank[session], kind="stable")


def _window_shifts(data: TrainData, model: Model, training: Training, rng: np.random.Generator) -> IntArray | None:
    """Draws the shift of each user's windows in this epoch [U]. None if samples do not share passes of the encoder."""
    if not training.group_users or not data.spec.sequence_views or model.history is History.LEAVE_ONE_OUT:
        return None
    return rng.integers(0, 1 << 31, len(data.user_starts))


def _shuffle(
    data: TrainData, rows: IntArray, training: Training, shifts: IntArray | None, rng: np.random.Generator
) -> IntArray:
    if shifts is None and not training.group_sessions:
        return rng.permutation(rows)
    keys = {name: data.read_key(name, rows) for name in SESSION_KEYS}
    groups = find_sessions(keys)[1] if shifts is None else data.window_numbers(keys, shifts)
    return rows[shuffle_sessions(groups, rng)]


def _select(keys: Keys, rows: IntArray) -> dict[str, npt.NDArray[Any]]:
    return {name: values[rows] for name, values in keys.items()}
