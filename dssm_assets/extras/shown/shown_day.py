"""The step of the asset `shown`: a day of the log, as people saw it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any, Final

import duckdb
import pyarrow as pa

from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.schema import ColumnSpec, TableSpec
from dssm_assets.extras.shown.log_folder import TEXT_PARTS, open_log
from dssm_assets.extras.shown.parts import POSITION, REQUEST_ID, VARIANT, part_schema
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, each_day, start_of_day_ms
from dssm_assets.storage.local_files import ScratchFolder
from dssm_assets.storage.tables import ROW_GROUP_ROWS

SHOWN: Final = TableSpec(
    name="shown",
    grain="one row per item of a list that was answered on the day; if the caller said what it showed, per item of that",
    key=("time_ms", REQUEST_ID, POSITION),
    columns=(
        ColumnSpec("time_ms", pa.int64(), "When it was answered, unix milliseconds."),
        ColumnSpec(REQUEST_ID, pa.string(), "The answer."),
        ColumnSpec(USER_ID, None, "Who got it; null: the request named no user, or one with an id of another type.", True),
        ColumnSpec(VARIANT, pa.string(), "The variant of the experiment; null without one.", True),
        ColumnSpec("bundle_id", pa.string(), "The bundle that answered.", True),
        ColumnSpec(POSITION, pa.int32(), "The item's place in the list, from 1."),
        ColumnSpec(ITEM_ID, None, "What was shown."),
        ColumnSpec("score", pa.float64(), "Its score in the answer.", True),
        ColumnSpec("channels", pa.list_(pa.string()), "The channels that proposed it.", True),
    ),
)
_MARGIN_MS: Final = 3_600_000
"""What was shown of an answer may be sent back after midnight."""
_DAY: Final = """
create temp table row as select distinct * from part;
create temp table answer as
    select request_id, min(time_ms) as time_ms, max(user_id) as user_id, max(variant) as variant, max(bundle_id) as bundle_id
    from row where kind = 'answer' group by request_id;
create temp table chosen as
    select coalesce(answer.time_ms, row.time_ms) as time_ms, row.request_id, coalesce(answer.user_id, row.user_id) as user_text,
        {user_id} as user_id, coalesce(answer.variant, row.variant) as variant,
        coalesce(answer.bundle_id, row.bundle_id) as bundle_id, row."position", {item_id} as item_id,
        coalesce(row.score, same.score) as score, coalesce(row.channels, same.channels) as channels, row.kind
    from row left join answer using (request_id)
    left join row same on row.kind = 'shown' and same.kind = 'answer'
        and row.request_id = same.request_id and row.item_id = same.item_id
    where (row.kind = 'shown' or row.request_id not in (select request_id from row where kind = 'shown'))
        and coalesce(answer.time_ms, row.time_ms) between {first_ms} and {last_ms};
"""
_COUNTS: Final = """
select count(distinct request_id) as lists, count(distinct user_id) as users,
    count(distinct request_id) filter (kind = 'shown') as lists_shown_otherwise,
    count(distinct user_text) filter (user_id is null) as users_of_another_type,
    count(*) filter (item_id is null) as items_of_another_type,
    list(distinct variant order by variant) filter (variant is not null) as variants
from chosen
"""


@each_day
def shown(workspace: Workspace, ds: str) -> StepResult:
    """Writes what was shown on a day. The positions that a caller sent back replace those of the answer."""
    log, hidden = open_log(workspace.loaded), workspace.tables.partitions.hidden.note()
    first_ms, end_ms = (start_of_day_ms(day, workspace.config.calendar.timezone) for day in (ds, day_before(ds, -1)))
    types = _find_id_types(workspace)
    texts = {USER_ID: "coalesce(answer.user_id, row.user_id)", ITEM_ID: "row.item_id"}
    state = {"log": log.uri, "parts": log.fingerprint(find_log_days(workspace, ds))}
    days = _utc_days(first_ms - _MARGIN_MS, end_ms + _MARGIN_MS) if ds >= hidden.first_day else []
    with spilling_database(workspace) as database:
        database.register("nothing", TEXT_PARTS.empty_table())
        database.execute("create temp table part as select * from nothing")
        for rows in log.read(days, (first_ms - _MARGIN_MS, end_ms + _MARGIN_MS), hidden):
            database.register("rows", rows)
            database.execute("insert into part select * from rows")
        database.execute(
            _DAY.format(first_ms=first_ms, last_ms=end_ms - 1, **{name: _convert(texts[name], types[name]) for name in types})
        )
        facts: dict[str, Any] = database.sql(_COUNTS).to_arrow_table().to_pylist()[0]
        facts["variants"] = facts["variants"] or []
        schema = pa.schema([part_schema(*types.values()).field(column.name) for column in SHOWN.columns])
        order, names = (", ".join(f'"{name}"' for name in some) for some in (SHOWN.key, schema.names))
        query = database.sql(f"select {names} from chosen where item_id is not null order by {order}, item_id")
        batches = (batch.cast(schema) for batch in query.to_arrow_reader(ROW_GROUP_ROWS))
        manifest = workspace.tables.write(SHOWN, ds, batches, schema=schema, facts=state | {"variants": facts["variants"]})
    return StepResult(manifest, facts)


def find_log_days(workspace: Workspace, ds: str) -> list[str]:
    """Returns the UTC days of the log that a day of the home's time zone has parts of."""
    first_ms, end_ms = (start_of_day_ms(day, workspace.config.calendar.timezone) for day in (ds, day_before(ds, -1)))
    return _utc_days(first_ms, end_ms - 1)


def _utc_days(first_ms: int, last_ms: int) -> list[str]:
    first, last = (dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).date().isoformat() for time_ms in (first_ms, last_ms))
    return days_between(first, last)


def _find_id_types(workspace: Workspace) -> dict[str, pa.DataType]:
    """Returns the types of user_id and item_id in the newest stored day of behavior_table; texts before the first."""
    days = workspace.tables.partitions.days("behavior_table")
    stored = {one.name: one.type for one in workspace.need("behavior_table", days[-1]).columns} if days else {}
    return {name: pa.int64() if stored.get(name) == "int64" else pa.string() for name in (USER_ID, ITEM_ID)}


def _convert(text: str, kind: pa.DataType) -> str:
    """Returns SQL for an id in the home's type; null for a text that is no such number: 007 is not 7."""
    number = f"try_cast({text} as bigint)"
    return f"case when {number}::varchar = {text} then {number} end" if pa.types.is_integer(kind) else text


@contextmanager
def spilling_database(workspace: Workspace) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yields an empty DuckDB within the configured memory; what does not fit goes to the scratch folder."""
    settings = workspace.config.duckdb
    workspace.loaded.scratch.mkdir(parents=True, exist_ok=True)
    with ScratchFolder("shown", workspace.loaded.scratch) as folder:
        config = {"memory_limit": settings.memory, "temp_directory": str(folder)}
        with closing(duckdb.connect(config=config)) as database:
            yield database
