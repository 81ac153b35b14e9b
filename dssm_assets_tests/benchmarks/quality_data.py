"""Logs and files of sequences, cut into a training part and held-out truth; features of their users and items.

    lastpct-P    of each user with two items or more the last P % (at least one)
    loo          of each user with three items or more the last one
    temporal-D   the last D days of the whole log

Positives are all events, one per user and item, the first kept. Of a user's events at the same second a seeded draw says
which came first, so that no order of ids leaks. For leave-one-out the log's column seq_pos says it, the order in which the user
rated, if there is one: published results on MovieLens-1M use it. The universe is the users and items of the training part: truth
of others is left out, and counted. `inner` applies the rule twice: the held-out part of the training part, to choose settings on.

Features are indices of embedding tables, 0 if missing. Users: gender, age bucket, occupation, zip3, user id. Items: item id, genres,
bucket of the release year, popularity ever and decayed over some days, each in 20 quantile buckets.

Shapes: E events, U users, I items, V users with truth, P truth pairs, n values.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from scipy.sparse import csr_matrix

from dssm_assets.core.arrays.ragged import ItemSets, list_lengths, offsets_of, ranges
from dssm_assets.core.models.event_layers import NUM_GAPS, gap_classes

Ints = npt.NDArray[np.int64]
Entities = tuple[pa.Table, pa.Table]
"""users.parquet and items.parquet of a data set."""
TIE_SEED = 20240101
"""Of the draw among events of one second; peers that are compared under these splits use the same."""
SECONDS_PER_DAY = 86_400
AGES = (18, 25, 35, 45, 50, 56)
YEARS = (1930, 1940, 1950, 1960, 1970, 1980, 1985, 1990, 1992, 1994, 1995, 1996, 1997, 1998, 1999, 2000)
DECAY_DAYS = (7, 30, 90)
COUNT_BUCKETS = 20
USER_ID, ITEM, GAP = "user", "item", "gap"
CODE = "code"
"""A second item id, for frozen embeddings in closed form."""


@dataclass(frozen=True)
class Split:
    """The training part and the truth of a split, by index of user and item.

    Attributes:
        user_ids, item_ids: ids of the training part, ascending [U], [I].
        user, item, time_s: the training events in time order [E].
        eval_users: users with truth, ascending [V].
        truth_row: position in eval_users of each truth pair's user, ascending [P].
        truth_item, truth_time_s: item and time of each truth pair [P].
        dropped_pairs: held-out pairs whose user or item the training part does not know.
        lost_users: users with held-out items, none of which the training part knows.
        is_ordered: the order of a user's events means something.
    """

    user_ids: Ints
    item_ids: Ints
    user: Ints
    item: Ints
    time_s: Ints
    eval_users: Ints
    truth_row: Ints
    truth_item: Ints
    truth_time_s: Ints
    dropped_pairs: int
    lost_users: int = 0
    is_ordered: bool = True

    def by_user(self) -> tuple[Ints, Ints]:
        """Returns the training events' numbers by (user, time) [E], and where each user's begin and end [U + 1]."""
        order = np.argsort(self.user, kind="stable")
        return order, offsets_of(np.bincount(self.user, minlength=len(self.user_ids)))

    def seen(self) -> ItemSets:
        """Returns the items of each user with truth in the training part."""
        order, bounds = self.by_user()
        return ItemSets(bounds, self.item[order]).select_users(self.eval_users)

    def without_last(self) -> Split:
        """Returns the split of a text file without each user's last training event, users and items numbered as before."""
        kept = self.time_s // SECONDS_PER_DAY < self.time_s.max() // SECONDS_PER_DAY
        return replace(self, user=self.user[kept], item=self.item[kept], time_s=self.time_s[kept] + 1)

    def truth_counts(self) -> Ints:
        """Returns how many items each user with truth has [V]."""
        return np.bincount(self.truth_row, minlength=len(self.eval_users))


def read_log_split(folder: Path, rule: str, *, inner: bool) -> Split:
    """Returns the split of behavior.parquet (user_id, item_id, event_time in seconds) in a folder.

    Raises:
        ValueError: the rule is none of lastpct-P, loo, temporal-D.
    """
    table = pq.read_table(folder / "behavior.parquet")
    log = np.stack([table.column(name).to_numpy().astype(np.int64) for name in ("user_id", "item_id", "event_time")])
    has_places = rule == "loo" and "seq_pos" in table.column_names
    ties = table.column("seq_pos").to_numpy() if has_places else np.random.default_rng(TIE_SEED).random(log.shape[1])
    log = log[:, np.lexsort((ties, log[2]))]
    _, first = np.unique(log[:2], axis=1, return_index=True)
    return cut(log[:, np.sort(first)], rule, inner=inner)


def read_sequence_split(path: Path, *, inner: bool) -> Split:
    """Returns leave one out of a text file of sequences ("user item item ...", oldest first).

    An event that repeats an earlier one of its user stays. Seen items are left out of the lists, so a repeated held-out item can not
    be hit.
    """
    return _time_by_place(cut(_read_lines(path)[0], "loo", inner=inner))


