"""Jobs, and the triggers of the daily chain: a schedule, or a sensor that waits for a day's source tables."""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.config.engines import Trigger
from dssm_assets.core.errors import InputError
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import PUBLISHING_GROUP
from dssm_assets.defs.scene import PARTITION_TAG, RANGE_TAGS, Scene

DAILY_TABLES = "daily_tables"
TRAIN_AND_EVALUATE = "train_and_evaluate"
PUBLISH = "publish"
DAILY_CHAIN = "daily_chain"
LATE_TAG = "dssm/late_data"
"""Tag of a run that makes days again, because their rows have changed since they were made."""
SENSOR_INTERVAL_SECONDS = 300
DAYS_PER_TICK = 3
"""One tick of the sensor starts at most so many days. A source that is a month ahead is caught up with step by step."""

_JOB_DESCRIPTIONS = {
    DAILY_TABLES: "From the source tables to samples, once per day. Takes a range of days.",
    TRAIN_AND_EVALUATE: "From the training window to the hit rate, one evaluation day per run. A run first makes "
    "missing days of the daily tables, in runs of their own. The first day comes after the first whole window.",
    PUBLISH: "The serving bundle of a day that has passed the gate; recall answers from it. A day that is not evaluated yet is "
    "evaluated first.",
}
_SOURCE_TABLES = ("user", "item", "behavior")
_BEHAVIOR_TABLE = "behavior_table"
_LATE = "late_from"
"""Key of the cursor for the first day with changed rows, while the run to make it again cannot start."""
_Status = dg.DagsterRunStatus
_NOT_ENDED = (_Status.QUEUED, _Status.NOT_STARTED, _Status.STARTING, _Status.STARTED)
_NOT_FAILED = (*_NOT_ENDED, _Status.SUCCESS)


def build_jobs(rows: Sequence[AssetRow], scene: Scene) -> dict[str, Any]:
    """Returns name (without prefix) -> job: daily tables, training and evaluation, publishing.

    A run is always one process, whatever executor the project has, so its steps share imports, threads and one memory limit.
    """
    return {
        job: dg.define_asset_job(
            scene.name(job),
            selection=dg.AssetSelection.assets(*(scene.key(name) for name in job_assets(rows, job))),
            description=description,
            tags=scene.tags,
            executor_def=dg.in_process_executor,
        )
        for job, description in _JOB_DESCRIPTIONS.items()
    }


def job_assets(rows: Sequence[AssetRow], job: str) -> list[str]:
    """Returns the assets of a job in pipeline order, empty for an unknown name."""
    run = [row for row in rows if not row.is_on_request]
    if job == DAILY_TABLES:
        return [row.name for row in run if not row.is_windowed]
    is_publishing = {TRAIN_AND_EVALUATE: False, PUBLISH: True}
    return [row.name for row in run if row.is_windowed and is_publishing.get(job) is (row.group == PUBLISHING_GROUP)]


def find_job(rows: Sequence[AssetRow], names: Sequence[str]) -> str | None:
    """Returns the first job with all of these assets. None if no job has them."""
    jobs = (DAILY_TABLES, TRAIN_AND_EVALUATE, PUBLISH)
    return next((job for job in jobs if set(names) <= set(job_assets(rows, job))), None)


