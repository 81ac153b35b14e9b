"""Segments group users by a property, tiers group items by popularity. Each group gets a hit rate of its own.

Shapes: U evaluated users, I items.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dssm_assets.core.arrays.ids import cast_ids, find_positions
from dssm_assets.core.arrays.ragged import IntArray, Mask, combine_chunks, is_text
from dssm_assets.core.columns import COUNT, ITEM_ID, SEGMENT, TRUTH_COUNT, USER_ID, VALUE
from dssm_assets.core.config.evaluation import Evaluation, Segment, SegmentKind
from dssm_assets.core.errors import Fault, SchemaError, remedy_of_missing
from dssm_assets.core.evaluation.evaluation_tables import hits_column
from dssm_assets.core.evaluation.rates import integers, interval, resampled_sums
from dssm_assets.core.features.column_values import number_values, parse_number, text_values


class Tier(StrEnum):
    """Tiers of items by positive events in the window, in the order of `ItemPopularity.tier`."""

    HEAD = "head"
    """The most popular 1% of the items with any event."""
    NEXT = "next"
    """The next 9%."""
    REST = "rest"
    """Every other item with an event."""
    UNSEEN = "unseen"
    """Items without an event in the window, or outside the corpus."""


TIERS = tuple(Tier)
HEAD_PERCENT, NEXT_PERCENT = 1, 10


@dataclass(frozen=True)
class ItemPopularity:
    """The corpus and the positive events of each item in the window.

    Attributes:
        item_ids: [I], distinct.
        count: int64 [I], positive events in the window.
    """

    item_ids: pa.Array
    count: IntArray

    @property
    def tier(self) -> IntArray:
        """Returns the position of each item's tier in TIERS, int64 [I].

        Of n items with events, ordered by count, the first ceil(n / 100) are the head; items up to ceil(n / 10) are the tier
        next. Ties keep the order of the corpus. By hand: 250 items with events make 3 head, 22 next, 225 rest.
        """
        seen = int((self.count > 0).sum())
        head, following = -(-seen * HEAD_PERCENT // 100), -(-seen * NEXT_PERCENT // 100)
        rank = np.empty(len(self.count), dtype=np.int64)
        rank[np.argsort(-self.count, kind="stable")] = np.arange(len(self.count))
        return np.searchsorted([head, following, seen], rank, side="right").astype(np.int64)

    @property
    def is_head(self) -> Mask:
        return np.asarray(self.tier == TIERS.index(Tier.HEAD))

    @property
    def self_information(self) -> NDArray[np.float64]:
        """Returns -log2 p in bits, float64 [I]. p = (count + 1) / (sum of counts + I), so it is finite for unseen items too."""
        return np.asarray(-np.log2((self.count + 1) / (self.count.sum() + len(self.count))))

    @property
    def head_frac(self) -> float:
        """Returns the fraction of the window's positive events on head items, 0 without events."""
        total = int(self.count.sum())
        return float(self.count[self.is_head].sum() / total) if total else 0.0


def popularity_from_counts(item_ids: pa.Array, counts: pa.Table) -> ItemPopularity:
    """Returns the popularity of a corpus. An item without a count gets 0.

    Args:
        counts: columns item_id (distinct) and count.
    """
    values = combine_chunks(counts.column(COUNT)).to_numpy().astype(np.int64)
    known = cast_ids(combine_chunks(counts.column(ITEM_ID)), item_ids.type, "counts of items in the window")
    return ItemPopularity(item_ids, np.append(values, 0)[find_positions(item_ids, known)])


def tiers_of_items(item_tier: IntArray, items: IntArray) -> IntArray:
    """Returns each item's tier, as a position in TIERS. An item outside the corpus (-1) has the tier unseen."""
    return np.append(item_tier, TIERS.index(Tier.UNSEEN))[items]


MOST_VALUES: Final = 12
"""This many values of a user column get a row each; all other values share one row."""
MISSING, OTHER = "(missing)", "(other)"
FIRST_TIME, RETURNING = "first-time", "returning"
TIER_LABELS: Final = {
    Tier.HEAD: "head: top 1% of items",
    Tier.NEXT: "next 9%",
    Tier.REST: "rest",
    Tier.UNSEEN: "unseen in the window",
}


@dataclass(frozen=True)
class Cuts:
    """The segments of the evaluated users and the tiers of the items.

    Attributes:
        users: name of a segment -> each user's value, string [U].
        item_tier: int64 [I], position in TIERS. None if no segment splits by the popularity of items.
    """

    users: Mapping[str, pa.Array]
    item_tier: IntArray | None = None

    def select_users(self, users: IntArray) -> Cuts:
        return Cuts({name: labels.take(pa.array(users)) for name, labels in self.users.items()}, self.item_tier)


def segment_column(name: str) -> str:
    """Returns the column of hit_rate_detail with each user's value of a segment."""
    return f"{SEGMENT}_{name}"


