"""One process's share of batches that several processes learn from together.

Every process draws the same batch: its samples with their keys (item, user, place of the history, weight: one number each),
its sampled negatives. Of features, histories and known positives each reads only its share:

    user tower   every W-th sample, or every W-th visit with all its samples, so that no visit is computed twice
    item tower   every W-th of the distinct items of the batch, and the hard negatives of its own samples

Belongs here: who takes what, reading it. Does not belong here: what a batch is (`batches`), exchanging what comes of it
(`distributed`, `trainer`).

Letters: W processes, B samples of a batch, b of them this process's, V visits, N sampled negatives, M rows of the item tower that are shared.
"""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.columns import ITEM_ROW, WEIGHT
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.samplers.queue import queued_places
from dssm_assets.core.models.tower_input import TowerInput, concatenated, without_columns
from dssm_assets.core.samples.sample_tables import ITEM_INDEX, USER_INDEX
from dssm_assets.core.training.batches import Batch, Epoch, ItemSide, Negatives, Share, session_of
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.distinct_items import as_one_column, equal_rows, takes_together
from dssm_assets.core.training.distributed.ranks import Ranks

Keys = dict[str, npt.NDArray[Any]]
_CORPUS = -1
"""In place of a sample's feature row: the item as the corpus has it."""


class SharedEpoch(Epoch):
    """The samples of an epoch in their order, of which this process reads its share."""

    def __init__(self, data: TrainData, order: IntArray, model: Model, training: Training, *, ranks: Ranks) -> None:
        """Takes what `Epoch` takes, and which process this is."""
        super().__init__(data, order, model, training)
        self._ranks = ranks

    def batch(self, step: int, rng: np.random.Generator) -> Batch:
        """Returns this process's part of a batch by its number."""
        data, model = self._data, self._model
        samples = self._order[step * self._size : (step + 1) * self._size]
        keys = data.read_keys(samples)
        sampled = self._negatives.sampled(rng)
        user, user_of, rows = self._user_share(samples, keys, rng)
        queued = data.read_key(ITEM_INDEX, self._order[queued_places(step, self._size, model.queue_batches)])
        weight = keys[WEIGHT].astype(np.float32)
        own_items = keys[ITEM_INDEX].astype(np.int64)
        negatives = self._negatives.of(own_items, keys[USER_INDEX], sampled, weight=weight, queued=queued, rng=rng, rows=rows)
        side, num_items = self._item_share(own_items, keys[ITEM_ROW], negatives)
        return Batch(
            user=user,
            items=side.items,
            terms=side.terms,
            item_index=np.concatenate([own_items, negatives.sampled]),
            user_of=user_of,
            num_hard=len(negatives.hard),
            num_queued=len(queued),
            share=Share(rows, len(samples), float(weight.sum()), side, num_items),
        )

    def _user_share(
        self, samples: IntArray, keys: Keys, rng: np.random.Generator
    ) -> tuple[TowerInput, IntArray | None, IntArray]:
        """Returns the user tower's input, which row of it is each own sample's (None: its own), and the own samples [b]."""
        count = len(samples)
        if not self._by_session:
            rows = self._ranks.rows(count)
            is_hidden = rng.random(count)[rows] < self._model.context_dropout
            user = self._read_users(samples[rows], _of(keys, rows), rng, rows, count)
            return without_columns(user, is_hidden, *self._context), None, rows
        first, visit = session_of(keys)
        own = self._ranks.rows(len(first))
        rows = np.flatnonzero(visit % self._ranks.count == self._ranks.rank)
        user = self._read_users(samples[first[own]], _of(keys, first[own]), rng, own, len(first))
        return user, visit[rows] // self._ranks.count, rows

    def _read_users(self, samples: IntArray, keys: Keys, rng: np.random.Generator, own: IntArray, count: int) -> TowerInput:
        return self._data.read_user_side(samples, keys, self._past, cast(np.random.Generator, _DrawnForAll(rng, own, count)))

    def _item_share(self, own_items: IntArray, item_row: npt.NDArray[Any], negatives: Negatives) -> tuple[ItemSide, int]:
        """Returns the item side of the own samples, and M."""
        count, sampled, terms = len(own_items), negatives.sampled, negatives.terms
        begin, end = 0 if self._model.in_batch else count, count + len(sampled)
        own, columns = np.arange(count, dtype=np.int64), slice(begin, end)
        source = np.concatenate([item_row.astype(np.int64), np.full(len(sampled), _CORPUS)])
        kept = np.arange(end, dtype=np.int64)
        if takes_together(self._model):
            # Items are told apart by where their features lie: whether those are equal is not known without reading them.
            items = np.concatenate([own_items, sampled])[begin:]
            first, kind = equal_rows(TowerInput(source[begin:, None] - _CORPUS), items)
            kept = np.concatenate([kept[:begin], begin + first])
            own, columns = own if begin else kind[:count], slice(begin, begin + len(first))
            terms = as_one_column(terms, kind, len(first))
        dealt = kept[self._ranks.rows(len(kept))]
        is_sample = dealt < count
        of_samples = self._data.sample_items.read(item_row[dealt[is_sample]])
        of_corpus = self._data.read_items(np.concatenate([sampled[dealt[~is_sample] - count], negatives.hard]))
        return ItemSide(concatenated(of_samples, of_corpus), own, columns, terms), len(kept)


class _DrawnForAll:
    """A generator's draws for every row of a batch, of which those of some rows are handed out."""

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
            raise ValueError(f"draws for a share: expected {len(self._rows)} rows, got {size}")


def _of(keys: Keys, rows: IntArray) -> Keys:
    return {name: values[rows] for name, values in keys.items()}