def daily_schedule(scene: Scene, chain: dg.JobDefinition) -> dg.ScheduleDefinition:
    """Returns the schedule of the daily chain. It is on by default if `platform.trigger` is `schedule`."""
    config = scene.loaded.config
    hour, minute = (int(part) for part in config.platform.schedule_at.split(":"))
    is_on = config.platform.trigger is Trigger.SCHEDULE

    @dg.schedule(
        name=scene.name("daily_chain_schedule"),
        job=chain,
        cron_schedule=f"{minute} {hour} * * *",
        execution_timezone=config.calendar.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING if is_on else dg.DefaultScheduleStatus.STOPPED,
        description=f"Every day at {config.platform.schedule_at} ({config.calendar.timezone}): the chain of the previous day.",
        tags=scene.tags,
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        tick = context.scheduled_execution_time.astimezone(ZoneInfo(config.calendar.timezone))
        day = tick.date() - dt.timedelta(days=1)
        ds = day.isoformat()
        if day < config.calendar.start:
            return dg.SkipReason(f"{ds} is before the calendar's first day, {config.calendar.start}")
        if config.calendar.end is not None and day > config.calendar.end:
            return dg.SkipReason(f"the calendar ended on {config.calendar.end}: it has no day {ds}")
        if (run := _find_run(context.instance, scene, DAILY_CHAIN, {PARTITION_TAG: ds}, _NOT_FAILED)) is not None:
            return dg.SkipReason(f"{ds} already has a run: {run}")
        return _request_chain(scene, ds)

    return schedule


def landed_sensor(scene: Scene, jobs: Sequence[Any]) -> dg.SensorDefinition:
    """Returns the sensor that starts runs of `jobs` once a day has landed. It is on by default if `platform.trigger` is `sensor`."""
    is_on = scene.loaded.config.platform.trigger is Trigger.SENSOR

    @dg.sensor(
        name=scene.name("source_landed_sensor"),
        jobs=jobs,
        minimum_interval_seconds=SENSOR_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED,
        description="Starts the daily chain of a day as soon as its user, item and behavior tables have landed, one run per "
        "day, days in order. The first day follows the last stored behavior_table; without a stored day it is yesterday. "
        "Run earlier days as a backfill. To start elsewhere, set the cursor to the day before, YYYY-MM-DD. If tables have "
        "versions, and rows of earlier days have changed since the last look, it makes the daily tables again from the first such day.",
        tags=scene.tags,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        return _evaluate_landing(scene, context.instance, context.cursor)

    return sensor


def _evaluate_landing(scene: Scene, instance: dg.DagsterInstance, cursor: str | None) -> dg.SensorResult:
    """Returns the runs of days that have landed. If no run starts, gives the reason."""
    last_day, seen = read_cursor(cursor)
    runs: list[dg.RunRequest] = []
    reasons: list[str] = []
    ended = scene.daily.get_partition_keys()
    last = last_day or max(_stored_days(scene), default=None)
    days = [ds for ds in ended if ds > last][:DAYS_PER_TICK] if last else ended[-1:]
    if not days:
        reasons.append(f"no day to wait for: the calendar has no day after {last_day or 'its start'} yet")
    looks: dict[str, Any] = {}
    try:
        looks = _look_at_sources(scene, seen, has_days=bool(days))
    except InputError as error:
        days = []
        reasons.append(f"the sources cannot be read: {error}")
    seen |= {table: asdict(look.state) for table, look in looks.items() if look.state is not None}
    if last and any(look.has_versions for look in looks.values()):
        found = [look.late_from for look in looks.values()]
        has_next = bool(days) and all(look.landing_of_day(days[0]).has_landed for look in looks.values())
        again, waits = _make_again(scene, instance, found=found, seen=seen, last=last, has_next=has_next)
        runs.extend(again)
        if again or waits:
            days = []
            reasons.append(waits)
    for ds in days:
        landings = [source.landing_of_day(ds) for source in looks.values()]
        if missing := [landing.reason for landing in landings if not landing.has_landed]:
            reasons.append(f"waiting for {ds}: {'; '.join(missing)}")
            break
        if (run := _find_run(instance, scene, DAILY_CHAIN, {PARTITION_TAG: ds}, _NOT_FAILED)) is not None:
            reasons.append(f"{ds} already has a run: {run}")
        else:
            runs.append(_request_chain(scene, ds))
        last_day = ds
    return dg.SensorResult(
        run_requests=runs,
        skip_reason=None if runs else dg.SkipReason("; ".join(reasons)),
        cursor=json.dumps({"last": last_day, "seen": seen}, sort_keys=True),
    )


def _stored_days(scene: Scene) -> list[str]:
    from dssm_assets.storage.partitions import PartitionStore

    return PartitionStore(scene.loaded.root, scene.loaded.config.storage.options).days(_BEHAVIOR_TABLE)


def _look_at_sources(scene: Scene, seen: Mapping[str, Any], *, has_days: bool) -> dict[str, Any]:
    """Looks at each source table. Without days to wait for, only looks at tables with versions."""
    from dssm_assets.storage.sources.landing import SourceLanding

    config = scene.loaded.config
    configured = {table: getattr(config.tables, table) for table in _SOURCE_TABLES}
    return {
        table: SourceLanding(
            source,
            name=f"{table}_table",
            timezone=config.calendar.timezone,
            marker=config.platform.landed_marker,
            before=seen.get(table),
        )
        for table, source in configured.items()
        if source is not None and (has_days or source.has_versions)  # without a table its ids come from the log
    }


def read_cursor(cursor: str | None) -> tuple[str | None, dict[str, Any]]:
    """Returns the last started day, and the state of each table at that time. A cursor set by hand has only the day."""
    if not cursor:
        return None, {}
    if not cursor.lstrip().startswith("{"):
        return cursor.strip(), {}
    body = json.loads(cursor)
    return body.get("last"), dict(body.get("seen") or {})


def evaluated_day(scene: Scene, ds: str) -> str | None:
    """Returns the evaluation day with complete truth once the day `ds` has ended. None if its window begins before the calendar.

    Example: with `evaluation.span_days: 7`, once January 20th has ended, it is the 14th.
    """
    day = dt.date.fromisoformat(ds) - dt.timedelta(days=scene.loaded.config.evaluation.span_days - 1)
    return day.isoformat() if day >= scene.first_evaluation_day else None


def _request_chain(scene: Scene, ds: str) -> dg.RunRequest:
    job = scene.name(DAILY_CHAIN)
    return dg.RunRequest(run_key=f"{job}:{ds}", job_name=job, partition_key=ds, tags=scene.tags)


def _make_again(
    scene: Scene, instance: dg.DagsterInstance, *, found: Sequence[str | None], seen: dict[str, Any], last: str, has_next: bool
) -> tuple[list[dg.RunRequest], str]:
    """Returns the run that makes stored days again, from the first day with late data on. If it must wait, returns the reason.

    While earlier runs of these days are in progress, `seen` keeps the first day. There is one such run per version of the tables.
    After it the next day goes first, so that a steady stream of late rows does not hold it back.

    Args:
        found: the first day with late data in each table. None: no late data.
        last: the last started day.
        has_next: whether the next day has landed.
    """
    late_from = min(filter(None, [seen.pop(_LATE, None), *found]), default=None)
    making = _find_run(instance, scene, DAILY_TABLES, {LATE_TAG: "true"}, _NOT_ENDED)
    if late_from is None or late_from > last:
        return [], f"run {making} makes days with late rows again" if making else ""
    chain = _find_run(instance, scene, DAILY_CHAIN, {}, _NOT_ENDED)  # it may have read a day without having stored it
    if run := making or chain:
        seen[_LATE] = late_from
        return [], f"rows of {late_from} have come late: its tables are made again after run {run}"
    first = max(late_from, scene.loaded.config.calendar.start.isoformat())
    days = [ds for ds in _stored_days(scene) if first <= ds <= last]
    if not days:
        return [], ""
    if has_next and _find_run(instance, scene, DAILY_TABLES, {LATE_TAG: "true", RANGE_TAGS[1]: days[-1]}):
        seen[_LATE] = late_from
        return [], ""
    request = dg.RunRequest(  # without a run key, because each key starts only one run ever, and a table may return to an earlier state
        job_name=scene.name(DAILY_TABLES),
        tags={**scene.tags, LATE_TAG: "true", **dict(zip(RANGE_TAGS, (days[0], days[-1]), strict=True))},
    )
    return [request], ""


def _find_run(
    instance: dg.DagsterInstance, scene: Scene, job: str, tags: Mapping[str, str], statuses: Sequence[dg.DagsterRunStatus] = ()
) -> str | None:
    """Returns the id of a run of the job with these tags and one of the statuses (none given: any). None if there is no such run."""
    found = instance.get_runs(dg.RunsFilter(job_name=scene.name(job), tags=tags, statuses=list(statuses)), limit=1)
    return found[0].run_id if found else None
