"""Splits of public text files ("user item item ..."): leave one out of sequences, or a train file and its test file.

    sequences    of each user with three items or more the last one is held out, everything before it trains
    pair         train file and test file as they are; the order of a line means nothing, so it is drawn

Nothing is changed: an event that repeats an earlier one of its user stays. Seen items are left out of the lists, so that a
held-out item that its user had before can not be hit; `repeated_pairs` counts these. Held-out items that the training part
does not know can not be hit either, and count as missed.

There are no times. Events of a user are a second apart and all users' last ones are at one midnight: what is before that day is
every user's line without its last item. Towers of these splits must not read more of a time than the order.

Belongs here: the two rules. Does not belong here: reading text (`dssm_assets/datasets/sequences.py`), rules of logs with
times (`quality_splits.py`).

Letters: U users, I items, E events, V users with truth, P truth pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import ranges, repeat_rows
from dssm_assets.datasets.sequences import Sequences, read_sequences
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Ints, Split

MIN_EVENTS = 3
"""Users with fewer events are not evaluated; all their events train."""
INNER_FRAC = 0.2
INNER_SEED = 20240101
ORDER_SEED = 20240102


@dataclass(frozen=True)
class Events:
    """Events by user, in the order of each line: codes of users and items [E]."""

    user: Ints
    item: Ints

    def where(self, kept: npt.NDArray[np.bool_]) -> Events:
        """Returns the events of a mask."""
        return Events(self.user[kept], self.item[kept])


def read_sequence_split(path: Path, *, inner: bool = False) -> Split:
    """Returns leave one out of a file of sequences; inner: once more on the training part."""
    (sequences,) = read_sequences(path)
    (events,) = encode(sequences)
    held_out = last_events(events)
    if inner:
        events = events.where(~held_out)
        held_out = last_events(events)
    return split_events(events.where(~held_out), events.where(held_out))


def read_pair_split(train: Path, test: Path, *, inner: bool = False) -> Split:
    """Returns the split of a train file and a test file; inner: a random fifth of each user's training items is the truth."""
    events, held_out = encode(*read_sequences(train, test))
    if inner:
        is_held_out = random_events(events, INNER_FRAC, INNER_SEED)
        events, held_out = events.where(~is_held_out), events.where(is_held_out)
    return split_events(shuffle_events(events, ORDER_SEED), held_out)


def encode(*sequences: Sequences) -> tuple[Events, ...]:
    """Returns the events of several files over common codes of users and of items, both by their order in the files."""
    users = _codes([one.users for one in sequences])
    items = _codes([one.items for one in sequences])
    lengths = [np.diff(one.offsets) for one in sequences]
    return tuple(Events(user[repeat_rows(length)], item) for user, item, length in zip(users, items, lengths, strict=True))


def last_events(events: Events) -> npt.NDArray[np.bool_]:
    """Returns the last event of every user with `MIN_EVENTS` events or more [E]."""
    sizes, places = _places(events.user)
    return np.asarray((places == sizes - 1) & (sizes >= MIN_EVENTS))


def random_events(events: Events, frac: float, seed: int) -> npt.NDArray[np.bool_]:
    """Returns a drawn share of every user's events, rounded down, but at least one of two or more [E].

    By hand: of 10 events 2 are drawn with a share of .2, of 4 events 1, of a single one none.
    """
    drawn = np.random.default_rng(seed).random(len(events.user))
    order = np.lexsort((drawn, events.user))
    sizes, places = _places(events.user[order])
    counts = np.where(sizes > 1, np.maximum(1, np.floor(sizes * frac)), 0)
    found = np.zeros(len(order), np.bool_)
    found[order] = places < counts
    return found


def shuffle_events(events: Events, seed: int) -> Events:
    """Returns the events in a drawn order inside each user."""
    order = np.lexsort((np.random.default_rng(seed).random(len(events.user)), events.user))
    return Events(events.user[order], events.item[order])


def split_events(train: Events, test: Events) -> Split:
    """Returns the split over the users and items of the training events, in ascending order of their codes.

    Training events are in the order of their times: those of users with the longest lines first, every user's last one last.
    """
    order = np.argsort(train.user, kind="stable")
    sizes, places = _places(train.user[order])
    from_end = sizes - 1 - places
    by_time = np.argsort(-from_end, kind="stable")
    order, from_end = order[by_time], from_end[by_time]
    user_ids, user = np.unique(train.user[order], return_inverse=True)
    item_ids, item = np.unique(train.item[order], return_inverse=True)
    midnight = SECONDS_PER_DAY * (1 + -(-int(from_end.max(initial=0)) // SECONDS_PER_DAY))
    pairs = np.unique(np.stack([test.user, test.item], axis=1), axis=0)
    is_known = np.isin(pairs[:, 0], user_ids) & np.isin(pairs[:, 1], item_ids)
    known = pairs[is_known]
    eval_codes, truth_row = np.unique(known[:, 0], return_inverse=True)
    totals = np.bincount(np.searchsorted(eval_codes, pairs[np.isin(pairs[:, 0], eval_codes), 0]), minlength=len(eval_codes))
    return Split(
        user_ids=user_ids,
        item_ids=item_ids,
        user=user,
        item=item,
        time_s=midnight - from_end,
        eval_users=np.searchsorted(user_ids, eval_codes),
        truth_row=truth_row,
        truth_item=np.searchsorted(item_ids, known[:, 1]),
        dropped_pairs=len(pairs) - len(known),
        truth_totals=totals,
        lost_users=len(np.unique(pairs[:, 0])) - len(eval_codes),
        repeated_pairs=_count_common(pairs, np.stack([train.user, train.item], axis=1)),
    )


def _codes(columns: list[pa.Array]) -> list[Ints]:
    """Returns each column's numbers in the dictionary of all; columns of different types are compared as texts."""
    if len({column.type for column in columns}) > 1:
        columns = [column.cast(pa.string()) for column in columns]
    encoded = pc.dictionary_encode(pa.concat_arrays(columns))
    codes = encoded.indices.to_numpy().astype(np.int64)
    return np.split(codes, np.cumsum([len(column) for column in columns])[:-1])


def _places(owner: Ints) -> tuple[Ints, Ints]:
    """Returns for each event, which are grouped by owner, how many events its owner has and how many of them are before it."""
    begins = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]])) if len(owner) else np.zeros(0, np.int64)
    lengths = np.diff(np.concatenate([begins, [len(owner)]]))
    return np.repeat(lengths, lengths), ranges(np.zeros(len(lengths), np.int64), lengths)


def _count_common(pairs: Ints, others: Ints) -> int:
    """Returns how many of the distinct pairs occur among the others."""
    if not len(pairs) or not len(others):
        return 0
    width = max(int(pairs[:, 1].max()), int(others[:, 1].max())) + 1
    return int(np.isin(pairs[:, 0] * width + pairs[:, 1], others[:, 0] * width + others[:, 1]).sum())
