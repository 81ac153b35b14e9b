"""The one way a step becomes a Dagster asset.

Belongs here: the decorator call, partitions, backfill policy, checks, metadata, progress. Does not belong here: what
an asset means (`defs/assets/*`) or does (`steps/*`).
"""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg

from dssm_assets.defs.metadata import metadata_of, plain
from dssm_assets.steps.workspace import Check, StepResult, Workspace, window_days

OWNERS = ["team:recommendation"]

Step = Callable[[Workspace, Sequence[str]], Iterator[StepResult]]


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
        component: number of the reference component (several joined by `_`), "" for the prerequisite steps.
        is_windowed: learned from a window, so one run per date; daily tables take a range of dates in one run.
        pool: concurrency pool, for assets of which two must not share a machine.
    """

    name: str
    group: str
    step: Step
    description: str
    deps: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset({"parquet"})
    component: str = ""
    code_version: str = "1"
    is_windowed: bool = False
    checks: tuple[CheckRow, ...] = ()
    pool: str | None = None


class Observer:
    """Told what happens while assets are materialized; the default does nothing. The terminal draws its bar with one."""

    def line(self, text: str) -> None:
        """Takes a progress line."""

    def asset_done(self, name: str, seconds: float) -> None:
        """Takes the end of an asset's step."""


def build_asset(
    row: AssetRow, daily: dg.DailyPartitionsDefinition, open_workspace: Callable[..., Workspace], observer: Observer
) -> dg.AssetsDefinition:
    """Returns the Dagster asset of a line of the table."""
    with warnings.catch_warnings():
        # `backfill_policy` is marked beta; that every process says so once per asset helps nobody.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _asset(row, daily, open_workspace, observer)


def _asset(
    row: AssetRow, daily: dg.DailyPartitionsDefinition, open_workspace: Callable[..., Workspace], observer: Observer
) -> dg.AssetsDefinition:
    @dg.asset(
        name=row.name,
        group_name=row.group,
        deps=list(row.deps),
        description=row.description,
        kinds=set(row.kinds),
        owners=OWNERS,
        code_version=row.code_version,
        tags={"dssm/component": row.component} if row.component else {},
        partitions_def=daily,
        backfill_policy=dg.BackfillPolicy.multi_run(1) if row.is_windowed else dg.BackfillPolicy.single_run(),
        check_specs=[
            dg.AssetCheckSpec(check.name, asset=row.name, description=check.description, blocking=check.is_blocking)
            for check in row.checks
        ],
        pool=row.pool,
    )
    def materialize(context: dg.AssetExecutionContext):
        def log(text: str) -> None:
            context.log.info(text)
            observer.line(f"{row.name}: {text}")

        workspace = open_workspace(log=log)
        days = list(context.partition_keys)
        done: list[StepResult] = []
        started = begun = time.perf_counter()
        for result in row.step(workspace, days):
            seconds = time.perf_counter() - started
            metadata = metadata_of(result, workspace, seconds)
            if row.is_windowed:
                window = window_days(result.manifest.ds, workspace.config.window.days)
                metadata["window"] = f"{window[0]} to {window[-1]}"
            context.add_asset_metadata(metadata, partition_key=result.manifest.ds)
            done.append(result)
            _log_days(log, len(done), len(days), time.perf_counter() - begun)
            started = time.perf_counter()
        _log_end(log, done, time.perf_counter() - begun)
        observer.asset_done(row.name, time.perf_counter() - begun)
        return dg.MaterializeResult(check_results=[_check_result(check, done) for check in row.checks])

    return materialize


def _log_days(log: Callable[[str], None], done: int, total: int, seconds: float) -> None:
    if total > 1 and done < total and done % max(1, total // 5) == 0:
        log(f"{done}/{total} days, {done / seconds:.1f} days/s, ETA {seconds / done * (total - done):.0f} s")


def _log_end(log: Callable[[str], None], done: Sequence[StepResult], seconds: float) -> None:
    rows = sum(result.manifest.rows for result in done)
    log(
        f"{rows:,} rows in {seconds:.1f} s ({rows / max(seconds, 1e-9):,.0f} rows/s), {len(done)} day{'s' if len(done) > 1 else ''}"
    )


def _check_result(row: CheckRow, done: Sequence[StepResult]) -> dg.AssetCheckResult:
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
