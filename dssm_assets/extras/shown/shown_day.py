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
from dssm_assets.extras.shown.log import part_schema
from dssm_assets.extras.shown.log_folder import TEXT_PARTS, open_log
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, each_day, start_of_day_ms
from dssm_assets.storage.local_files import ScratchFolder
from dssm_assets.storage.tables import ROW_GROUP_ROWS

SHOWN: Final = TableSpec(
    name="shown",
    grain="one row per item of a list that was answered on the day; if a caller sent back a list, per item of that list",
    key=("time_ms", "request_id", "position"),
    columns=(
        ColumnSpec("time_ms", pa.int64(), "When it was answered, unix milliseconds."),
        ColumnSpec("request_id", pa.string(), "The answer."),
        ColumnSpec(USER_ID, None, "Who got it; null: the request named no user, or an id of another type.", True),
        ColumnSpec("variant", pa.string(), "The variant; null: none.", True),
        ColumnSpec("bundle_id", pa.string(), "The bundle that answered.", True),
        ColumnSpec("position", pa.int32(), "The item's place in the list, from 1."),
        ColumnSpec(ITEM_ID, None, "What was shown."),
        ColumnSpec("score", pa.float64(), "Its score in the answer.", True),
        ColumnSpec("channels", pa.list_(pa.string()), "The channels that proposed it.", True),
    ),
)
_DAY: Final = """
create temp table chosen as
    select distinct * exclude (user_id, item_id), user_id as user_text, {user_id} as user_id, {item_id} as item_id from part
    where time_ms between {first_ms} and {last_ms}
        and (kind = 'shown' or request_id not in (select request_id from part where kind = 'shown'));
"""
_COUNTS: Final = """
select count(distinct request_id) as lists, count(distinct user_id) as users,
    count(distinct request_id) filter (kind = 'shown') as lists_shown_otherwise,
    count(distinct user_text) filter (user_id is null) as users_of_another_type,
    count(*) filter (item_id is null) as items_of_another_type,
    coalesce(list(distinct variant order by variant) filter (variant is not null), []) as variants
from chosen
"""


@each_day
def shown(workspace: Workspace, ds: str) -> StepResult:
    """Writes what was shown on a day: what a caller sent back replaces its answer."""
    log, hidden, days = open_log(workspace.loaded), workspace.tables.partitions.hidden.note(), find_log_days(workspace, ds)
    first_ms, end_ms = _find_bounds(workspace, ds)
    types, state = _find_id_types(workspace), {"log": log.uri, "parts": log.fingerprint(days)}
    with open_database(workspace) as database:
        database.register("rows", TEXT_PARTS.empty_table())
        database.execute("create temp table part as select * from rows")
        for rows in log.read(days if ds >= hidden.first_day else [], hidden):
            database.register("rows", rows)
            database.execute("insert into part select * from rows")
        ids = {name: _convert(name, kind) for name, kind in types.items()}
        database.execute(_DAY.format(first_ms=first_ms, last_ms=end_ms - 1, **ids))
        facts: dict[str, Any] = database.sql(_COUNTS).to_arrow_table().to_pylist()[0]
        schema = pa.schema([part_schema(*types.values()).field(column.name) for column in SHOWN.columns])
        columns, order = (", ".join(f'"{name}"' for name in names) for names in (schema.names, (*SHOWN.key, ITEM_ID)))
        query = database.sql(f"select {columns} from chosen where item_id is not null order by {order}")
        batches = (batch.cast(schema) for batch in query.to_arrow_reader(ROW_GROUP_ROWS))
        state["variants"] = facts["variants"]
        manifest = workspace.tables.write(SHOWN, ds, batches, schema=schema, facts=state)
    return StepResult(manifest, facts)


def find_log_days(workspace: Workspace, ds: str) -> list[str]:
    """Returns the UTC days that overlap a day of calendar.timezone."""
    first_ms, end_ms = _find_bounds(workspace, ds)
    ends = (dt.datetime.fromtimestamp(time_ms / 1000, dt.UTC).date().isoformat() for time_ms in (first_ms, end_ms - 1))
    return days_between(*ends)


def _find_bounds(workspace: Workspace, ds: str) -> tuple[int, int]:
    timezone = workspace.config.calendar.timezone
    return start_of_day_ms(ds, timezone), start_of_day_ms(day_before(ds, -1), timezone)


def _find_id_types(workspace: Workspace) -> dict[str, pa.DataType]:
    """Returns the types of ids in the newest stored day of behavior_table; texts before the first."""
    days = workspace.tables.partitions.days("behavior_table")
    stored = {one.name: one.type for one in workspace.need("behavior_table", days[-1]).columns} if days else {}
    return {name: pa.int64() if stored.get(name) == "int64" else pa.string() for name in (USER_ID, ITEM_ID)}


def _convert(name: str, kind: pa.DataType) -> str:
    """Returns SQL for an id in the home's type; null for a text that is no such number: 007 is not 7."""
    number = f"try_cast({name} as bigint)"
    return f"case when {number}::varchar = {name} then {number} end" if pa.types.is_integer(kind) else name


@contextmanager
def open_database(workspace: Workspace) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yields an empty DuckDB within the configured memory; the rest goes to the scratch folder."""
    workspace.loaded.scratch.mkdir(parents=True, exist_ok=True)
    with ScratchFolder("shown", workspace.loaded.scratch) as folder:
        config = {"memory_limit": workspace.config.duckdb.memory, "temp_directory": str(folder)}
        with closing(duckdb.connect(config=config)) as database:
            yield database