def tier_columns(tier: Tier) -> tuple[str, str]:
    """Returns the names of two columns of hit_rate_detail: a user's hits in a tier, and the items to find in it."""
    return f"hits_{tier}", f"{TRUTH_COUNT}_{tier}"


def activity_labels(edges: Sequence[int]) -> list[str]:
    """Returns the names of the activity segments in order: edges [10, 30] -> "0", "1-9", "10-29", "30+"."""
    bounds = _activity_bounds(edges)
    closed = [str(low) if high == low + 1 else f"{low}-{high - 1}" for low, high in pairwise(bounds)]
    return [*closed, f"{bounds[-1]}+"]


def _activity_bounds(edges: Sequence[int]) -> list[int]:
    return [0, 1, *(edge for edge in edges if edge > 1)]


def label_activity(events: IntArray, edges: Sequence[int]) -> pa.Array:
    """Returns the activity segment of each user, by positive events in the window."""
    index = np.searchsorted(_activity_bounds(edges), events, side="right") - 1
    return pa.array(activity_labels(edges), pa.string()).take(pa.array(index))


def label_tenure(user_ids: pa.Array, known_ids: pa.Array) -> pa.Array:
    """Returns "returning" for each user with a positive event before the day, else "first-time"."""
    known = cast_ids(known_ids, user_ids.type, "users with events before the evaluation day")
    return pc.if_else(pc.is_in(user_ids, value_set=known), RETURNING, FIRST_TIME)


def edge_labels(edges: Sequence[float]) -> list[str]:
    """Returns the names of numeric ranges [a, b): edges [18, 25] -> "< 18", "18 to < 25", ">= 25"."""
    texts = [f"{edge:.12g}" for edge in edges]
    return [f"< {texts[0]}", *(f"{low} to < {high}" for low, high in pairwise(texts)), f">= {texts[-1]}"]


def label_column(user_ids: pa.Array, table_ids: pa.ChunkedArray, column: pa.ChunkedArray, segment: Segment) -> pa.Array:
    """Returns each user's value in a column as text; with edges, the range of the value. Without a value or row: "(missing)".

    Args:
        user_ids: the evaluated users [U].
        table_ids: the users of the table, distinct.
        segment: if it has edges, they cut numbers into ranges.

    Raises:
        SchemaError: the column holds lists or structures, or the segment has edges and the column has no numbers.
        InputError: id types differ.
    """
    where = f"table user_table, column {segment.user_column}"
    rows = find_positions(user_ids, cast_ids(combine_chunks(table_ids), user_ids.type, "table user_table, column user_id"))
    values = combine_chunks(column).take(pa.array(rows, mask=rows < 0))
    if segment.edges is None:
        return pc.fill_null(text_values(values, where).cast(pa.string()), MISSING)
    numbers = number_values(values, where)
    index = np.searchsorted(np.asarray(segment.edges), numbers, side="right")
    labels = pa.array(edge_labels(segment.edges), pa.string()).take(pa.array(index, mask=np.isnan(numbers)))
    return pc.fill_null(labels, MISSING)


def segment_table(detail: pa.Table, settings: Evaluation, seed: int) -> pa.Table:
    """Returns segment, value, users, hits, truth_count, hit_rate, ci_low, ci_high. A value without truth has no row.

    hit_rate = sum of hits / sum of truth_count over the users with truth in the row. The interval is a 95% percentile
    bootstrap over these users. All items to find count, warm or not, so the rows of one segment add up to the whole. By
    hand: town x has u (1 hit of 2) and v (1 of 2), so its hit rate is 2/4.

    Segments are in the configured order. Activities and ranges are in ascending order. Other values are sorted by number or
    text; only the most frequent MOST_VALUES get a row each.

    Args:
        detail: rows per user from `hit_rate_detail`, made with the same segments (see `columns_needed`).

    Raises:
        SchemaError: detail was made with other segments.
    """
    lacking = [name for name in columns_needed(settings.segments) if name not in detail.column_names]
    if lacking:
        remedy = "materialize hit_rate_detail of this day again: evaluation.segments changed since"
        got = ", ".join(detail.column_names)
        raise SchemaError([Fault(f"hit_rate_detail, column {name}", "the column to exist", got, remedy) for name in lacking])
    rows: list[dict[str, Any]] = []
    for segment in settings.segments:
        for value, hits, truth in _split_by_value(detail, segment):
            has_truth = truth > 0
            if has_truth.any():
                sums = resampled_sums(np.stack([hits, truth], axis=1)[has_truth], settings.bootstrap_samples, seed)
                low, high = interval(sums[:, 0] / sums[:, 1])
                counts = {"users": int(has_truth.sum()), "hits": int(hits[has_truth].sum()), TRUTH_COUNT: int(truth.sum())}
                rate = {"hit_rate": counts["hits"] / counts[TRUTH_COUNT], "ci_low": float(low), "ci_high": float(high)}
                rows.append({SEGMENT: segment.name, VALUE: value, **counts, **rate})
    return pa.Table.from_pylist(rows, schema=SEGMENT_SCHEMA)


