"""One process's part of batches that several processes learn from together.

Every process draws the same batch: its samples with their keys (item, user, place of the history, weight: one number
each) and its sampled negatives. Of features, histories and known positives each process reads its part alone:

    user tower   every W-th sample, or every W-th session or window with all its samples, so that none is computed twice
    item tower   every W-th of the distinct items of the batch, and the hard negatives of its own samples

Letters: W processes, B samples of a batch, b of them of this process, V sessions, D vector width, M rows of the item tower that all
processes share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.columns import ITEM_ROW, WEIGHT
from dssm_assets.core.config.model import ItemSnapshot, Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.samplers.queue import queued_slice
from dssm_assets.core.models.tower_input import TowerInput, concatenate_rows, hide_features
from dssm_assets.core.samples.sample_tables import ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.batch_negatives import Negatives
from dssm_assets.core.training.batches import Batch, Epoch, draw_cold_items, find_sessions, find_windows, make_cold
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.distinct_items import ItemSide, can_merge_items, find_equal_rows, merge_columns

if TYPE_CHECKING:
    from dssm_assets.core.training.ranks import Ranks

Keys = dict[str, npt.NDArray[Any]]
_CORPUS = -1
"""In place of a sample's feature row: the item's features in the corpus."""


@dataclass(frozen=True, kw_only=True)
class SharedBatch(Batch):
    """One process's part of a batch. The user tower's input and the terms are of its own samples alone.

    Attributes:
        rows: its samples, ascending [b].
        count: B.
        weight: of all samples of the batch in the loss, summed.
        side: the item tower's part: every W-th of the M shared rows, then the hard negatives of its own samples. `own` and
            `columns` number the M rows.
    """

    rows: IntArray
    count: int
    weight: float
    side: ItemSide

    def __len__(self) -> int:
        return self.count

    def item_side(self, model: Model) -> ItemSide:
        return self.side

    def positives(self, own_items: Tensor) -> Tensor:
        return own_items[torch.from_numpy(self.rows).to(own_items.device)]

    def part_of_loss(self, loss: Tensor) -> Tensor:
        """Returns the mean over its own samples times their share of the batch's weight."""
        return loss * (self.terms.weight.sum() / self.weight) if len(self.rows) else loss