def read_graph_split(train: Path, test: Path, *, inner: bool) -> Split:
    """Returns the split of two such files, whose order means nothing and is drawn; inner: the last fifth of each training line."""
    log, files = _read_lines(train, test)
    order = np.random.default_rng(TIE_SEED).permutation(len(files))
    log, is_test = log[:, order], files[order] == 1
    split = cut(log[:, ~is_test], "lastpct-20", inner=False) if inner else _split_log(log, is_test)
    return replace(_time_by_place(split), is_ordered=False)


def read_cells(*paths: Path) -> list[tuple[int, str, str, int]]:
    """Returns the number of the file, the first word of the line, another one, and its place, for each other word of some text files."""
    return [
        (file, first, word, place)
        for file, path in enumerate(paths)
        for first, *words in filter(None, map(str.split, path.read_text(encoding="utf-8-sig").splitlines()))
        for place, word in enumerate(words)
    ]


def _read_lines(*paths: Path) -> tuple[Ints, Ints]:
    """Returns user, item and place in the line of each event, numbered by text over all files [3, E], and the number of its file [E]."""
    files, users, items, places = zip(*read_cells(*paths), strict=True)
    numbers = [np.unique(column, return_inverse=True)[1] for column in (users, items)]
    return np.stack([*numbers, np.array(places)]), np.array(files)


