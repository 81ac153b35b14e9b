"""The asset `bundle_delta`, its job, and the sensor that starts the job when sources have changed."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.core.errors import InputError
from dssm_assets.defs.asset_table import PUBLISHING_GROUP
from dssm_assets.defs.scene import Scene, today_in
from dssm_assets.installed_extras import tell_served

if TYPE_CHECKING:
    from dssm_assets.extras.bundle_delta.delta import DeltaResult

NAME = "bundle_delta"
JOB = "publish_delta"
STATE_TAG = "dssm/sources"
"""Tag of the sensor's runs, with the state of the sources that the run publishes."""
TRIES = 3
"""Most runs for one state of the sources, if all fail."""


def build(scene: Scene) -> dg.Definitions:
    """Returns the asset `bundle_delta`, its job and its sensor."""
    job = dg.define_asset_job(
        scene.name(JOB),
        selection=dg.AssetSelection.assets(scene.key(NAME)),
        description="A delta of the served bundle, started by the sensor.",
        tags=scene.tags,
    )
    return dg.Definitions(assets=[_build_asset(scene)], jobs=[job], sensors=[_build_sensor(scene, job)])


def refresh(scene: Scene, log: Callable[[str], None]) -> "DeltaResult":
    """Publishes a delta with the current tables and log. See `publish_delta`."""
    from dssm_assets.extras.bundle_delta.delta import publish_delta

    return publish_delta(scene.open_workspace(log), today_in(scene.loaded.config.calendar.timezone).isoformat())


def _build_asset(scene: Scene) -> dg.AssetsDefinition:

    @dg.asset(
        key=scene.key(NAME),
        group_name=scene.name(PUBLISHING_GROUP),
        deps=[scene.key("serving_bundle")],
        description="Refreshes the served bundle: new and changed items, users with new events, columns for filters. The model, the "
        "statistics, the popularity and the neighbours stay. `dssm-assets rollback` undoes it.",
        kinds={"faiss", "arrow"},
        tags=scene.tags,
        owners=scene.loaded.config.platform.owners,
        pool=scene.name("publisher"),
    )
    def bundle_delta(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
        result = refresh(scene, context.log.info)
        tell_served(scene.loaded, context.log.info)
        bundle_id = "none: nothing has changed" if result.published is None else result.published.bundle_id
        return dg.MaterializeResult(metadata={"bundle_id": bundle_id, "refreshed_bundle": result.base, **asdict(result.counts)})

    return bundle_delta


def _build_sensor(scene: Scene, job: Any) -> dg.SensorDefinition:
    minutes = scene.loaded.config.serving.delta_minutes

    @dg.sensor(
        name=scene.name("bundle_delta_sensor"),
        job=job,
        minimum_interval_seconds=60 * (minutes or 10),
        default_status=dg.DefaultSensorStatus.STOPPED if minutes is None else dg.DefaultSensorStatus.RUNNING,
        description="Publishes a delta of the served bundle when a source table, a stored day of item_table or user_history_fg, or the "
        f"whole bundle has changed since the last look, at most every serving.delta_minutes. Tries {TRIES} times in all if runs fail.",
        tags=scene.tags,
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        try:
            state = _fingerprint(scene)
        except InputError as error:
            return dg.SensorResult(skip_reason=dg.SkipReason(f"no delta can be published: {error}"))
        tags = {**scene.tags, STATE_TAG: state}
        failed = _count_failed(context.instance, job.name, tags) if state == context.cursor else None
        if failed == 0:
            return dg.SensorResult(skip_reason=dg.SkipReason("no source has changed since the last look"))
        if failed == TRIES:
            reason = f"the last {TRIES} runs failed: see their error, correct the cause and launch the job {job.name}, or wait for a change"
            return dg.SensorResult(skip_reason=dg.SkipReason(reason))
        # Without a run key, because each key starts only one run ever. A failed run is repeated, and sources may return to a former state.
        return dg.SensorResult(run_requests=[dg.RunRequest(tags=tags)], cursor=state)

    return sensor


def _count_failed(instance: dg.DagsterInstance, job: str, tags: dict[str, str]) -> int:
    runs = instance.get_runs(dg.RunsFilter(job_name=job, tags=tags), limit=TRIES)  # newest first
    return len(list(takewhile(lambda run: run.status is dg.DagsterRunStatus.FAILURE, runs)))


def _fingerprint(scene: Scene) -> str:
    """Returns a digest, short enough for a tag, of everything a delta depends on: source files, newest stored days, the whole bundle."""
    from dssm_assets.extras.bundle_delta.delta import find_base
    from dssm_assets.extras.bundle_delta.fresh_days import find_fingerprint
    from dssm_assets.service.bundle.bundle_store import open_bundles
    from dssm_assets.storage.partitions import PartitionStore

    loaded = scene.loaded
    base, _ = find_base(open_bundles(loaded))
    partitions = PartitionStore(loaded.root, loaded.config.storage.options)
    seen: list[Any] = [base]
    for asset in ("item_table", "user_history_fg"):
        days = partitions.days(asset)
        seen.append((days[-1], partitions.need(asset, days[-1]).digest) if days else None)
    for side in ("user", "item", "behavior"):
        table = getattr(loaded.config.tables, side)
        seen.append(None if table is None else find_fingerprint(table, f"{side}_table"))
    return hashlib.sha256(repr(seen).encode()).hexdigest()[:32]
