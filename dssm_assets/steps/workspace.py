"""The workspace of a step (configuration, stores, engine, log), and the arithmetic of days and windows."""

from __future__ import annotations

import ctypes
import datetime as dt
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import pyarrow as pa

from dssm_assets.core.asset_settings import digest_settings
from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.errors import Fault, ProvenanceError, remedy_of_missing
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.features.spec import FgSpec, parse_fg
from dssm_assets.core.schema import TableSpec
from dssm_assets.installed_extras import load_extra
from dssm_assets.storage.artifacts import ArtifactStore
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.engines.duckdb import DuckDBEngine
from dssm_assets.storage.engines.engine import BatchKernel, Bindable, Engine, Target, manifests_of
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore
from dssm_assets.storage.tables import TableStore

if TYPE_CHECKING:
    import ibis


def _silent(message: str) -> None:
    """Ignores a progress line."""


@dataclass(frozen=True)
class Check:
    """The outcome of an asset check: whether it passed, one sentence, and figures.

    Attributes:
        is_blocking: False: a failure stops no downstream asset, even if the asset's row says that the check blocks.
    """

    name: str
    is_passed: bool
    description: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    is_blocking: bool = True


@dataclass(frozen=True)
class StepResult:
    """The result of a step: its partition, facts for the metadata (numbers and text), checks, report and images.

    Attributes:
        headline: facts that the UI shows first, above the report.
    """

    manifest: Manifest
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    report_markdown: str | None = None
    images: Mapping[str, bytes] = field(default_factory=dict)
    headline: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workspace:
    """Everything a step needs. Steps do not change it."""

    loaded: LoadedConfig
    tables: TableStore
    artifacts: ArtifactStore
    engine: Engine
    log: Callable[[str], None] = _silent
    now: Callable[[], float] = time.perf_counter

    @property
    def config(self) -> PipelineConfig:
        return self.loaded.config

    @cached_property
    def fg_spec(self) -> FgSpec:
        return parse_fg(self.loaded.fg, read_file=self.loaded.read_fg_file)

    @cached_property
    def generator(self) -> FeatureGenerator:
        return FeatureGenerator(self.fg_spec, self.config.features.hash_function)

    def find(self, asset: str, ds: str) -> Manifest | None:
        return self.tables.partitions.find(asset, ds)

    def need(self, asset: str, ds: str) -> Manifest:
        return self.tables.partitions.need(asset, ds)

    def need_all(self, asset: str, days: Sequence[str]) -> list[Manifest]:
        return self.tables.partitions.need_all(asset, days)

    def write_query(
        self,
        spec: TableSpec,
        ds: str,
        expression: Callable[..., ibis.Table],
        inputs: Mapping[str, Bindable],
        kernel: BatchKernel | None = None,
        by_key: str | None = None,
        /,
        **arguments: Any,
    ) -> Manifest:
        """Runs an expression, applies a kernel to the resulting rows, and writes a partition. The manifest gets the digests of all inputs.

        With `by_key` the query may run on one range of that column after the other, see `engine.Target`.
        """
        target = Target(spec, ds, digests(inputs.values()), by_key=by_key)
        return self.engine.write_query(target, expression, inputs, arguments, kernel)

    def write_table(
        self, spec: TableSpec, ds: str, table: pa.Table, built_from: Iterable[Bindable], **facts: object
    ) -> Manifest:
        return self.tables.write(spec, ds, table, inputs=digests(built_from), facts=facts)

    def over(self, loaded: LoadedConfig, partitions: PartitionStore) -> Workspace:
        """Returns a workspace with another configuration and store; its engine is DuckDB in this process."""
        return _build_workspace(loaded, partitions, self.artifacts.cache, self.log)

    def __reduce__(self) -> tuple[Callable[..., Workspace], tuple[LoadedConfig, PartitionStore, Path]]:
        """Pickles the workspace without its DuckDB and log. The process that unpickles it opens its own DuckDB."""
        return _build_workspace, (self.loaded, self.tables.partitions, self.artifacts.cache)


def open_workspace(
    loaded: LoadedConfig,
    log: Callable[[str], None] = _silent,
    make_engine: Callable[[TableStore], Engine] | None = None,
) -> Workspace:
    """Returns the workspace of a configuration. Default engine: DuckDB in this process."""
    os.environ.setdefault("MPLCONFIGDIR", str(loaded.scratch / "matplotlib"))  # else charts write into the user's home
    storage = loaded.config.storage
    settings = digest_settings(loaded.config, loaded.fg, loaded.read_fg_file)
    partitions = PartitionStore(loaded.root, storage.options, storage.grace_hours * 3600, settings)
    if storage.iceberg is not None:
        load_extra("iceberg_catalog", "hooks")  # without it a cleanup would remove files that the catalog lists
        partitions.leaves_files = True
    return _build_workspace(loaded, partitions, loaded.home / "cache", log, make_engine)


def _build_workspace(
    loaded: LoadedConfig,
    partitions: PartitionStore,
    cache: Path,
    log: Callable[[str], None] = _silent,
    make_engine: Callable[[TableStore], Engine] | None = None,
) -> Workspace:
    tables = TableStore(partitions)
    duckdb = loaded.config.duckdb
    threads = duckdb.threads or loaded.config.training.num_threads
    engine = make_engine(tables) if make_engine else DuckDBEngine(tables, threads, duckdb.memory, loaded.scratch)
    return Workspace(loaded, tables, ArtifactStore(partitions, cache), engine, log)


