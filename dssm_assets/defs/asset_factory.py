"""The one way a step becomes a Dagster asset.

Belongs here: the decorator call, partitions, backfill policy, checks, metadata, progress. Does not belong here: what
an asset means (`defs/assets/*`) or does (`steps/*`).
"""

import datetime as dt
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.defs.experiments import ExperimentSettings, StepRun, form_of
from dssm_assets.defs.lazy_steps import LazyStep, code_references
from dssm_assets.defs.metadata import plain
from dssm_assets.defs.scene import Scene
from dssm_assets.defs.spark_runs import submitted

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Check, StepResult, Workspace

TRAINER = "trainer"
FRESHNESS_HOURS = 36.0

Step = Callable[["Workspace", Sequence[str]], Iterator["StepResult"]]


@dataclass(frozen=True)
class CheckRow:
    """A check that an asset reports about itself."""

    name: str
    description: str
    is_blocking: bool = False


@dataclass(frozen=True)
class AssetRow:
    """One line of the table of contents: an asset, what it is for, what it needs, what makes it.

    Attributes:
        description: what it holds and how it is made.
        reading: its grain, and what to look at in it and when.
        component: number of the reference component (several joined by `_`), "" for the prerequisite steps.
        is_windowed: learned from a window, so one run per date; daily tables take a range of dates in one run.
        pool: concurrency pool of the scene, for assets of which two must not run at the same time. That of dssm_model is
            named by the configuration, because scenes that share a machine must share it.
        settings: the form that the Launchpad shows; an asset that has one takes part in experiments.
        is_watched: late when it is not made anew in time (platform.freshness_hours).
        runs_on_engine: table algebra or feature generation: with `engine: spark` its step is a job on the cluster.
    """

    name: str
    group: str
    step: Step
    description: str
    reading: str = ""
    deps: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset({"parquet"})
    component: str = ""
    code_version: str = "1"
    is_windowed: bool = False
    checks: tuple[CheckRow, ...] = ()
    pool: str | None = None
    settings: type[ExperimentSettings] | None = None
    is_watched: bool = False
    runs_on_engine: bool = False


class Observer:
    """Told what happens while assets are materialized; the default does nothing. The terminal draws its bar with one."""

    def line(self, text: str) -> None:
        """Takes a progress line."""

    def asset_done(self, name: str, seconds: float) -> None:
        """Takes the end of an asset's step."""


def build_asset(row: AssetRow, scene: Scene, observer: Observer) -> dg.AssetsDefinition:
    """Returns the Dagster asset of a line of the table."""
    with warnings.catch_warnings():
        # `backfill_policy` and code references are marked beta; that every process says so per asset helps nobody.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _asset(row, scene, observer)


def _described(row: AssetRow, scene: Scene) -> dict[str, Any]:
    """Returns what the decorator is told about an asset, beside its checks and its partitions."""
    platform = scene.loaded.config.platform
    pool = platform.trainer_pool if row.pool == TRAINER else None if row.pool is None else scene.name(row.pool)
    return {
        "key": scene.key(row.name),
        "group_name": scene.name(row.group),
        "deps": [scene.key(dep) for dep in row.deps],
        "description": f"{row.description}\n\n{row.reading}".strip(),
        "kinds": _kinds(row, scene),
        "owners": platform.owners,
        "code_version": row.code_version,
        "tags": scene.tags | ({"dssm/component": row.component} if row.component else {}),
        "metadata": code_references(row.step, platform),
        "pool": pool,
        "freshness_policy": _freshness(scene) if row.is_watched else None,
        "config_schema": form_of(row.settings, scene) if row.settings is not None else None,
    }


def _kinds(row: AssetRow, scene: Scene) -> set[str]:
    is_on_spark = row.runs_on_engine and scene.loaded.config.engine == "spark"
    return (set(row.kinds) - {"duckdb"}) | {"spark"} if is_on_spark else set(row.kinds)


