"""Failed runs of a scene, told: to the log always, to a webhook where one is configured. Telling never fails anything.

    platform.webhook_url        in the configuration, or
    DSSM_FAILURE_WEBHOOK        in the environment, which wins: for addresses that hold a secret

The webhook gets a POST of JSON: `text` (one sentence, what chat services show), scene, job, run_id, partition, step, error.

Belongs here: the sensor and its message. Does not belong here: what failed.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from dssm_assets.core.platform_config import Trigger
from dssm_assets.defs.asset_factory import AssetRow
from dssm_assets.defs.chain_runs import PARTITION_TAG
from dssm_assets.defs.scene import Scene

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
