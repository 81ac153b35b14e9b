"""The check `freshness` of each watched asset, and the schedule that runs it at the deadline of each day.

Dagster's own time-partition check is not used: it expects the day that has just ended at the next tick of a cron, so it knows no deadline of
36 hours, no evaluation that waits for the end of its span, no calendar whose first window is not full yet, and no day without anything to
evaluate. A freshness policy looks at the latest materialization of any day, which a backfill of old days renews.
"""

import datetime as dt
import warnings
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.errors import remedy_of_missing
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import evaluated_day
from dssm_assets.defs.scene import Scene

NAME = "freshness"
DEFAULT_HOURS = 36.0

# Dagster's own, wherever a component's assets have a check of their own.
warnings.filterwarnings(
    "ignore", message="Parameter `execution_type` of function `AssetsDefinition.__init__`", category=dg.BetaWarning
)


def build(scene: Scene) -> dg.Definitions:
    """Returns the checks of a scene, their job and schedule; nothing if its calendar ends and it does not name the hours."""
    config = scene.loaded.config
    if config.platform.freshness_hours is None and config.calendar.end is not None:
        return dg.Definitions()
    checks = [_build_check(scene, row) for row in all_rows() if row.is_watched]
    job = dg.define_asset_job(
        scene.name(NAME),
        selection=dg.AssetSelection.checks(*checks),
        description="Whether the newest days that are due are stored.",
        tags=scene.tags,
    )
    minutes = round(_hours(scene) * 60)
    schedule = dg.ScheduleDefinition(
        name=scene.name(f"{NAME}_schedule"),
        job=job,
        cron_schedule=f"{minutes % 60} {minutes // 60 % 24} * * *",
        execution_timezone=config.calendar.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"At each day's deadline, {_hours(scene):g} hours after its end: the checks that tell what is late.",
        tags=scene.tags,
    )
    return dg.Definitions(asset_checks=checks, jobs=[job], schedules=[schedule])


def find_due_day(scene: Scene, row: AssetRow, now: dt.datetime) -> str | None:
    """Returns the newest day of an asset that must be stored at a local time, None if there is none yet."""
    calendar = scene.loaded.config.calendar
    ended = (now.replace(tzinfo=None) - dt.timedelta(hours=_hours(scene))).date() - dt.timedelta(days=1)
    newest = ended if calendar.end is None else min(ended, calendar.end)
    if newest < calendar.start:
        return None
    return evaluated_day(scene, newest.isoformat()) if row.is_windowed else newest.isoformat()


def now_in(timezone: str) -> dt.datetime:
    """Returns the current time in a time zone."""
    return dt.datetime.now(ZoneInfo(timezone))


def _hours(scene: Scene) -> float:
    hours = scene.loaded.config.platform.freshness_hours
    return DEFAULT_HOURS if hours is None else hours


def _build_check(scene: Scene, row: AssetRow) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=scene.key(row.name),
        name=NAME,
        description=f"The newest day that ended {_hours(scene):g} hours ago is stored"
        + (", or had nothing to evaluate." if row.is_windowed else "."),
    )
    def freshness() -> dg.AssetCheckResult:
        from dssm_assets.storage.partitions import PartitionStore

        due = find_due_day(scene, row, now_in(scene.loaded.config.calendar.timezone))
        if due is None:
            return dg.AssetCheckResult(passed=True, description="no day is due yet")
        store = PartitionStore(scene.loaded.root, scene.loaded.config.storage.options)
        if store.find(row.name, due) is not None:
            return dg.AssetCheckResult(passed=True, description=f"{due} is stored")
        if row.is_windowed and (reason := _reason_to_skip(scene, due)) is not None:
            return dg.AssetCheckResult(passed=True, description=f"{due} was skipped: {reason}")
        last = next(reversed(store.days(row.name)), "none")
        late = f"{due} is not stored {_hours(scene):g} hours after it could be made; the last stored day is {last}"
        return dg.AssetCheckResult(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"{late}. To fix: {remedy_of_missing(row.name, due)}",
            metadata={"late_day": due, "last_stored_day": last},
        )

    return freshness


def _reason_to_skip(scene: Scene, ds: str) -> str | None:
    """Returns why an evaluation day was skipped, None if it was not: an unmade day is late, even if there is another reason to wait."""
    from dssm_assets.steps.workspace import open_workspace, reason_to_skip, truth_days

    workspace = open_workspace(scene.loaded)
    span = truth_days(ds, scene.loaded.config.evaluation.span_days)
    is_made = len(workspace.tables.partitions.find_days("positive_sample", span)) == len(span)
    return reason_to_skip(workspace, ds) if is_made else None
