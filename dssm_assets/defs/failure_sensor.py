"""The sensor that reports every failed run of a scene, in its log and to a configured webhook."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dssm_assets.core.config.engines import Trigger
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.scene import MADE_FOR_TAG, PARTITION_TAG, Scene

WEBHOOK_VARIABLE = "DSSM_FAILURE_WEBHOOK"
_TIMEOUT_SECONDS = 10.0
_MAX_ERROR_CHARS = 2000


def failure_sensor(scene: Scene, jobs: Sequence[Any], rows: Sequence[AssetRow]) -> dg.SensorDefinition:
    """Returns the sensor. It is on by default if a schedule, a sensor or a webhook is configured."""
    is_on = scene.loaded.config.platform.trigger is not Trigger.MANUAL or _webhook_address(scene) is not None
    own_jobs = {job.name for job in jobs}
    own_assets = {scene.key(row.name) for row in rows}

    @dg.run_failure_sensor(
        name=scene.name("failure_sensor"),
        default_status=dg.DefaultSensorStatus.RUNNING if is_on else dg.DefaultSensorStatus.STOPPED,
        description=f"Reports every failed run of the scene, backfills included: in its log, and with a POST to "
        f"platform.webhook_url or ${WEBHOOK_VARIABLE} if one is set.",
        tags=scene.tags,
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if run.job_name not in own_jobs and not own_assets & set(run.asset_selection or ()):
            return dg.SkipReason(f"run {run.run_id} is not a run of {scene.loaded.config.name}")
        if MADE_FOR_TAG in run.tags and run.parent_run_id is None:  # a retry copies the tags of the first run
            return dg.SkipReason(f"run {run.run_id} was made for another run; that run fails with its error and is reported")
        message = _failure_message(context, scene)
        context.log.error(message["text"])
        if (problem := post_json(_webhook_address(scene), message)) is not None:
            context.log.warning(f"could not notify the webhook of run {run.run_id}: {problem}")
        return None

    return sensor


def _webhook_address(scene: Scene) -> str | None:
    return os.environ.get(WEBHOOK_VARIABLE) or scene.loaded.config.platform.webhook_url


def _failure_message(context: dg.RunFailureSensorContext, scene: Scene) -> dict[str, str | None]:
    run, failed = context.dagster_run, context.get_step_failure_events()
    step, day = failed[0].step_key if failed else None, run.tags.get(PARTITION_TAG)
    error = _root_error(failed[0]) if failed else context.failure_event.message or "no error was recorded"
    of_day = f" of {day}" if day else ""
    name = scene.loaded.config.name
    return {
        "text": f"{name}: {run.job_name}{of_day} failed in {step or 'its start'}: {error}"[:_MAX_ERROR_CHARS],
        "scene": name,
        "job": run.job_name,
        "run_id": run.run_id,
        "partition": day,
        "step": step,
        "error": error[:_MAX_ERROR_CHARS],
    }


def _root_error(event: dg.DagsterEvent) -> str:
    error: Any = getattr(event.event_specific_data, "error", None)
    while error is not None and error.cause is not None:
        error = error.cause
    return (error.message if error is not None else event.message or "").strip()


def post_json(address: str | None, body: Mapping[str, Any]) -> str | None:
    """Posts a body as JSON. Returns an error text or None. Never raises, and never shows the address, because it may be secret."""
    if address is None:
        return None
    try:
        import urllib.request  # imported only when needed, because it loads a mail parser

        if not address.startswith(("http://", "https://")):
            return "its address does not start with http:// or https://"
        request = urllib.request.Request(
            address, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS):
            return None
    except Exception as error:  # an error here must not hide the failed run, which is in the log already
        # The error's text is not shown, because some texts contain parts of the address.
        code, reason = getattr(error, "code", None), getattr(error, "reason", None)
        shown = f"status {code}" if isinstance(code, int) else getattr(reason, "strerror", None) or "check its address"
        return f"{type(error).__name__}: {shown}"