class SharedEpoch(Epoch):
    """The samples of an epoch in their order, of which this process reads its part."""

    def __init__(
        self,
        data: TrainData,
        order: IntArray,
        model: Model,
        training: Training,
        window_shifts: IntArray | None = None,
        *,
        ranks: Ranks,
    ) -> None:
        super().__init__(data, order, model, training, window_shifts)
        self._ranks = ranks

    def read_batch(self, step: int, rng: np.random.Generator) -> SharedBatch:
        data, model = self._data, self._model
        samples = self._order[step * self._size : (step + 1) * self._size]
        keys = data.read_keys(samples)
        sampled = self._negatives.draw_sampled(rng)
        user, user_of, rows = self._read_user_part(samples, keys, rng)
        queued = data.read_key(ITEM_INDEX, self._order[queued_slice(step, self._size, model.queue_batches)])
        weight = keys[WEIGHT].astype(np.float32)
        own_items = keys[ITEM_INDEX].astype(np.int64)
        negatives = self._negatives.negatives_for(
            own_items, keys[USER_INDEX], sampled, weight=weight, queued=queued, rng=rng, rows=rows
        )
        cold = draw_cold_items(np.concatenate([own_items, negatives.sampled]), model.cold_item_frac, rng)
        side = self._read_item_part(own_items, keys[ITEM_ROW], negatives, cold)
        return SharedBatch(
            user=user,
            items=side.items,
            terms=side.terms,
            item_index=np.concatenate([own_items, negatives.sampled]),
            user_of=user_of,
            num_hard=len(negatives.hard),
            num_queued=len(queued),
            rows=rows,
            count=len(samples),
            weight=float(weight.sum()),
            side=side,
        )

    def _read_user_part(
        self, samples: IntArray, keys: Keys, rng: np.random.Generator
    ) -> tuple[TowerInput, IntArray | None, IntArray]:
        """Returns the user tower's input, which row of it is each own sample's (None: row k), and the own samples [b]."""
        count = len(samples)
        if not self._by_session:
            rows = self._own_rows(keys)
            is_hidden = rng.random(count)[rows] < self._model.context_dropout
            user = self._read_users(samples[rows], _select(keys, rows), rng, rows, count)
            return hide_features(user, is_hidden, *self._context), None, rows
        first, session = find_sessions(keys)
        own = self._own_rows(_select(keys, first))
        rows = np.flatnonzero(np.isin(session, own))
        user = self._read_users(samples[first[own]], _select(keys, first[own]), rng, own, len(first))
        return user, np.searchsorted(own, session[rows]), rows

    def _own_rows(self, keys: Keys) -> IntArray:
        """Returns every W-th of the rows with these keys; if rows share windows, those of every W-th window, ascending."""
        shifts = self._history_rule.window_shifts
        if shifts is None:
            return self._ranks.rows(len(keys[USER_INDEX]))
        return np.flatnonzero(find_windows(self._data, keys, shifts) % self._ranks.count == self._ranks.rank)

    def _read_users(self, samples: IntArray, keys: Keys, rng: np.random.Generator, own: IntArray, count: int) -> TowerInput:
        draws = cast(np.random.Generator, _DrawsOfBatch(rng, own, count))
        return self._data.read_user_side(samples, keys, self._history_rule, draws)

    def _read_item_part(
        self, own_items: IntArray, item_row: npt.NDArray[Any], negatives: Negatives, cold: IntArray
    ) -> ItemSide:
        count, sampled, terms = len(own_items), negatives.sampled, negatives.terms
        begin, end = 0 if self._model.in_batch else count, count + len(sampled)
        own, columns = np.arange(count, dtype=np.int64), slice(begin, end)
        is_corpus = self._model.item_snapshot is ItemSnapshot.CORPUS
        own_source = np.full(count, _CORPUS) if is_corpus else item_row.astype(np.int64)
        source = np.concatenate([own_source, np.full(len(sampled), _CORPUS)])
        kept = np.arange(end, dtype=np.int64)
        if can_merge_items(self._model):
            # Items are compared by where their features lie: comparing the features would mean reading them all.
            items = np.concatenate([own_items, sampled])[begin:]
            first, kind = find_equal_rows(TowerInput(source[begin:, None] - _CORPUS), items)
            kept = np.concatenate([kept[:begin], begin + first])
            own, columns = own if begin else kind[:count], slice(begin, begin + len(first))
            terms = merge_columns(terms, kind, len(first))
        part = kept[self._ranks.rows(len(kept))]
        is_sample = part < count
        rows = part[is_sample]
        of_samples = self._data.read_items(own_items[rows]) if is_corpus else self._data.sample_items.read(item_row[rows])
        others = np.concatenate([sampled[part[~is_sample] - count], negatives.hard])
        read = concatenate_rows(of_samples, self._data.read_items(others))
        is_cold = np.isin(np.concatenate([own_items[rows], others]), cold)
        return ItemSide(make_cold(self._data, read, is_cold), len(kept), own, columns, terms)


class _DrawsOfBatch:
    """Draws for every row of a batch, so that all processes draw the same, and returns those of some rows."""

    def __init__(self, rng: np.random.Generator, rows: IntArray, count: int) -> None:
        self._rng, self._rows, self._count = rng, rows, count

    def random(self, size: int) -> npt.NDArray[np.float64]:
        self._check(size)
        return self._rng.random(self._count)[self._rows]

    def uniform(self, low: float, high: float, size: int) -> npt.NDArray[np.float64]:
        self._check(size)
        return self._rng.uniform(low, high, self._count)[self._rows]

    def _check(self, size: int) -> None:
        if size != len(self._rows):
            raise ValueError(f"draws of one process: expected {len(self._rows)} rows, got {size}")


def _select(keys: Keys, rows: IntArray) -> Keys:
    return {name: values[rows] for name, values in keys.items()}
