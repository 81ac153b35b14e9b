"""Turns a row of the asset table into a Dagster asset of a scene.

Belongs here: the decorator call, partitions, backfill policy, checks, progress. Does not belong here: the declaration of an
asset (`asset_table.py`), its computation (`steps/*`), its run and metadata (`asset_run.py`).
"""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.core.errors import PartitionReplacedError
from dssm_assets.core.progress import count_progress
from dssm_assets.defs.asset_row import TRAINER, AssetRow, CheckRow
from dssm_assets.defs.asset_run import describe_bytes, open_run, to_metadata_value
from dssm_assets.defs.scene import PARTITION_TAG, RANGE_TAGS, Scene, name_days
from dssm_assets.deployment.run_owner import tag_run
from dssm_assets.installed_extras import load_all, load_extra
from dssm_assets.steps.checks import add_checks

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Check, StepResult, Workspace

LAYER_TAG = "dssm/layer"
"""Tag of an asset: daily (a run takes a range of days) or windowed (a run takes one day). A job has assets of one of the two only."""
SKIPPED = "skipped"
"""Metadata of an empty partition, for a day with nothing to evaluate. The value is the reason."""


class Observer:
    """Follows the progress of materializations. The methods of this class do nothing; the terminal's progress table is a subclass."""

    def on_log(self, text: str) -> None:
        """Called for every log line. A line begins with the asset and its days."""

    def on_partition(self, name: str, ds: str) -> None:
        """Called after a partition of an asset was written."""

    def on_skipped(self, ds: str, reason: str) -> None:
        """Called by each asset whose evaluation day has nothing to evaluate."""

    def on_check(self, name: str, fault: str | None) -> None:
        """Called for each check of a run. `name`: the asset's and the check's name; `fault`: the check's sentence if it failed."""


MakeUpstream = Callable[[dg.AssetExecutionContext, AssetRow, Callable[[str], None]], None]
"""Makes the missing inputs of an asset's run, and reports to a log."""


def build_asset(
    row: AssetRow, scene: Scene, observer: Observer, make_upstream: MakeUpstream | None = None
) -> dg.AssetsDefinition:
    """Returns the Dagster asset for a row. If `make_upstream` is given, a run of the asset first makes its missing inputs."""

    def materialize(context: dg.AssetExecutionContext):
        from dssm_assets.steps.workspace import reason_to_skip, release_memory

        _check_days(context, scene, row)
        days = list(context.partition_keys)
        subject = f"{scene.key(row.name).to_user_string()} {name_days(days)}"  # with its days, because other days may be made at the same time

        def log(text: str) -> None:
            context.log.info(text)
            observer.on_log(f"{subject}: {text}")

        run = open_run(context, scene, row)
        regular = scene.open_workspace(log)
        if tag_run(context.instance, context.run):
            for extra in load_all("run_start"):
                extra.on_run_start(regular)
            if make_upstream is not None and run.is_regular:
                make_upstream(context, row, log)
        if row.is_windowed and (reason := reason_to_skip(regular, days[0])) is not None:
            context.log.info(f"{subject} is skipped: {reason}")
            observer.on_skipped(days[0], reason)
            # Without a partition, backfills of missing days would try this day again and again.
            yield _skip(row, reason)
            return
        workspace = run.open_workspace(regular, days)
        if row.runs_on_engine and scene.loaded.config.engine == "spark":
            results = load_extra("spark", "spark_runs").run_step(context, scene, row.step, days)
        else:
            results = run_step(row.step, workspace, days)
        done: list[StepResult] = []
        metadata: dict[str, dict[str, Any]] = {}
        start = time.perf_counter()
        for result, seconds in results:
            metadata[result.manifest.ds] = run.describe(result, seconds)
            done.append(add_checks(row.name, workspace, result))
            observer.on_partition(row.name, result.manifest.ds)
            if len(done) == 1:  # the first day includes work that is done once, such as reading and compiling
                count_days = count_progress(log, regular.now, len(days), "days", done=1)
            else:
                count_days(1)
        for extra in load_all("materialized"):
            extra.on_materialized(context, run, workspace, done)
        for ds, of_day in metadata.items():
            context.add_asset_metadata(of_day, scene.key(row.name), partition_key=ds)
        _log_end(log, done, time.perf_counter() - start)
        release_memory()
        checks = [run.label_check(_check_result(check, done)) for check in row.checks]
        for check in checks:
            observer.on_check(f"{check.check_name} of {row.name}", None if check.passed else check.description)
        yield dg.MaterializeResult(check_results=checks, data_version=run.data_version or _data_version(done))

    with warnings.catch_warnings():
        # `backfill_policy` is beta, partitions of checks a preview; each process would warn once per asset.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.asset(**_attributes(row, scene))(materialize)


