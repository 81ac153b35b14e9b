"""The job of `shown` and `online_rates`, and the sensor that starts it for changed days."""

import hashlib
from collections.abc import Iterator

import dagster as dg

from dssm_assets.core.errors import InputError
from dssm_assets.defs.scene import Scene, today_in


def build(scene: Scene) -> dg.Definitions:
    """Returns the job and the sensor, nothing without `serving.shown`."""
    serving, taken = scene.loaded.config.serving, scene.loaded.config.evaluation.shown
    if serving.shown is None:
        return dg.Definitions()
    job = dg.define_asset_job(
        scene.name("online"),
        selection=dg.AssetSelection.assets(*map(scene.key, ["shown", "online_rates"] if taken else ["shown"])),
        description="A day of the log of shown items, and its rates.",
        tags=scene.tags,
        executor_def=dg.in_process_executor,
    )

    @dg.sensor(
        name=scene.name("shown_sensor"),
        job=job,
        minimum_interval_seconds=600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts the job for each ended day of the log that is not stored, has parts that came late, or has rates from "
        "before events of it were stored.",
        tags=scene.tags,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            due = [*_find_due(scene)]
        except InputError as error:
            return dg.SensorResult(skip_reason=dg.SkipReason(f"the log cannot be read: {error}"))
        today = today_in("UTC")  # in the key, so that a failed run is repeated on the next day
        runs = [dg.RunRequest(f"{job.name}:{ds}:{state}:{today}", partition_key=ds, tags=scene.tags) for ds, state in due]
        return dg.SensorResult(run_requests=runs) if runs else dg.SensorResult(skip_reason=dg.SkipReason("no day has changed"))

    return dg.Definitions(jobs=[job], sensors=[sensor])


def _find_due(scene: Scene) -> Iterator[tuple[str, str]]:
    """Yields the days to make, ascending, each with a text that changes with its inputs."""
    from dssm_assets.extras.shown.log_folder import open_log
    from dssm_assets.extras.shown.rates_step import find_inputs
    from dssm_assets.extras.shown.shown_day import find_log_days
    from dssm_assets.steps.workspace import digests, has_other_settings

    workspace = scene.open_workspace(lambda _: None)
    log, hidden, today = open_log(scene.loaded), workspace.tables.partitions.hidden.read(), today_in("UTC").isoformat()
    logged, has_rates = set(log.days()), workspace.config.evaluation.shown is not None
    for ds in scene.daily.get_partition_keys():
        days = find_log_days(workspace, ds)
        is_there = logged.intersection(days) and days[-1] < today and ds >= hidden.first_day
        if not is_there or (has_rates and workspace.find("behavior_table", ds) is None):
            continue
        parts, stored, inputs = log.fingerprint(days), workspace.find("shown", ds), dict[str, str]()
        is_due = stored is None or stored.facts["parts"] != parts or has_other_settings(workspace, stored)
        if has_rates and not is_due:
            inputs, rates = digests(find_inputs(workspace, ds).values()), workspace.find("online_rates", ds)
            is_due = rates is None or dict(rates.inputs) != inputs or has_other_settings(workspace, rates)
        if is_due:
            settings = workspace.tables.partitions.settings
            made_from = parts, inputs, settings["shown"], settings["online_rates"]
            yield ds, hashlib.sha256(repr(made_from).encode()).hexdigest()[:16]
