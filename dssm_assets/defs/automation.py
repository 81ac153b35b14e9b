"""The schedule of the daily chain: every day at a fixed time, the day before.

Belongs here: the tick. Does not belong here: the run that it asks for (`chain_runs.py`).
"""

import datetime as dt
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.config.engines import Trigger
from dssm_assets.core.errors import InputError
from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.scene import Scene

DAILY_TABLES = "daily_tables"
TRAIN_AND_EVALUATE = "train_and_evaluate"
PUBLISH = "publish"
DAILY_CHAIN = "daily_chain"

_SERVING = "serving"

# The chain holds assets of both backfill policies on purpose: it is run for one day at a time.
warnings.filterwarnings("ignore", message=rf"Asset job \w*{DAILY_CHAIN} materializes assets with varying BackfillPolicies")
_DESCRIPTIONS = {
    DAILY_TABLES: "Source to samples, once per day; takes a range of days.",
    TRAIN_AND_EVALUATE: "Window to hit rate, for one evaluation day per run. Its window must be there: daily_tables first.",
    PUBLISH: "The bundle that recall answers from, of a day whose gate has passed.",
    DAILY_CHAIN: "One day from its source tables to the published bundle, in one run: what the schedule and the sensor start. "
    "The gate stands before the bundle. For many days at once: daily_tables over the range, then train_and_evaluate per day.",
}


def jobs_for(rows: Sequence[AssetRow], scene: Scene) -> dict[str, Any]:
    """Returns plain name -> job: a range-capable one over daily tables, one per date over the window, one that publishes,
    and the chain of all three."""
    return {
        job: dg.define_asset_job(
            scene.name(job),
            selection=dg.AssetSelection.assets(
                *(scene.key(name) for name in names_of(rows, job) or [row.name for row in rows])
            ),
            description=description,
            tags=scene.tags,
        )
        for job, description in _DESCRIPTIONS.items()
    }


def names_of(rows: Sequence[AssetRow], job: str) -> list[str]:
    """Returns the assets of a job whose runs are all of one kind, in the order of the table; none for any other name."""
    if job == DAILY_TABLES:
        return [row.name for row in rows if not row.is_windowed]
    is_published = {TRAIN_AND_EVALUATE: False, PUBLISH: True}
    return [row.name for row in rows if row.is_windowed and is_published.get(job) is (row.group == _SERVING)]


PARTITION_TAG = "dagster/partition"
_STANDING = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.SUCCESS,
)


def chain_run(scene: Scene, rows: Sequence[AssetRow], ds: str) -> dg.RunRequest:
    """Returns the run of a day; a day whose window would reach before the calendar's first day gets its tables alone."""
    config = scene.loaded.config
    first = dt.date.fromisoformat(ds) - dt.timedelta(days=config.window.days)
    names = names_of(rows, DAILY_TABLES) if first < config.calendar.start else [row.name for row in rows]
    return dg.RunRequest(
        run_key=f"{scene.name(DAILY_CHAIN)}:{ds}",
        partition_key=ds,
        asset_selection=[scene.key(name) for name in names],
        tags=scene.tags,
    )


def run_of_day(instance: dg.DagsterInstance, scene: Scene, ds: str) -> str | None:
    """Returns the id of a run of the chain that a day has, queued, running or done; None where it has none."""
    found = instance.get_runs(
        dg.RunsFilter(job_name=scene.name(DAILY_CHAIN), tags={PARTITION_TAG: ds}, statuses=list(_STANDING)), limit=1
    )
    return found[0].run_id if found else None


