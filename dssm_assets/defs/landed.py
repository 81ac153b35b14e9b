"""The sensor of the daily chain: starts a day's run once all three source tables of the day have landed.

Its cursor holds the last day that it asked for and what it last saw of tables with a time column. Days follow each other
without a gap: histories and rolling states of a day are made from those of the day before.

Belongs here: days, cursor and reasons. Does not belong here: looking into a table (`storage/source_landing.py`) and the run
that is asked for (`chain_runs.py`).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dssm_assets.core.errors import InputError
from dssm_assets.core.platform_config import Trigger
from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.chain_runs import chain_run, run_of_day
from dssm_assets.defs.jobs import DAILY_CHAIN
from dssm_assets.defs.scene import Scene

INTERVAL_SECONDS = 300
DAYS_PER_TICK = 3
"""Days asked for in one tick at most: a source that lay still for a month is caught up with step by step."""
_TABLES = ("user", "item", "behavior")


def landed_sensor(scene: Scene, jobs: Mapping[str, Any], rows: Sequence[AssetRow]) -> dg.SensorDefinition:
    """Returns the sensor; it starts switched on where `platform.trigger` is `sensor`."""
    is_on = scene.loaded.config.platform.trigger is Trigger.SENSOR

    @dg.sensor(
        name=scene.name("source_landed_sensor"),
        job=jobs[DAILY_CHAIN],
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED,
        description="Starts the daily chain of a day as soon as its user, item and behaviour tables have landed, one run per "
        "day, days in order. The first day is the one after the last behavior_table that stands, else yesterday: "
        "earlier days are a backfill. To begin elsewhere, set the cursor to the day before, YYYY-MM-DD.",
        tags=scene.tags,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return Tick(scene, rows, context.instance, context.cursor).result()

    return sensor


class Tick:
    """One look at the sources."""

    def __init__(self, scene: Scene, rows: Sequence[AssetRow], instance: dg.DagsterInstance, cursor: str | None) -> None:
        self._scene = scene
        self._rows = rows
        self._instance = instance
        self._last, self._seen = read_cursor(cursor)

    def result(self) -> dg.SensorResult:
        """Returns the runs of the days that have landed, else in words what is waited for."""
        runs: list[dg.RunRequest] = []
        said: list[str] = []
        days = self._days()
        if not days:
            return self._told(runs, f"no day to wait for: {self._last or 'none'} is the last of the calendar up to now")
        try:
            sources = self._look()
        except InputError as error:
            return self._told(runs, f"the sources cannot be read: {error}")
        for ds in days:
            waiting = [landing.reason for landing in (source.of_day(ds) for source in sources) if not landing.has_landed]
            if waiting:
                said.append(f"{ds} is waited for: {'; '.join(waiting)}")
                break
            if (run := run_of_day(self._instance, self._scene, ds)) is not None:
                said.append(f"{ds} has a run already: {run}")
            else:
                runs.append(chain_run(self._scene, self._rows, ds))
            self._last = ds
        return self._told(runs, "; ".join(said))

    def _told(self, runs: list[dg.RunRequest], reason: str) -> dg.SensorResult:
        cursor = json.dumps({"last": self._last, "seen": self._seen}, sort_keys=True)
        return dg.SensorResult(run_requests=runs, skip_reason=None if runs else dg.SkipReason(reason), cursor=cursor)

    def _days(self) -> list[str]:
        """Returns the days that come next, the first of them first."""
        ended = self._scene.daily.get_partition_keys()
        last = self._last or self._last_stored()
        return [ds for ds in ended if ds > last][:DAYS_PER_TICK] if last else ended[-1:]

    def _last_stored(self) -> str | None:
        from dssm_assets.storage.partition_store import PartitionStore

        loaded = self._scene.loaded
        stored = PartitionStore(loaded.root, loaded.config.storage.options).days("behavior_table")
        return stored[-1] if stored else None

    def _look(self) -> list[Any]:
        from dssm_assets.storage.source_landing import SourceLanding

        config = self._scene.loaded.config
        sources = []
        for table in _TABLES:
            source = SourceLanding(
                getattr(config.tables, table),
                name=f"{table}_table",
                timezone=config.calendar.timezone,
                marker=config.platform.landed_marker,
                before=self._seen.get(table),
            )
            if source.state is not None:
                self._seen[table] = source.state.to_json()
            sources.append(source)
        return sources


def read_cursor(cursor: str | None) -> tuple[str | None, dict[str, Any]]:
    """Returns the last day asked for and what was seen of each table; a cursor set by hand is a day alone."""
    if not cursor:
        return None, {}
    if not cursor.lstrip().startswith("{"):
        return cursor.strip(), {}
    body = json.loads(cursor)
    return body.get("last"), dict(body.get("seen") or {})
