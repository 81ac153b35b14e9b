"""Who took what how often and when last, as compressed sparse rows: what baselines and exclusions are computed from.

Belongs here: the structure and its construction from a table. Does not belong here: what is recommended from it
(`baselines/`).

Shapes: U evaluated users, V >= U all users, I items, E distinct (user, item) pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.columns import COUNT, ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.evaluation.ids import cast_ids, flat, positions, sorted_unique
from dssm_assets.core.retrieval.exclusions import Exclusions, Index

LAST_EVENT_TIME_MS: Final = "last_event_time_ms"


@dataclass(frozen=True)
class Interactions:
    """Positive events per user and item, rows sorted by (user_index, item_index).

    Attributes:
        indptr: int64 [V + 1]; the first U users are the evaluated ones, in their order.
        item_index: int64 [E].
        count: int64 [E], positive events of the pair.
        last_time_ms: int64 [E], time of the last of them.
        num_items: I.
        dropped_events: positive events on items that the corpus lacks; they are not in the rows.
        user_events: int64 [V], positive events of each user, those on items outside the corpus included.
    """

    indptr: Index
    item_index: Index
    count: Index
    last_time_ms: Index
    num_items: int
    dropped_events: int
    user_events: Index

    @property
    def user_index(self) -> Index:
        """Returns int64 [E], the user of each pair."""
        return np.repeat(np.arange(len(self.indptr) - 1), np.diff(self.indptr))

    def users_from(self, start: int, stop: int) -> Interactions:
        """Returns the interactions of users start .. stop - 1 alone; what was dropped stays counted as a whole."""
        low, high = self.indptr[start], self.indptr[stop]
        return Interactions(
            indptr=self.indptr[start : stop + 1] - low,
            item_index=self.item_index[low:high],
            count=self.count[low:high],
            last_time_ms=self.last_time_ms[low:high],
            num_items=self.num_items,
            dropped_events=self.dropped_events,
            user_events=self.user_events[start:stop],
        )

    def exclusions(self, num_users: int) -> Exclusions:
        """Returns, for the first num_users users, the items they took."""
        indptr = self.indptr[: num_users + 1]
        return Exclusions(indptr, self.item_index[: indptr[-1]])

    def item_events(self) -> Index:
        """Returns int64 [I], positive events of each item."""
        events = np.zeros(self.num_items, dtype=np.int64)
        np.add.at(events, self.item_index, self.count)
        return events


def read_interactions(table: pa.Table, user_ids: pa.Array, item_ids: pa.Array | pa.ChunkedArray) -> Interactions:
    """Returns the interactions of a table over a corpus.

    Args:
        table: user_id, item_id, count int64, last_event_time_ms int64. A pair may occur in several rows (one per day):
            counts are added, the latest time is kept.
        user_ids: the evaluated users, which become users 0 .. U - 1 whether they occur or not; all other users follow.
        item_ids: the corpus, distinct; its order defines item_index.

    Raises:
        SchemaError: if a column is missing or has nulls.
        InputError: if ids are of another kind than the evaluated users or the corpus.
    """
    _check(table)
    corpus = flat(item_ids)
    users = cast_ids(flat(table.column(USER_ID)), user_ids.type, "interactions, column user_id")
    items = positions(cast_ids(flat(table.column(ITEM_ID)), corpus.type, "interactions, column item_id"), corpus)
    present = sorted_unique(users)
    others = present.filter(pc.invert(pc.is_in(present, value_set=user_ids)))
    everyone = pa.concat_arrays([user_ids, others])
    owner = positions(users, everyone)
    count = flat(table.column(COUNT)).to_numpy(zero_copy_only=False).astype(np.int64)
    time = flat(table.column(LAST_EVENT_TIME_MS)).to_numpy(zero_copy_only=False).astype(np.int64)
    user_events = np.zeros(len(everyone), dtype=np.int64)
    np.add.at(user_events, owner, count)

    known = items >= 0
    key = owner[known] * max(len(corpus), 1) + items[known]
    pairs, place = np.unique(key, return_inverse=True)
    summed = np.zeros(len(pairs), dtype=np.int64)
    np.add.at(summed, place, count[known])
    latest = np.full(len(pairs), np.iinfo(np.int64).min)
    np.maximum.at(latest, place, time[known])
    per_user = np.bincount(pairs // max(len(corpus), 1), minlength=len(everyone))
    return Interactions(
        indptr=np.concatenate([np.zeros(1, np.int64), np.cumsum(per_user)]),
        item_index=pairs % max(len(corpus), 1),
        count=summed,
        last_time_ms=latest,
        num_items=len(corpus),
        dropped_events=int(count[~known].sum()),
        user_events=user_events,
    )


def _check(table: pa.Table) -> None:
    faults: list[Fault] = []
    for column in (USER_ID, ITEM_ID, COUNT, LAST_EVENT_TIME_MS):
        where = f"interactions, column {column}"
        if column not in table.column_names:
            faults.append(Fault(where, "the column to exist", f"columns {', '.join(table.column_names)}", "add the column"))
        elif table.column(column).null_count:
            faults.append(Fault(where, "no nulls", f"{table.column(column).null_count} nulls", "drop those rows"))
    if faults:
        raise SchemaError(faults)
