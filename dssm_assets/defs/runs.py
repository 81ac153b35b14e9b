"""Runs inside this process, as the demo and `dssm-assets materialize` make them: a range of days, or one run per day."""

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster._core.errors import DagsterAssetCheckFailedError, DagsterExecutionInterruptedError
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from dssm_assets.core.errors import CheckFailedError
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import find_job
from dssm_assets.defs.run_plan import PlannedRun
from dssm_assets.defs.scene import MADE_FOR_TAG, Scene
from dssm_assets.defs.sqlite_events import quick_events
from dssm_assets.deployment.run_owner import RunOwner, reporting
from dssm_assets.storage.config_choice import UI_LOCATION
from dssm_assets.storage.instance_file import write_instance_file

_NO_COPIES = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
QUIET_CONSOLE = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
"""Run configuration that silences Dagster's console: errors are raised, and the console would print them twice more."""


def open_instance(folder: Path) -> dg.DagsterInstance:
    """Returns the Dagster instance of a folder, which becomes one if it is not yet. Outputs of its runs stay in the terminal.

    Dagster would copy each step's stdout and stderr to files, through two processes each, which Ctrl-C reaches too.
    """
    write_instance_file(folder)
    return dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(folder), overrides={"compute_logs": _NO_COPIES}))


@contextmanager
def _located_runs(instance: dg.DagsterInstance, made_for: dg.DagsterRun | None) -> Iterator[None]:
    """Gives the runs that are made in a block a code location, or the UI would show them neither in Overview > Timeline nor with their job.

    It is that of the run that they are made for, else that of the last run of their job; of a command's run without either, the one that
    the printed command of the UI loads.
    """
    create_run = instance.create_run_for_job

    def create_located_run(job_def: dg.JobDefinition, *arguments: Any, **settings: Any) -> dg.DagsterRun:
        origin = _find_origin(instance, job_def.name, made_for)
        return create_run(job_def, *arguments, remote_job_origin=origin, **settings)

    instance.create_run_for_job = create_located_run  # type: ignore[method-assign]
    try:
        yield
    finally:
        del instance.create_run_for_job  # the method of its class again


def _find_origin(instance: dg.DagsterInstance, job: str, made_for: dg.DagsterRun | None) -> Any:
    if made_for is not None and made_for.remote_job_origin is not None:
        return dg.deserialize_value(
            json.dumps(json.loads(dg.serialize_value(made_for.remote_job_origin)) | {"pipeline_name": job})
        )
    last = next(iter(instance.get_runs(dg.RunsFilter(job_name=job), limit=1)), None)
    if last is not None and last.remote_job_origin is not None:
        return last.remote_job_origin
    return None if made_for is not None else dg.deserialize_value(_ORIGIN % (json.dumps(UI_LOCATION), json.dumps(job)))


_ORIGIN: Final = """{
    "__class__": "ExternalPipelineOrigin",
    "external_repository_origin": {
        "__class__": "ExternalRepositoryOrigin",
        "repository_location_origin": {"__class__": "RegisteredRepositoryLocationOrigin", "location_name": %s},
        "repository_name": "__repository__"
    },
    "pipeline_name": %s
}"""
"""A job's origin as Dagster stores it with a run; its class is not public, the stored form is read by every later version."""


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
    """Materializes daily assets over consecutive days in one run; returns its id.

    Args:
        job, made_for: as in `run_day`.

    Raises:
        CheckFailedError: if a blocking check failed, with its description.
        Exception: whatever the failing asset raised.
    """
    day_range = {ASSET_PARTITION_RANGE_START_TAG: days[0], ASSET_PARTITION_RANGE_END_TAG: days[-1]}
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
    try:
        with quick_events(instance.event_log_storage), reporting(instance), _located_runs(instance, made_for):
            found = defs.resolve_implicit_global_asset_job_def() if job is None else defs.resolve_job_def(job)
            found.execute_in_process(
                instance=instance,
                run_config=run_config | QUIET_CONSOLE,
                asset_selection=[dg.AssetKey.from_user_string(name) for name in names],
                run_id=run_id,
                tags=tags,
                **partitions,
            )
    except DagsterExecutionInterruptedError:
        raise KeyboardInterrupt from None  # the run is recorded as ended
    except DagsterAssetCheckFailedError as error:
        raise CheckFailedError(_failed_checks(instance, run_id)) from error
    return run_id


def _failed_checks(instance: dg.DagsterInstance, run_id: str) -> str:
    records = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    found = [record.dagster_event.asset_check_evaluation_data for record in records]
    failed = [check for check in found if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR]
    texts = [f"check {check.check_name} of {check.asset_key.to_user_string()}: {check.description}" for check in failed]
    return f"{'; '.join(texts)}. To fix: see what the check reports, correct its input and materialize again"
