"""The check `freshness` of each watched asset, and the schedule that runs it at each day's deadline.

Dagster's own checks do not fit. Its time-partition check expects a day at the next tick of a cron after the day's end. It
cannot wait 36 hours, and does not know spans of days, the first window, or days without anything to evaluate. Its freshness
policy accepts the latest materialization of any day, so a backfill of old days satisfies it.
"""

import datetime as dt
import math
import warnings
from zoneinfo import ZoneInfo

import dagster as dg

from dssm_assets.core.errors import remedy_of_missing
from dssm_assets.defs.automation import evaluated_day
from dssm_assets.defs.scene import Scene

DEFAULT_HOURS = 36.0
EVALUATION = "total_hit_rate"
WATCHED = ("behavior_table", "positive_sample", EVALUATION)

# Dagster warns about its own argument whenever a component's asset has a check.
warnings.filterwarnings(
    "ignore", message="Parameter `execution_type` of function `AssetsDefinition.__init__`", category=dg.BetaWarning
)


def build(scene: Scene) -> dg.Definitions:
    """Returns a scene's checks and their schedule. A calendar that ends has none, unless the configuration sets the hours."""
    config = scene.loaded.config
    if config.platform.freshness_hours is None and config.calendar.end is not None:
        return dg.Definitions()
    hours = config.platform.freshness_hours or DEFAULT_HOURS
    checks = [_build_check(scene, name, hours) for name in WATCHED]
    minutes = math.ceil(hours * 60)
    schedule = dg.ScheduleDefinition(
        name=scene.name("freshness_schedule"),
        target=dg.AssetSelection.checks(*checks),
        cron_schedule=f"{minutes % 60} {minutes // 60 % 24} * * *",
        execution_timezone=config.calendar.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"At each day's deadline, {hours:g} hours after its end: the checks that tell what is late.",
        tags=scene.tags,
    )
    return dg.Definitions(asset_checks=checks, schedules=[schedule])


def find_due_day(scene: Scene, asset: str, latest_end: dt.datetime) -> str | None:
    """Returns the newest day of an asset that ended by `latest_end` (local time). None: no day has ended by then."""
    calendar = scene.loaded.config.calendar
    day = min(latest_end.date() - dt.timedelta(days=1), calendar.end or dt.date.max)
    if day < calendar.start:
        return None
    return evaluated_day(scene, day.isoformat()) if asset == EVALUATION else day.isoformat()


def now_in(timezone: str) -> dt.datetime:
    """Returns the current local time in a time zone."""
    return dt.datetime.now(ZoneInfo(timezone)).replace(tzinfo=None)


def _build_check(scene: Scene, asset: str, hours: float) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=scene.key(asset), description=f"The newest day that ended {hours:g} hours ago is stored, or was skipped."
    )
    def freshness() -> dg.AssetCheckResult:
        from dssm_assets.steps.workspace import open_workspace, reason_to_skip, truth_days

        due = find_due_day(scene, asset, now_in(scene.loaded.config.calendar.timezone) - dt.timedelta(hours=hours))
        if due is None:
            return dg.AssetCheckResult(passed=True, description="no day is due yet")
        workspace = open_workspace(scene.loaded)
        if workspace.find(asset, due) is not None:
            return dg.AssetCheckResult(passed=True, description=f"{due} is stored")
        # An evaluation is also late if it waits for the samples of its truth.
        truth = truth_days(due, workspace.config.evaluation.span_days) if asset == EVALUATION else ()
        is_known = bool(truth) and all(workspace.find("positive_sample", day) for day in truth)
        if is_known and (reason := reason_to_skip(workspace, due)) is not None:
            return dg.AssetCheckResult(passed=True, description=f"{due} was skipped: {reason}")
        last = next(reversed(workspace.tables.partitions.days(asset)), "none")
        late = f"{due} is not stored {hours:g} hours after it could be made; the last stored day is {last}"
        text = f"{late}. To fix: {remedy_of_missing(asset, due)}"
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN, description=text)

    return freshness