def _attributes(row: AssetRow, scene: Scene) -> dict[str, Any]:
    config = scene.loaded.config
    layer, partitions = ("windowed", scene.windowed) if row.is_windowed else ("daily", scene.daily)
    is_on_spark = row.runs_on_engine and config.engine == "spark"
    return scene.extra_attributes | {
        "key": scene.key(row.name),
        "group_name": scene.name(row.group),
        "deps": [*map(scene.key, row.deps), *([made_by] if (made_by := scene.source_assets.get(row.name)) else [])],
        "description": f"{row.description}\n\n{row.reading}".strip(),
        "kinds": (set(row.kinds) - {"duckdb"}) | {"spark"} if is_on_spark else set(row.kinds),
        "owners": config.platform.owners,
        "code_version": row.code_version,
        "tags": scene.tags | {LAYER_TAG: layer},
        "pool": row.pool if row.pool == TRAINER else row.pool and scene.name(row.pool),
        "config_schema": next(filter(None, (extra.settings_form(row, scene) for extra in load_all("forms"))), None),
        "partitions_def": partitions,
        "backfill_policy": dg.BackfillPolicy.multi_run(1) if row.is_windowed else dg.BackfillPolicy.single_run(),
        "check_specs": [
            dg.AssetCheckSpec(
                check.name,
                asset=scene.key(row.name),
                description=check.description,
                blocking=check.is_blocking,
                # A run of a daily table takes a range of days, and Dagster records one result for it, without a day.
                partitions_def=partitions if row.is_windowed else None,
            )
            for check in row.checks
        ],
    }


def _check_days(context: dg.AssetExecutionContext, scene: Scene, row: AssetRow) -> None:
    """Fails a run with days that the asset lacks: it was launched before the calendar changed, or not by the UI."""
    from dssm_assets.defs.run_plan import find_fault_of_days

    first, last = (context.run.tags.get(tag) or context.run.tags.get(PARTITION_TAG) for tag in RANGE_TAGS)
    if first and last and (fault := find_fault_of_days(scene, first, last, is_windowed=row.is_windowed)):
        raise dg.Failure(str(fault), allow_retries=False)


def _skip(row: AssetRow, reason: str) -> dg.MaterializeResult[Any]:
    checks = [dg.AssetCheckResult(check_name=check.name, passed=True, description=f"skipped: {reason}") for check in row.checks]
    return dg.MaterializeResult(metadata={SKIPPED: reason}, check_results=checks, data_version=dg.DataVersion(SKIPPED))


_STEP_TRIES = 3


def run_step(
    step: "Callable[[Workspace, Sequence[str]], Iterator[StepResult]]", workspace: "Workspace", days: Sequence[str]
) -> "Iterator[tuple[StepResult, float]]":
    """Yields the results of a step, each with its seconds. If another run replaces an input, the remaining days are repeated.

    Raises:
        PartitionReplacedError: inputs were replaced in every try.
        DiskFullError: the disk is full.
    """
    from dssm_assets.storage.disk_space import disk_errors

    done: set[str] = set()
    start = time.perf_counter()
    for attempt in range(1, _STEP_TRIES + 1):
        try:
            with disk_errors():
                for result in step(workspace, [ds for ds in days if ds not in done]):
                    done.add(result.manifest.ds)
                    yield result, time.perf_counter() - start
                    start = time.perf_counter()
            return
        except PartitionReplacedError as error:
            if attempt == _STEP_TRIES:
                raise
            workspace.log(f"{error}. It is read again")


def _data_version(done: "Sequence[StepResult]") -> dg.DataVersion:
    """Returns the digest of the written content, so that downstream partitions become stale only if the content changes.

    Dagster accepts one version per run. For several days it is a digest of their digests, so a day that is later made again
    alone counts as changed.
    """
    digests = [result.manifest.digest for result in done]
    return dg.DataVersion(digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest())


def _log_end(log: Callable[[str], None], done: "Sequence[StepResult]", seconds: float) -> None:
    manifests = [result.manifest for result in done]
    rows, size = sum(one.rows for one in manifests), sum(one.size_bytes for one in manifests)
    is_table = any(one.columns for one in manifests)  # not a model or file
    speed = f" ({rows / max(seconds, 1e-9):,.0f} rows/s)" if is_table and rows else ""
    amount = f"{rows:,} rows" if is_table else describe_bytes(size)
    log(f"{amount} in {seconds:.1f} s{speed}, {len(done)} day{'s' if len(done) > 1 else ''}")


def _check_result(row: CheckRow, done: "Sequence[StepResult]") -> dg.AssetCheckResult:
    found: list[tuple[str, Check]] = [
        (result.manifest.ds, check) for result in done for check in result.checks if check.name == row.name
    ]
    failed = [(ds, check) for ds, check in found if not check.is_passed]
    shown = failed or found[-1:]
    is_blocking = row.is_blocking and all(check.is_blocking for _, check in shown)
    return dg.AssetCheckResult(
        check_name=row.name,
        passed=bool(found) and not failed,
        severity=dg.AssetCheckSeverity.ERROR if is_blocking else dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{ds}: {check.description}" for ds, check in shown[:10]) or "the step reported no result",
        metadata={key: to_metadata_value(value) for key, value in (shown[-1][1].facts if shown else {}).items()},
    )
