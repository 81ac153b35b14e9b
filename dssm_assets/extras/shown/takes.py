"""Joins what was shown with what people did: the takes of each person. DuckDB spills what memory does not hold.

An event that names a request of the log takes its item from that answer. Any other event takes it from the latest answer that
showed the item to the person. Both have `hours` after the answer. An event before its answer, by a clock that jumped, counts
if it names the request. Ids are compared as texts. Who has no user id is a person for one request.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

_MS_PER_HOUR: Final = 3_600_000
_INPUTS: Final = {
    "shown": "request_id, user_id::varchar as user_id, item_id::varchar as item_id, coalesce(variant, '') as variant, "
    'bundle_id, "position", time_ms',
    "events": "request_id, user_id::varchar as user_id, item_id::varchar as item_id, event_time_ms, event",
}
_JOIN: Final = """
create temp table list as select row_number() over () as row, *,
    coalesce('user ' || user_id, 'request ' || request_id) as person, time_ms between {first_ms} and {last_ms} as is_counted
    from shown;
create temp table act as select row_number() over () as number, *, event_time_ms between {first_ms} and {last_ms} as is_counted,
    coalesce(request_id in (select request_id from list), false) as names_request
    from events where event in (select name from names);
create temp table joined as
    select number, row, names_request from act join list using (request_id, item_id)
    where names_request and event_time_ms <= time_ms + {open_ms}
    union all
    select number, row, names_request from act asof join list
    on act.user_id = list.user_id and act.item_id = list.item_id and event_time_ms >= time_ms
    where not names_request and event_time_ms <= time_ms + {open_ms};
"""
_PEOPLE: Final = """
select variant, person, count(distinct request_id) as lists, count(*) as items, count(*) filter (is_taken) as taken,
    count(distinct request_id) filter (is_taken) as lists_with_hit,
    coalesce(sum("position") filter (is_taken), 0)::bigint as rank_sum
from (select *, row in (select row from joined) as is_taken from list where is_counted)
group by variant, person order by variant, person
"""
_TRUTH: Final = """
select variant, count(distinct (user_id, item_id)) as wanted, count(distinct (user_id, item_id)) filter (is_joined) as found
from (
    select variant, act.user_id, act.item_id, number in (select number from joined) as is_joined
    from act asof join list on act.user_id = list.user_id and event_time_ms >= time_ms
    where list.is_counted and event_time_ms <= time_ms + {open_ms}
) group by variant
"""
_BUNDLES: Final = """
select variant, bundle_id, count(distinct request_id) as lists, count(*) as items
from list where is_counted group by variant, bundle_id order by variant, lists desc, bundle_id
"""
_SHARES: Final = """
select count(*) as events, count(*) filter (number in (select number from joined where names_request)) as by_request,
    count(*) filter (number in (select number from joined where not names_request)) as by_person
from act where is_counted
"""


@dataclass(frozen=True)
class Takes:
    """What people took of the lists of a span of time.

    Attributes:
        people: one row per variant and person: lists, items, taken, lists_with_hit, rank_sum (of what was taken).
        truth: one row per variant: `wanted`, the pairs of user and item that users with lists took within the hours; `found`,
            those of them that a list had shown.
        bundles: one row per variant and bundle: lists, items; within a variant the most lists first.
        joined: the events of the span, and how many of them were joined `by_request` and `by_person`.
    """

    people: pa.Table
    truth: pa.Table
    bundles: pa.Table
    joined: Mapping[str, int]


def join_takes(
    database: duckdb.DuckDBPyConnection,
    shown: Sequence[Any],
    events: Sequence[Any],
    *,
    names: Sequence[str],
    hours: float,
    span_ms: tuple[int, int],
) -> Takes:
    """Returns the takes of the lists of a span.

    Args:
        database: an empty one.
        shown: tables or datasets like `shown`, at least one; of later days too, whose lists may have shown an item again.
        events: tables or datasets like behavior_table, at least one.
        names: events that take an item.
        span_ms: the span's first and last millisecond, unix time.
    """
    times = {"first_ms": span_ms[0], "last_ms": span_ms[1], "open_ms": round(hours * _MS_PER_HOUR)}
    database.register("names", pa.table({"name": pa.array(names, pa.string())}))
    for name, parts in (("shown", shown), ("events", events)):
        for number, part in enumerate(parts):
            database.register(f"{name}_{number}", part)
        rows = (f"select {_INPUTS[name]} from {name}_{number}" for number in range(len(parts)))
        database.execute(f"create temp view {name} as {' union all '.join(rows)}")
    database.execute(_JOIN.format(**times))
    people, truth, bundles, shares = (
        database.sql(query.format(**times)).to_arrow_table() for query in (_PEOPLE, _TRUTH, _BUNDLES, _SHARES)
    )
    return Takes(people, truth, bundles, shares.to_pylist()[0])
