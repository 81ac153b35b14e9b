"""Joins shown items with the events of people, in DuckDB, which spills to disk.

An event with a request id takes its item from that answer, even if a clock jumped and it seems earlier. Any other event takes it
from the latest answer that showed the item to the person. Ids are compared as texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import duckdb
import pyarrow as pa

_INPUTS: Final = {
    "shown": "request_id, user_id::varchar as user_id, item_id::varchar as item_id, coalesce(variant, '') as variant, "
    'bundle_id, "position", time_ms',
    "events": "request_id, user_id::varchar as user_id, item_id::varchar as item_id, event_time_ms, event",
}
_JOIN: Final = """
create temp table list as select row_number() over () as row, *, time_ms between {first_ms} and {last_ms} as is_counted,
    coalesce('user ' || user_id, 'request ' || request_id) as person from shown;
create temp table act as select row_number() over () as number, *, event_time_ms between {first_ms} and {last_ms} as is_counted,
    coalesce(request_id in (select request_id from list), false) as names_request
    from events where list_contains({names}, event);
create temp table joined as
    select number, row, names_request from act join list using (request_id, item_id)
    where names_request and event_time_ms <= time_ms + {open_ms}
    union all
    select number, row, names_request from act asof join list
    on act.user_id = list.user_id and act.item_id = list.item_id and event_time_ms >= time_ms
    where not names_request and event_time_ms <= time_ms + {open_ms};
"""
_PEOPLE: Final = """
select variant, count(distinct request_id) as lists, count(*) as items, count(*) filter (is_taken) as taken,
    count(distinct request_id) filter (is_taken) as hits, coalesce(sum("position") filter (is_taken), 0)::bigint as rank_sum
from (select *, row in (select row from joined) as is_taken from list where is_counted)
group by variant, person order by variant, person
"""
_VARIANTS: Final = """
select list.variant, mode(bundle_id) as bundle_id, any_value(found / wanted) as served_hit_rate from list left join (
    select variant, count(distinct (act.user_id, act.item_id)) as wanted,
        count(distinct (act.user_id, act.item_id)) filter (number in (select number from joined)) as found
    from act asof join list on act.user_id = list.user_id and event_time_ms >= time_ms
    where list.is_counted and event_time_ms <= time_ms + {open_ms} group by variant
) as truth on list.variant = truth.variant where is_counted group by list.variant
"""
_EVENTS: Final = """
select count(*) as events, count(*) filter (number in (select number from joined where names_request)) as by_request,
    count(*) filter (number in (select number from joined where not names_request)) as by_person
from act where is_counted
"""


@dataclass(frozen=True)
class Takes:
    """What people took of the lists of a span of time.

    Attributes:
        people: one row per variant and person: lists, items, taken, hits (lists of which something was taken), rank_sum (of what
            was taken). Who has no user id is a person for one request.
        variants: one row per variant: bundle_id (of most of its rows), served_hit_rate.
        joined: the number of `events` in the span, and of those joined `by_request` and `by_person`.
    """

    people: pa.Table
    variants: pa.Table
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
        shown: tables or datasets like `shown`, also of days nearby, whose lists compete for the events.
        events: tables or datasets like behavior_table.
        names: events that take an item.
        span_ms: the span's first and last millisecond, unix time.
    """
    texts = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
    values = {"first_ms": span_ms[0], "last_ms": span_ms[1], "open_ms": round(hours * 3_600_000), "names": f"[{texts}]"}
    for name, parts in (("shown", shown), ("events", events)):
        for number, part in enumerate(parts):
            database.register(f"{name}_{number}", part)
        rows = (f"select {_INPUTS[name]} from {name}_{number}" for number in range(len(parts)))
        database.execute(f"create temp view {name} as {' union all '.join(rows)}")
    database.execute(_JOIN.format(**values))
    people, variants, found = (database.sql(query.format(**values)).to_arrow_table() for query in (_PEOPLE, _VARIANTS, _EVENTS))
    return Takes(people, variants, found.to_pylist()[0])
