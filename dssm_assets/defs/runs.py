"""Runs inside this process, as the demo and `dssm-assets materialize` make them: a range of days, or one run per day."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final

import dagster as dg

from dssm_assets.core.errors import CheckFailedError
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import find_job
from dssm_assets.defs.held_connections import held_connections
from dssm_assets.defs.run_plan import PlannedRun
from dssm_assets.defs.scene import MADE_FOR_TAG, Scene
from dssm_assets.deployment.run_owner import RunOwner
from dssm_assets.storage.config_choice import UI_LOCATION
from dssm_assets.storage.instance_file import write_instance_file

_NO_COPIES = {"module": "dagster.core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
QUIET_CONSOLE = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration that silences Dagster's console: errors are raised, and the console would print them twice more."""


def open_instance(folder: Path) -> dg.DagsterInstance:
    """Returns the Dagster instance of a folder, which becomes one if it is not yet. Outputs of its runs stay in the terminal.

    Dagster would copy each step's stdout and stderr to files, through two processes each, which Ctrl-C reaches too.
    """
    write_instance_file(folder)
    return dg.DagsterInstance.local_temp(str(folder), overrides={"compute_logs": _NO_COPIES})


@contextmanager
def _located_runs(instance: dg.DagsterInstance, job: str, made_for: dg.DagsterRun | None) -> Iterator[None]:
    """Gives the runs that are made in a block a code location: the UI's Timeline shows only runs that have one.

    It is that of the run that they are made for, else that of the last run of the job, else the one that the printed command of
    the UI loads.
    """
    last = next(iter(instance.get_runs(dg.RunsFilter(job_name=job), limit=1)), None)
    known = [run.remote_job_origin for run in (made_for, last) if run is not None and run.remote_job_origin is not None]
    text = dg.serialize_value(known[0]) if known else _ORIGIN % json.dumps(UI_LOCATION)
    origin = dg.deserialize_value(json.dumps(json.loads(text) | {"pipeline_name": job}))
    instance.create_run_for_job = partial(instance.create_run_for_job, remote_job_origin=origin)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del instance.create_run_for_job  # the method of its class again


_ORIGIN: Final = """{
    "__class__": "ExternalPipelineOrigin",
    "external_repository_origin": {
        "__class__": "ExternalRepositoryOrigin",
        "repository_location_origin": {"__class__": "RegisteredRepositoryLocationOrigin", "location_name": %s},
        "repository_name": "__repository__"
    }
}"""
"""A job's origin as Dagster stores it with a run, without the job's name; every later version reads the stored form."""


def make_run(
    defs: dg.Definitions, instance: dg.DagsterInstance, scene: Scene, run: PlannedRun, made_for: dg.DagsterRun | None = None
) -> str:
    """Makes a planned run, as one of the job that its assets are part of; returns its id.

    Args:
        made_for: the run that needs it, whose code location it gets.

    Raises:
        CheckFailedError: if a blocking check failed, with its description.
        Exception: whatever the failing asset raised.
    """
    keys = [scene.key(name).to_user_string() for name in run.names]
    found = find_job(all_rows(), run.names)
    job = None if found is None else scene.name(found)
    if run.is_windowed:
        return run_day(defs, instance, keys, run.days[0], job=job, made_for=made_for)
    return run_range(defs, instance, keys, run.days, job=job, made_for=made_for)


def run_range(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    names: Sequence[str],
    days: Sequence[str],
    *,
    job: str | None = None,
    made_for: dg.DagsterRun | None = None,
) -> str:
    """Materializes daily assets over consecutive days in one run; arguments, result and errors as `run_day`."""
    day_range = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    return _execute(defs, instance, names, {}, job, made_for, tags=day_range)


def run_day(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    names: Sequence[str],
    ds: str,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    job: str | None = None,
    made_for: dg.DagsterRun | None = None,
) -> str:
    """Materializes assets of one day in one run; returns its id.

    Args:
        settings: op -> its form, as in the Launchpad.
        job: which the assets are part of, and the run is shown as one of; None: they are materialized ad hoc.
        made_for: the run that needs this one.

    Raises:
        CheckFailedError: if a blocking check failed, with its description.
        Exception: whatever the failing asset raised.
    """
    run_config = {"ops": {op: {"config": dict(form)} for op, form in (settings or {}).items()}}
    return _execute(defs, instance, names, run_config, job, made_for, partition_key=ds)


def _execute(
    defs: dg.Definitions,
    instance: dg.DagsterInstance,
    names: Sequence[str],
    run_config: dict[str, Any],
    job: str | None,
    made_for: dg.DagsterRun | None,
    **partitions: Any,
) -> str:
    run_id = str(uuid.uuid4())
    tags = {**partitions.pop("tags", {}), **RunOwner.from_this_process().to_tags(run_id)}
    if made_for is not None:
        tags |= {MADE_FOR_TAG: made_for.run_id[:8]}
    if instance.run_retries_enabled:
        tags["dagster/max_retries"] = "0"  # whoever called it sees its error; the daemon would make it again elsewhere
    found = defs.resolve_implicit_global_asset_job_def() if job is None else defs.resolve_job_def(job)
    try:
        with held_connections(instance.event_log_storage), _located_runs(instance, found.name, made_for):
            found.execute_in_process(
                instance=instance,
                run_config=run_config | QUIET_CONSOLE,
                asset_selection=[dg.AssetKey.from_user_string(name) for name in names],
                run_id=run_id,
                tags=tags,
                **partitions,
            )
    except dg.DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None  # the run is recorded as ended
    except dg.DagsterError as error:
        if failed := _failed_checks(instance, run_id):
            raise CheckFailedError(failed) from error
        raise
    return run_id


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> str:
    """Returns an error of the blocking checks that failed in a run, "" if none did."""
    records = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [record.dagster_event.asset_check_evaluation_data for record in records]
    failed = [check for check in found if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR]
    texts = [f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}" for check in failed]
    return f"{'; '.join(texts)}. To fix: see what the check reports, correct its input and materialize again" if texts else ""
