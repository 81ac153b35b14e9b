"""Splits MovieLens-like logs into a training part and held-out truth.

    lastpct-P    of each user with two items or more the last P % (at least one)
    loo          of each user with three items or more the last one
    temporal-D   the last D days of the whole log

Positives are all events, one per user and item, the first kept. Of a user's events at the same second a seeded draw says
which came first, so that no order of ids leaks. For leave-one-out the log's column seq_pos says it, the order in which the user
rated, if there is one: published results on MovieLens-1M use it. The universe is the users and items of the training part: truth of others
is left out, and counted. `inner` applies the rule twice: the held-out part of the training part, to choose settings on.

Belongs here: reading the log and the rules. Does not belong here: features of users and items (`quality_features.py`) and
scoring (`quality_scores.py`).

Shapes: E events, U users, I items, V users with truth, P truth pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from dssm_assets.core.arrays.ragged import Exclusions

Ints = npt.NDArray[np.int64]
TIE_SEED = 20240101
"""Of the draw among events of one second; peers that are compared under these splits use the same."""
SECONDS_PER_DAY = 86_400
PLACE = "seq_pos"
"""Column of a log with each event's exact place among its user's events."""


@dataclass(frozen=True)
class Log:
    """Distinct (user, item) events in time order."""

    user_id: Ints  # [E]
    item_id: Ints  # [E]
    time_s: Ints  # [E]

    def where(self, kept: npt.NDArray[np.bool_]) -> Log:
        """Returns the events of a mask."""
        return Log(self.user_id[kept], self.item_id[kept], self.time_s[kept])


@dataclass(frozen=True)
class Split:
    """The training part and the truth of a split, by index of user and item.

    Attributes:
        user_ids: ids of the training part's users, ascending [U].
        item_ids: ids of the training part's items, ascending [I].
        user: user of each training event, in time order [E].
        item: item of each training event [E].
        time_s: seconds since 1970 of each training event [E].
        eval_users: users with truth, ascending [V].
        truth_row: place in eval_users of each truth pair's user, ascending [P].
        truth_item: item of each truth pair [P].
        dropped_pairs: held-out pairs whose user or item the training part does not know.
        lost_users: users with held-out items, none of which the training part knows.
    """

    user_ids: Ints
    item_ids: Ints
    user: Ints
    item: Ints
    time_s: Ints
    eval_users: Ints
    truth_row: Ints
    truth_item: Ints
    dropped_pairs: int
    lost_users: int = 0

    def by_user(self) -> tuple[Ints, Ints]:
        """Returns the training events' numbers by (user, time) [E], and where each user's begin and end [U + 1]."""
        order = np.argsort(self.user, kind="stable")
        return order, _bounds(np.bincount(self.user, minlength=len(self.user_ids)))

    def seen(self) -> Exclusions:
        """Returns the items of each user with truth in the training part."""
        order, bounds = self.by_user()
        return Exclusions(bounds, self.item[order]).select_users(self.eval_users)

    def truth_counts(self) -> Ints:
        """Returns how many items each user with truth has [V]."""
        return np.bincount(self.truth_row, minlength=len(self.eval_users))

    def facts(self) -> dict[str, int]:
        """Returns the sizes of both parts."""
        return {
            "train_events": len(self.user),
            "train_users": len(self.user_ids),
            "train_items": len(self.item_ids),
            "eval_users": len(self.eval_users),
            "eval_pairs": len(self.truth_row),
            "dropped_pairs": self.dropped_pairs,
        }


def read_split(folder: Path, rule: str, *, inner: bool = False) -> Split:
    """Returns the split of behavior.parquet (user_id, item_id, event_time in seconds) in a folder.

    Args:
        folder: holds behavior.parquet.
        rule: lastpct-P, loo or temporal-D.
        inner: apply the rule once more to the training part.

    Raises:
        ValueError: the rule is none of these.
    """
    path = folder / "behavior.parquet"
    has_place = rule == "loo" and PLACE in pq.read_schema(path).names
    names = ["user_id", "item_id", "event_time", *([PLACE] if has_place else [])]
    table = pq.read_table(path, columns=names)
    columns = (table.column(name).to_numpy().astype(np.int64) for name in names)
    return cut(distinct_log(*columns), rule, inner=inner)


def distinct_log(user_id: Ints, item_id: Ints, time_s: Ints, place: Ints | None = None) -> Log:
    """Returns the first event of every (user, item), in time order; at the same second by place, without places as drawn."""
    ties = np.random.default_rng(TIE_SEED).random(len(time_s)) if place is None else place
    order = np.lexsort((ties, time_s))
    log = Log(user_id[order], item_id[order], time_s[order])
    _, first = np.unique(np.stack([log.user_id, log.item_id]), axis=1, return_index=True)
    is_first = np.zeros(len(order), np.bool_)
    is_first[first] = True
    return log.where(is_first)


def cut(log: Log, rule: str, *, inner: bool = False) -> Split:
    """Returns the log cut by a rule; see `read_split`."""
    held_out = held_out_events(log, rule)
    if inner:
        log = log.where(~held_out)
        held_out = held_out_events(log, rule)
    train, test = log.where(~held_out), log.where(held_out)
    user_ids, user = np.unique(train.user_id, return_inverse=True)
    item_ids, item = np.unique(train.item_id, return_inverse=True)
    known = np.isin(test.user_id, user_ids) & np.isin(test.item_id, item_ids)
    truth = test.where(known)
    truth_user = np.searchsorted(user_ids, truth.user_id)
    order = np.argsort(truth_user, kind="stable")
    eval_users, truth_row = np.unique(truth_user[order], return_inverse=True)
    truth_item = np.searchsorted(item_ids, truth.item_id)[order]
    return Split(
        user_ids=user_ids,
        item_ids=item_ids,
        user=user,
        item=item,
        time_s=train.time_s,
        eval_users=eval_users,
        truth_row=truth_row,
        truth_item=truth_item,
        dropped_pairs=len(known) - int(known.sum()),
        lost_users=len(np.unique(test.user_id)) - len(eval_users),
    )


def held_out_events(log: Log, rule: str) -> npt.NDArray[np.bool_]:
    """Returns which events of a log a rule holds out [E].

    Raises:
        ValueError: the rule is none of lastpct-P, loo, temporal-D.
    """
    name, _, number = rule.partition("-")
    if name == "temporal" and _is_number(number):
        return np.asarray(log.time_s > log.time_s.max() - float(number) * SECONDS_PER_DAY)
    sizes, places = _places(log.user_id)
    if name == "lastpct" and _is_number(number):
        held_out = np.maximum(1, np.floor(sizes * float(number) / 100))
        return np.asarray((places >= sizes - held_out) & (sizes >= 2))
    if rule == "loo":
        return np.asarray((places == sizes - 1) & (sizes >= 3))
    raise ValueError(f"split {rule!r}: expected lastpct-P, loo or temporal-D, P in % and D in days")


def _places(user_id: Ints) -> tuple[Ints, Ints]:
    """Returns for each event how many events its user has, and how many of these are before it."""
    _, owner, counts = np.unique(user_id, return_inverse=True, return_counts=True)
    order = np.argsort(owner, kind="stable")
    places = np.empty(len(user_id), np.int64)
    places[order] = np.arange(len(user_id)) - np.repeat(_bounds(counts)[:-1], counts)
    return counts[owner], places


def _bounds(counts: npt.NDArray[Any]) -> Ints:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()