def _freshness(scene: Scene) -> dg.FreshnessPolicy | None:
    hours = scene.loaded.config.platform.freshness_hours
    if hours is None and scene.loaded.config.calendar.end is not None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=dt.timedelta(hours=FRESHNESS_HOURS if hours is None else hours))


def _asset(row: AssetRow, scene: Scene, observer: Observer) -> dg.AssetsDefinition:
    key = scene.key(row.name)

    @dg.asset(
        **_described(row, scene),
        partitions_def=scene.daily,
        backfill_policy=dg.BackfillPolicy.multi_run(1) if row.is_windowed else dg.BackfillPolicy.single_run(),
        check_specs=[
            dg.AssetCheckSpec(check.name, asset=key, description=check.description, blocking=check.is_blocking)
            for check in row.checks
        ],
    )
    def materialize(context: dg.AssetExecutionContext):
        def log(text: str) -> None:
            context.log.info(text)
            observer.line(f"{key.to_user_string()}: {text}")

        days = list(context.partition_keys)
        run = StepRun(context, scene, row.name, row.deps, takes_settings=row.settings is not None)
        workspace = run.open(scene.workspace(log), days)
        done: list[StepResult] = []
        begun = time.perf_counter()
        is_submitted = row.runs_on_engine and scene.loaded.config.engine == "spark"
        results = _submitted(row, scene, context, days) if is_submitted else _timed(row.step(workspace, days))
        for result, seconds in results:
            metadata = run.metadata(result, seconds, is_windowed=row.is_windowed)
            context.add_asset_metadata(metadata, partition_key=result.manifest.ds)
            done.append(result)
            if not is_submitted:
                _log_days(log, len(done), len(days), time.perf_counter() - begun)
        _log_end(log, done, time.perf_counter() - begun)
        observer.asset_done(row.name, time.perf_counter() - begun)
        checks = [run.check(_check_result(check, done)) for check in row.checks]
        return dg.MaterializeResult(check_results=checks, data_version=run.data_version or _data_version(done))

    return materialize


def _submitted(
    row: AssetRow, scene: Scene, context: dg.AssetExecutionContext, days: Sequence[str]
) -> "Iterator[tuple[StepResult, float]]":
    assert isinstance(row.step, LazyStep)  # the job finds the step by its name
    return submitted(context, scene.loaded, scene.launch, row.step, days)


def _timed(results: "Iterator[StepResult]") -> "Iterator[tuple[StepResult, float]]":
    """Yields each result with the seconds that it took."""
    started = time.perf_counter()
    for result in results:
        yield result, time.perf_counter() - started
        started = time.perf_counter()


def _data_version(done: "Sequence[StepResult]") -> dg.DataVersion:
    """Returns what tells whether a partition is another one than before: its digest, so what is behind it becomes stale when
    its content changes and only then. A run over several days can give them one version between them, made of all digests:
    a day that is made again alone after that counts as changed.
    """
    digests = [result.manifest.digest for result in done]
    if len(digests) == 1:
        return dg.DataVersion(digests[0])
    return dg.DataVersion(hashlib.sha256("".join(digests).encode()).hexdigest())


def _log_days(log: Callable[[str], None], done: int, total: int, seconds: float) -> None:
    if total > 1 and done < total and done % max(1, total // 5) == 0:
        log(f"{done}/{total} days, {done / seconds:.1f} days/s, ETA {seconds / done * (total - done):.0f} s")


def _log_end(log: Callable[[str], None], done: "Sequence[StepResult]", seconds: float) -> None:
    rows = sum(result.manifest.rows for result in done)
    log(
        f"{rows:,} rows in {seconds:.1f} s ({rows / max(seconds, 1e-9):,.0f} rows/s), {len(done)} day{'s' if len(done) > 1 else ''}"
    )


def _check_result(row: CheckRow, done: "Sequence[StepResult]") -> dg.AssetCheckResult:
    """Returns one result over all days of the run: it passes when it passed on every day."""
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
        description="; ".join(f"{ds}: {check.description}" for ds, check in shown[:10]) or "the step reported nothing",
        metadata={key: plain(value) for key, value in (shown[-1][1].facts if shown else {}).items()},
    )
