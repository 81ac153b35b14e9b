"""Makes runs inside this process for the demo and `dssm-assets materialize`: a range of days, or one run per day."""

import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import dagster as dg

from dssm_assets.core.errors import CheckFailedError
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import find_job
from dssm_assets.defs.run_plan import PlannedRun
from dssm_assets.defs.scene import MADE_FOR_TAG, RANGE_TAGS, Scene
from dssm_assets.deployment.dagster_internals import keep_connections, origin_tags
from dssm_assets.deployment.run_owner import RunOwner
from dssm_assets.storage.instance_file import write_instance_file

_NO_COPIES: Final = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
QUIET_CONSOLE: Final = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration that silences Dagster's console. Errors are raised; the console would print them twice more."""


def open_instance(folder: Path) -> dg.DagsterInstance:
    """Returns the Dagster instance in a folder, created on first use. The output of its runs goes only to the terminal.

    Otherwise Dagster would copy each step's output with two more processes, and Ctrl-C would end these, too.
    """
    write_instance_file(folder)
    return dg.DagsterInstance.local_temp(str(folder), overrides={"compute_logs": _NO_COPIES})


def make_run(
    defs: dg.Definitions, instance: dg.DagsterInstance, scene: Scene, run: PlannedRun, made_for: dg.DagsterRun | None = None
) -> str:
    """Makes a planned run as a run of its job. For the result and errors see `run_days`."""
    keys = [scene.key(name).to_user_string() for name in run.names]
    found = find_job(all_rows(scene.loaded.config), run.names)
    return run_days(defs, instance, keys, run.days, job=found and scene.name(found), made_for=made_for)


def run_days(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    names: Sequence[str],
    days: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    job: str | None = None,
    made_for: dg.DagsterRun | None = None,
) -> str:
    """Materializes assets of one day, or daily tables over consecutive days, in one run. Returns the run's id.

    Args:
        settings: op -> run config, as in the Launchpad.
        job: the UI shows the run under this job. None: as an ad hoc materialization.
        made_for: the run that needs this run; this run gets its code location.

    Raises:
        CheckFailedError: a blocking check failed.
        Exception: the error raised by a failing asset.
    """
    # A planned range of days is then one event per asset, not one per day.
    os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")
    run_id = str(uuid.uuid4())
    found = defs.resolve_implicit_global_asset_job_def() if job is None else defs.resolve_job_def(job)
    tags = RunOwner.from_this_process().to_tags(run_id) | origin_tags(instance, found.name, made_for)
    if len(days) > 1:
        tags |= dict(zip(RANGE_TAGS, (days[0], days[-1]), strict=True))
    if made_for is not None:
        tags |= {MADE_FOR_TAG: made_for.run_id[:8]}
    if instance.run_retries_enabled:
        tags["dagster/max_retries"] = "0"  # the caller gets the error; with retries the daemon would run it elsewhere
    try:
        with keep_connections(instance):
            found.execute_in_process(
                instance=instance,
                run_config={"ops": {op: {"config": dict(form)} for op, form in (settings or {}).items()}} | QUIET_CONSOLE,
                asset_selection=[dg.AssetKey.from_user_string(name) for name in names],
                run_id=run_id,
                tags=tags,
                partition_key=days[0] if len(days) == 1 else None,
            )
    except dg.DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None  # the run is recorded as ended
    except dg.DagsterError as error:
        if failed := _failed_checks(instance, run_id):
            raise CheckFailedError(failed) from error
        raise
    return run_id


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> str:
    """Returns an error text with the blocking checks that failed in a run, "" if none failed."""
    records = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [record.dagster_event.asset_check_evaluation_data for record in records]
    failed = [check for check in found if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR]
    texts = [f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}" for check in failed]
    return f"{'; '.join(texts)}. To fix: see what the check reports, correct its input and materialize again" if texts else ""
