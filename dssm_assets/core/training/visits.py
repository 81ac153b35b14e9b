"""Visits: samples that the user tower cannot tell apart, because they are of one user with the same features and past.

The items of one basket are such samples, and with `model.history: day` all of a user's items of a day. Kept together in one
batch they need the user's history read and the user tower run once for all of them, which is what makes long histories
cheap: at 12 items a visit, a history of 600 items costs as much as one of 50 sample by sample.

Belongs here: which samples are one visit, an order that keeps visits together, the distinct rows of a batch. Does not
belong here: what is read for them (`train_data`) and what becomes of it (`trainer`).

Letters: n samples of an epoch, B samples of a batch, V visits of a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dssm_assets.core.columns import USER_ROW
from dssm_assets.core.models.bags import IntArray, ragged_positions
from dssm_assets.core.samples.specs import HISTORY_END, USER_INDEX

KEYS = (USER_INDEX, USER_ROW, HISTORY_END)


def visit_of(keys: Mapping[str, npt.NDArray[Any]]) -> tuple[IntArray, IntArray]:
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


def visit_order(visit: IntArray, rng: np.random.Generator) -> IntArray:
    """Returns the samples in a random order of their visits, each visit's samples in their own order, one after another.

    Args:
        visit: of each sample, every number from 0 on occurs [n].
        rng: decides the order.
    """
    by_visit = np.argsort(visit, kind="stable")
    ends = np.cumsum(np.bincount(visit))
    chosen = rng.permutation(len(ends))
    starts = np.concatenate([np.zeros(1, np.int64), ends[:-1]])
    places, _ = ragged_positions(starts[chosen], ends[chosen])
    return by_visit[places]