def daily_schedule(scene: Scene, jobs: Mapping[str, Any], rows: Sequence[AssetRow]) -> dg.ScheduleDefinition:
    """Returns the schedule; it starts switched on where `platform.trigger` is `schedule`."""
    config = scene.loaded.config
    hour, minute = (int(part) for part in config.platform.schedule_at.split(":"))
    is_on = config.platform.trigger is Trigger.SCHEDULE

    @dg.schedule(
        name=scene.name("daily_chain_schedule"),
        job=jobs[DAILY_CHAIN],
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone=config.calendar.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if is_on else dg.DefaultScheduleStatus.STOPPED,
        description=f"Every day at {config.platform.schedule_at} ({config.calendar.timezone}): the chain of the day before.",
        tags=scene.tags,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(ZoneInfo(config.calendar.timezone))
        day = tick.date() - dt.timedelta(days=1)
        ds = day.isoformat()
        if day < config.calendar.start:
            return dg.SkipReason(f"{ds} lies before the calendar's first day, {config.calendar.start}")
        if config.calendar.end is not None and day > config.calendar.end:
            return dg.SkipReason(f"the calendar ended on {config.calendar.end}: there is no day {ds}")
        if (run := run_of_day(context.instance, scene, ds)) is not None:
            return dg.SkipReason(f"{ds} has a run already: {run}")
        return chain_run(scene, rows, ds)

    return schedule


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
            waiting = [
                landing.reason for landing in (source.landing_of_day(ds) for source in sources) if not landing.has_landed
            ]
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
        from dssm_assets.storage.partitions import PartitionStore

        loaded = self._scene.loaded
        stored = PartitionStore(loaded.root, loaded.config.storage.options).days("behavior_table")
        return stored[-1] if stored else None

    def _look(self) -> list[Any]:
        from dssm_assets.storage.sources.landing import SourceLanding

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


WEBHOOK_VARIABLE = "DSSM_FAILURE_WEBHOOK"
TIMEOUT_SECONDS = 10.0
_ERROR_CHARS = 2000


def failure_sensor(scene: Scene, jobs: Mapping[str, Any], rows: Sequence[AssetRow]) -> dg.SensorDefinition:
    """Returns the sensor; it starts switched on where something starts runs by itself or a webhook waits for them."""
    platform = scene.loaded.config.platform
    is_on = platform.trigger is not Trigger.MANUAL or webhook_of(scene) is not None
    own_jobs = {job.name for job in jobs.values()}
    own_assets = {scene.key(row.name) for row in rows}

    @dg.run_failure_sensor(
        name=scene.name("failure_sensor"),
        default_status=dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED,
        description=f"Tells of every failed run of the scene, backfills included: in its log, and by a POST to "
        f"platform.webhook_url or ${WEBHOOK_VARIABLE} where one is set.",
        tags=scene.tags,
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if run.job_name not in own_jobs and not own_assets & set(run.asset_selection or ()):
            return dg.SkipReason(f"run {run.run_id} is not one of {scene.loaded.config.name}")
        told = message(context, scene)
        context.log.error(told["text"])
        if (problem := post(webhook_of(scene), told)) is not None:
            context.log.warning(f"the webhook was not told of run {run.run_id}: {problem}")
        return None

    return sensor


def webhook_of(scene: Scene) -> str | None:
    """Returns the address that failures are posted to, None where there is none."""
    return os.environ.get(WEBHOOK_VARIABLE) or scene.loaded.config.platform.webhook_url


def message(context: dg.RunFailureSensorContext, scene: Scene) -> dict[str, str | None]:
    """Returns what is told of a failed run."""
    run = context.dagster_run
    failed = context.get_step_failure_events()
    step = failed[0].step_key if failed else None
    error = _root_error(failed[0]) if failed else context.failure_event.message or "no error was recorded"
    day = run.tags.get(PARTITION_TAG)
    of_day = f" of {day}" if day else ""
    text = f"{scene.loaded.config.name}: {run.job_name}{of_day} failed in {step or 'its start'}: {error}"
    return {
        "text": text[:_ERROR_CHARS],
        "scene": scene.loaded.config.name,
        "job": run.job_name,
        "run_id": run.run_id,
        "partition": day,
        "step": step,
        "error": error[:_ERROR_CHARS],
    }


def _root_error(event: dg.DagsterEvent) -> str:
    error: Any = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return (error.message if error is not None else event.message or "").strip()


def post(address: str | None, body: Mapping[str, Any]) -> str | None:
    """Posts a message as JSON; returns what went wrong, None for nothing. Raises nothing."""
    if address is None:
        return None
    try:
        import urllib.request  # loads a mail parser: only for a failure that is posted

        if not address.startswith(("http://", "https://")):
            return "its address does not start with http:// or https://"
        request = urllib.request.Request(
            address, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
            return None
    except Exception as error:  # whatever it is, the failed run was told in the log already
        return f"{type(error).__name__}: {error}".replace(address, "the webhook")
