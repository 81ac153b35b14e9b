"""Which columns tell what is not known yet: times of users and items after their first events, columns of a log that follow from the item.

A time of registration or publication lies before the first event. A time of the last visit lies after it: a table with such a
column knows on every earlier day what happened later. The category of an item in a log is known only with the item: as a context of requests
it would tell a model in training what it has to find.

Belongs here: first events of ids, how many times are later, how far items tell values. Does not belong here: which columns are times
(`column_roles.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.config.pipeline import BehaviorTable
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.sources.canonical_tables import EVENT_TIME
from dssm_assets.core.sources.convert import to_ids
from dssm_assets.core.sources.event_time import dates_of, to_event_time_ms

_SAMPLED_ROWS: Final = 200_000
_LEAST_PAIRS: Final = 100
_FOLLOWS_FROM: Final = 0.5
_ID: Final = "id"
_DAY: Final = "day"


class FirstEvents:
    """The day of the first event of each id of one side, collected from blocks of a log with our column names."""

    def __init__(self, key: str, timezone: str) -> None:
        """Collects the ids of column `key`; days are those of the zone."""
        self._key, self._zone = key, timezone
        self._first: pa.Table | None = None

    def observe(self, block: pa.Table, table: BehaviorTable) -> None:
        """Adds a block; one with faults, which `LogScan` names, is left out."""
        try:
            ids = to_ids(block.column(self._key), self._key).cast(pa.string())
            times = to_event_time_ms(
                block.column(EVENT_TIME),
                unit=table.time_unit,
                timezone=self._zone,
                where=EVENT_TIME,
                time_format=table.time_format,
            )
        except (SchemaError, KeyError):
            return
        fresh = pa.table({_ID: ids, _DAY: dates_of(times, self._zone).cast(pa.int32())})
        rows = fresh if self._first is None else pa.concat_tables([self._first, fresh])
        grouped = rows.group_by(_ID).aggregate([(_DAY, "min")])
        self._first = pa.table({_ID: grouped.column(_ID), _DAY: grouped.column(f"{_DAY}_min")})

    def later_frac(self, blocks: Iterable[pa.Table], key: str, column: str, time_format: str | None = None) -> float:
        """Returns the fraction of ids with a time and an event whose time is on a later day than the first event.

        By hand: ids a and b have their first events on day 3; times of day 1 and of day 5 give .5.

        Args:
            blocks: of the table, with these two columns.
            key: the ids.
            column: the times.
            time_format: of the times, if they are text other than ISO 8601.
        """
        if self._first is None:
            return 0.0
        known = later = 0
        for block in blocks:
            try:
                ids = to_ids(block.column(key), key).cast(pa.string())
                times = to_event_time_ms(
                    block.column(column), unit="auto", timezone=self._zone, where=column, time_format=time_format
                )
            except SchemaError:
                continue
            days = dates_of(times, self._zone).cast(pa.int32())
            place: Any = pc.index_in(ids, value_set=self._first.column(_ID).combine_chunks())
            first = self._first.column(_DAY).combine_chunks().take(place)
            known += pc.sum(pc.is_valid(pc.add(days, first))).as_py() or 0
            later += pc.sum(pc.greater(days, first)).as_py() or 0
        return later / known if known else 0.0


class ItemColumns:
    """Finds the columns of a log that follow from the item, in its first rows, which are collected from blocks with our column names."""

    def __init__(self, key: str, names: Sequence[str]) -> None:
        """Collects the ids of column `key` and the named columns."""
        self._key, self._names = key, names
        self._rows: list[pa.Table] = []

    def observe(self, block: pa.Table) -> None:
        """Adds a block, unless there are rows enough."""
        if self._names and sum(rows.num_rows for rows in self._rows) < _SAMPLED_ROWS:
            self._rows.append(block.select([self._key, *self._names]).slice(0, _SAMPLED_ROWS))

    def find(self) -> frozenset[str]:
        """Returns the columns whose values two rows of one item share far more often than any two rows do.

        With s, how often two successive rows of an item share the value, and c, how often any two rows do: (s - c) / (1 - c) is .5 or
        more (Cohen's kappa), over 100 such pairs of rows at least. By hand: items a and b in turn, a always "x" and b always "y": s is 1, c is
        .5, which is 1; with values that do not depend on the item s is c, which is 0.
        """
        if not self._rows:
            return frozenset()
        rows = pa.concat_tables(self._rows)
        rows = rows.take(pc.sort_indices(rows, sort_keys=[(self._key, "ascending")]))
        ids = rows.column(self._key).combine_chunks()
        is_pair = pc.equal(ids[1:], ids[:-1])
        return frozenset(
            name for name in self._names if _agreement(rows.column(name).combine_chunks(), is_pair) >= _FOLLOWS_FROM
        )


def _agreement(values: pa.Array, is_pair: pa.Array) -> float:
    same = pc.equal(values[1:], values[:-1]).filter(is_pair).drop_null()
    counts = pc.value_counts(values.drop_null()).field("counts").cast(pa.float64())
    if len(same) < _LEAST_PAIRS or len(counts) < 2:
        return 0.0
    shares = pc.divide(counts, pc.sum(counts))
    chance = float(pc.sum(pc.multiply(shares, shares)).as_py())
    return (float(pc.mean(same).as_py()) - chance) / (1 - chance)