def _time_by_place(split: Split) -> Split:
    """Returns the split with events of a user a second apart, and all users' last ones at one midnight.

    So before that day is every user's line without its last item.
    """
    order, bounds = split.by_user()
    from_end = np.repeat(bounds[1:], np.diff(bounds)) - 1 - np.arange(len(order))
    by_time = np.argsort(-from_end, kind="stable")
    midnight = SECONDS_PER_DAY * (1 + -(-int(from_end.max(initial=0)) // SECONDS_PER_DAY))
    order = order[by_time]
    return replace(split, user=split.user[order], item=split.item[order], time_s=midnight - from_end[by_time])


def cut(log: Ints, rule: str, *, inner: bool) -> Split:
    """Returns a log (users, items and times of distinct events in time order [3, E]) cut by a rule."""
    held_out = _hold_out(log, rule)
    if inner:
        log = log[:, ~held_out]
        held_out = _hold_out(log, rule)
    return _split_log(log, held_out)


def _split_log(log: Ints, held_out: npt.NDArray[np.bool_]) -> Split:
    """Returns a log whose held-out events are the truth."""
    train, test = log[:, ~held_out], log[:, held_out]
    (user_ids, user), (item_ids, item) = (np.unique(train[side], return_inverse=True) for side in (0, 1))
    truth = test[:, np.isin(test[0], user_ids) & np.isin(test[1], item_ids)]
    truth_user = np.searchsorted(user_ids, truth[0])
    order = np.argsort(truth_user, kind="stable")
    eval_users, truth_row = np.unique(truth_user[order], return_inverse=True)
    return Split(
        user_ids=user_ids,
        item_ids=item_ids,
        user=user,
        item=item,
        time_s=train[2],
        eval_users=eval_users,
        truth_row=truth_row,
        truth_item=np.searchsorted(item_ids, truth[1])[order],
        truth_time_s=truth[2, order],
        dropped_pairs=test.shape[1] - truth.shape[1],
        lost_users=len(np.unique(test[0])) - len(eval_users),
    )


def _hold_out(log: Ints, rule: str) -> npt.NDArray[np.bool_]:
    """Returns which events a rule holds out [E]."""
    name, _, number = rule.partition("-")
    if name == "temporal" and number:
        return np.asarray(log[2] > log[2].max() - float(number) * SECONDS_PER_DAY)
    _, owner, counts = np.unique(log[0], return_inverse=True, return_counts=True)
    sizes, positions = counts[owner], np.empty(len(owner), np.int64)
    positions[np.argsort(owner, kind="stable")] = ranges(np.zeros(len(counts), np.int64), counts)
    if name == "lastpct" and number:
        held_out = np.maximum(1, np.floor(sizes * float(number) / 100))
        return np.asarray((positions >= sizes - held_out) & (sizes >= 2))
    if rule == "loo":
        return np.asarray((positions == sizes - 1) & (sizes >= 3))
    raise ValueError(f"split {rule!r}: expected lastpct-P, loo or temporal-D, P in % and D in days")


@dataclass(frozen=True)
class FeatureColumn:
    """One feature of all users or all items.

    Attributes:
        values: indices below size, 0 = missing [n].
        offsets: row i has values[offsets[i] : offsets[i + 1]]; None: one value per row.
        size: number of indices, including 0.
    """

    name: str
    values: Ints
    size: int
    offsets: Ints | None = None

    def arrow(self) -> pa.Array:
        """Returns the column as towers read it: int32, or lists of int32."""
        values = pa.array(self.values.astype(np.int32))
        return values if self.offsets is None else pa.ListArray.from_arrays(self.offsets.astype(np.int32), values)


def user_columns(split: Split, entities: Entities | None, *, with_id: bool) -> list[FeatureColumn]:
    """Returns the features of the split's users; without a table of users at most the id."""
    own = [identity(USER_ID, len(split.user_ids))] if with_id else []
    if entities is None:
        return own
    users = _rows_of(entities[0], "user_id", split.user_ids)
    age = users["age"].fill_null(0).to_numpy().astype(np.int64)
    return [
        _categories("gender", users["gender"]),
        FeatureColumn("age", np.digitize(age, AGES) + 1, len(AGES) + 2),
        _categories("occupation", users["occupation"]),
        _categories("zip3", pc.utf8_slice_codeunits(users["zip_code"], 0, 3)),
        *own,
    ]


def item_columns(split: Split, entities: Entities | None, *, with_counts: bool, with_recent: bool) -> list[FeatureColumn]:
    """Returns the features of the split's items, the item id first; popularity only `with_counts`."""
    columns = [identity(ITEM, len(split.item_ids))]
    if entities is not None:
        items = _rows_of(entities[1], "item_id", split.item_ids)
        year = items["release_year"].fill_null(0).to_numpy().astype(np.int64)
        buckets = np.where(year == 0, 0, np.digitize(year, YEARS) + 1)
        columns += [_genres(items["genres"]), FeatureColumn("year", buckets, len(YEARS) + 2)]
    if with_counts:
        columns.append(_buckets("popularity_ever", np.log(popularity(split) + 1.0)))
    if with_counts and with_recent:
        columns += [_buckets(f"popularity_{days}d", np.log(_recent_popularity(split, days) + 0.1)) for days in DECAY_DAYS]
    return columns


def gap_columns(split: Split) -> tuple[FeatureColumn, FeatureColumn]:
    """Returns the time since the user's last event as a feature of the events [E], and of all users [U] when asked for their truth."""
    order, bounds = split.by_user()
    times, last = split.time_s[order], bounds[1:] - 1
    of_events = np.zeros(len(order), np.int64)
    of_events[order] = _gap_indices(np.diff(times, prepend=times[0]))
    of_events[order[bounds[:-1]]] = 0
    asked = times[last]
    asked[split.eval_users[split.truth_row]] = split.truth_time_s
    return tuple(FeatureColumn(GAP, values, NUM_GAPS + 1) for values in (of_events, _gap_indices(asked - times[last])))


def _gap_indices(seconds: Ints) -> Ints:
    return gap_classes(torch.from_numpy(seconds)).numpy() + 1


def identity(name: str, count: int) -> FeatureColumn:
    """Returns an id feature: every row has its own value."""
    return FeatureColumn(name, np.arange(count) + 1, count + 1)


def popularity(split: Split) -> npt.NDArray[np.float64]:
    """Returns the number of users who interacted with each item [I]."""
    return np.bincount(split.item, minlength=len(split.item_ids)).astype(np.float64)


def interactions(split: Split) -> csr_matrix:
    """Returns the interactions, float32 [U, I] of zeros and ones."""
    ones = np.ones(len(split.user), np.float32)
    return csr_matrix((ones, (split.user, split.item)), shape=(len(split.user_ids), len(split.item_ids)))


def _recent_popularity(split: Split, days: float) -> npt.NDArray[np.float64]:
    """Returns the sum over each item's events of exp(-age / days), age from the last event of the training part [I]."""
    age_days = (split.time_s.max() - split.time_s) / SECONDS_PER_DAY
    return np.bincount(split.item, np.exp(-age_days / days), len(split.item_ids))


def _rows_of(table: pa.Table, key: str, ids: Ints) -> pa.Table:
    """Returns the rows of these ids, in their order; nulls for ids without a row."""
    return table.take(pc.index_in(pa.array(ids), value_set=table[key].combine_chunks()))


def _categories(name: str, column: pa.ChunkedArray) -> FeatureColumn:
    texts = pc.fill_null(pc.cast(column, pa.string()), "").to_numpy(zero_copy_only=False).astype(str)
    distinct, codes = np.unique(texts, return_inverse=True)
    codes = codes + 1 - bool(distinct[0] == "")
    return FeatureColumn(name, codes.astype(np.int64), int(codes.max()) + 1)


def _genres(column: pa.ChunkedArray) -> FeatureColumn:
    lists = pc.split_pattern(pc.fill_null(column, "unknown"), "|").combine_chunks()
    distinct, codes = np.unique(lists.flatten().to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    return FeatureColumn("genres", codes.astype(np.int64) + 1, len(distinct) + 1, offsets_of(list_lengths(lists)))


def _buckets(name: str, values: npt.NDArray[Any]) -> FeatureColumn:
    edges = np.unique(np.quantile(values, np.arange(1, COUNT_BUCKETS) / COUNT_BUCKETS))
    return FeatureColumn(name, np.digitize(values, edges) + 1, len(edges) + 2)