SEGMENT_SCHEMA = pa.schema(
    [(SEGMENT, pa.string()), (VALUE, pa.string())]
    + [(name, pa.int64()) for name in ("users", "hits", TRUTH_COUNT)]
    + [(name, pa.float64()) for name in ("hit_rate", "ci_low", "ci_high")]
)


def columns_needed(segments: Sequence[Segment]) -> list[str]:
    """Returns the columns of hit_rate_detail that `segment_table` reads."""
    found = ["hits", TRUTH_COUNT]
    for segment in segments:
        if segment.kind is SegmentKind.ITEM_POPULARITY:
            found += [column for tier in TIERS for column in tier_columns(tier)]
        else:
            found.append(segment_column(segment.name))
    return list(dict.fromkeys(found))


def with_hits_of(detail: pa.Table, counts: Mapping[str, pa.Table], k: int, ds: str) -> pa.Table:
    """Replaces the hits in rows of hit_rate_detail by another scorer's hits.

    Args:
        detail: user_id and the columns in `columns_needed`.
        counts: column of hits -> the other scorer's rows of hit_counts for the same items; none for a user without such items.
        k: length of the lists.
        ds: the day, for errors.

    Raises:
        SchemaError: rows of hit_counts are missing, or were counted for other items to find.
    """
    faults = []
    for name, rows in counts.items():
        truth_name = name.replace("hits", TRUTH_COUNT)
        if integers(rows, TRUTH_COUNT).sum() != integers(detail, truth_name).sum():
            expected, got = f"{truth_name} of hit_rate_detail", f"{len(rows)} rows of users with other items to find"
            faults.append(Fault(f"hit_counts, {name}", expected, got, remedy_of_missing("hit_counts", ds)))
        at = find_positions(combine_chunks(rows.column(USER_ID)), combine_chunks(detail.column(USER_ID)))
        hits = np.zeros(len(detail), np.int64)
        hits[at] = integers(rows, hits_column(k))
        detail = detail.set_column(detail.column_names.index(name), name, pa.array(hits))
    SchemaError.raise_if(faults)
    return detail


def _split_by_value(detail: pa.Table, segment: Segment) -> list[tuple[str, IntArray, IntArray]]:
    """Returns each value of the segment with its users' hits and truth_count, in the order of display."""
    if segment.kind is SegmentKind.ITEM_POPULARITY:
        pairs = [(TIER_LABELS[tier], *tier_columns(tier)) for tier in TIERS]
        return [(label, integers(detail, hits), integers(detail, truth)) for label, hits, truth in pairs]
    labels = combine_chunks(detail.column(segment_column(segment.name)))
    shown = _shown_values(labels, segment)
    index = find_positions(labels, pa.array(shown, pa.string()))
    index[index < 0] = len(shown)
    hits, truth = integers(detail, "hits"), integers(detail, TRUTH_COUNT)
    return [(value, hits[index == at], truth[index == at]) for at, value in enumerate([*shown, OTHER])]


def _shown_values(labels: pa.Array, segment: Segment) -> list[str]:
    if segment.kind is SegmentKind.ACTIVITY:
        return activity_labels(segment.activity_edges)
    if segment.kind is SegmentKind.TENURE:
        return [FIRST_TIME, RETURNING]
    if segment.edges is not None:
        return [*edge_labels(segment.edges), MISSING]
    counts = {pair["values"]: pair["counts"] for pair in pc.value_counts(labels).to_pylist()}
    counts.pop(MISSING, None)
    frequent = sorted(counts, key=lambda value: (-counts[value], value))[:MOST_VALUES]
    numbers = {value: parse_number(value) for value in frequent}
    return [*sorted(frequent, key=lambda value: (np.inf if numbers[value] is None else numbers[value], value)), MISSING]


def choose_category_column(items: pa.Table, ignored: Sequence[str]) -> str | None:
    """Returns the column most like a category: it has about as many values as items per value. None if no column qualifies.

    Candidates are columns of texts, whole numbers or booleans with at least two values. By hand: for 10,000 items the ideal
    number of values is 100, the square root. Of columns with 3, 80 and 6,000 values, 80 is nearest by ratio.

    Args:
        ignored: columns to leave out, such as the item's id.
    """
    wanted, distances = math.sqrt(max(items.num_rows, 1)), dict[str, float]()
    for field in items.schema:
        kind = field.type
        if field.name not in ignored and (is_text(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
            count = pc.count_distinct(items.column(field.name)).as_py()
            if count > 1:
                distances[field.name] = abs(math.log(count / wanted))
    return min(distances, key=lambda name: distances[name], default=None)