def each_day(make: Callable[[Workspace, str], StepResult]) -> Callable[[Workspace, Sequence[str]], Iterator[StepResult]]:
    @wraps(make)
    def step(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
        return (make(workspace, ds) for ds in days)

    return step


def digests(built_from: Iterable[Bindable]) -> dict[str, str]:
    """Returns "asset/ds" -> digest of every stored partition among the inputs."""
    found = {manifest.key: manifest.digest for value in built_from for manifest in manifests_of(value)}
    return dict(sorted(found.items()))


def check_built_from(built: Manifest, *inputs: Manifest) -> None:
    """Checks that a partition was built from the current content of its inputs.

    Raises:
        ProvenanceError: has a fault for each input that was rewritten since, or was never an input.
    """
    faults = []
    for manifest in inputs:
        digest = built.inputs.get(manifest.key)
        if manifest.has_had(digest):
            continue
        expected, got = "a partition that was built from this input", "one that was not"
        if digest is not None:
            expected = f"the digest that it was built from, {digest[:12]}"
            got = f"the input's digest now, {manifest.digest[:12]}"
        faults.append(Fault(f"{built.key}, input {manifest.key}", expected, got, remedy_of_missing(built.asset, built.ds)))
    ProvenanceError.raise_if(faults)


def is_current(workspace: Workspace, manifest: Manifest) -> bool:
    """Returns whether all inputs of a partition are stored unchanged. Inputs in experiments do not count."""
    inputs = ((key.split("/"), digest) for key, digest in manifest.inputs.items())
    stored = ((workspace.find(*names), digest) for names, digest in inputs if len(names) == 2)
    return all(found is not None and found.has_had(digest) for found, digest in stored)


def has_other_settings(workspace: Workspace, manifest: Manifest) -> bool:
    """Returns whether a partition was made with other settings than the configuration's; False if its manifest has none."""
    return manifest.settings not in ("", workspace.tables.partitions.settings.get(manifest.asset, ""))


def day_before(ds: str, days: int = 1) -> str:
    """Returns the day that is `days` days earlier."""
    return (dt.date.fromisoformat(ds) - dt.timedelta(days=days)).isoformat()


def days_between(first: str, last: str) -> list[str]:
    """Returns all days from the first to the last, both included; none if the last comes before the first."""
    start, end = dt.date.fromisoformat(first), dt.date.fromisoformat(last)
    return [(start + dt.timedelta(days=offset)).isoformat() for offset in range((end - start).days + 1)]


def window_days(ds: str, days: int) -> list[str]:
    return days_between(day_before(ds, days), day_before(ds))


def truth_days(ds: str, days: int) -> list[str]:
    """Returns the days of an evaluation's truth: `days` days, starting with the evaluation day."""
    return days_between(ds, day_before(ds, 1 - days))


def start_of_day_ms(ds: str, timezone: str) -> int:
    """Returns when a day begins in a time zone, in unix milliseconds."""
    start = dt.datetime.combine(dt.date.fromisoformat(ds), dt.time(), tzinfo=ZoneInfo(timezone))
    return round(start.timestamp() * 1000)


def partitions_before(workspace: Workspace, asset: str, ds: str, count: int) -> list[Manifest]:
    """Returns the last `count` stored partitions before a day, ascending; fewer if fewer are stored."""
    before = [day for day in workspace.tables.partitions.days(asset) if day < ds]
    return workspace.need_all(asset, before[-count:]) if count else []


def reason_to_skip(workspace: Workspace, ds: str) -> str | None:
    """Returns why nothing can be evaluated on a day, None if something can, or if that is not known yet.

    The reason is that the window or the truth leaves the calendar, or has no positive event. The latter is known once
    positive_sample is stored for all of its days. Reads as few manifests as possible.
    """
    calendar, span = workspace.config.calendar, workspace.config.evaluation.span_days
    window, truth = window_days(ds, workspace.config.window.days), truth_days(ds, span)
    of_span = f"the days {truth[0]} to {truth[-1]} (evaluation.span_days {span})"
    if window[0] < calendar.start.isoformat():
        first = day_before(calendar.start.isoformat(), -len(window))
        return f"the first day with a window of {len(window)} days in the calendar is {first}"
    if calendar.end is not None and truth[-1] > calendar.end.isoformat():
        return f"its truth would be the interactions of {ds if span == 1 else of_span}, and the calendar ends on {calendar.end}"
    if _has_no_rows(workspace, truth):
        return f"there is no positive event on {f'the day {ds}' if span == 1 else of_span}, so there is nothing to find"
    if _has_no_rows(workspace, window):
        return f"there is no positive event in its window of {len(window)} days, so there is nothing to learn from"
    return None


def _has_no_rows(workspace: Workspace, days: Sequence[str]) -> bool:
    """Returns whether positive_sample is stored for all days, always without rows."""
    found = (workspace.find("positive_sample", ds) for ds in days)
    return all(manifest is not None and manifest.rows == 0 for manifest in found)


def release_memory() -> None:
    """Returns freed memory to the system: the next step needs blocks of other sizes than the allocators keep."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of glibc
    if trim is not None:
        trim(0)
