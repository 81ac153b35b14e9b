"""The declaration of an asset: one row of the asset table, independent of any configuration."""

from dataclasses import dataclass

from dssm_assets.defs.lazy_steps import LazyStep

TRAINER = "trainer"
"""Pool of the assets that train. The configuration names it, because scenes that share a machine must share it."""


@dataclass(frozen=True)
class CheckRow:
    """A check that an asset's own step reports."""

    name: str
    description: str
    is_blocking: bool = False


@dataclass(frozen=True)
class AssetRow:
    """One row of the asset table: what an asset holds, what it depends on, and the step that computes it, whose name it has.

    Attributes:
        description: what it holds and how it is computed.
        group: the asset table names it.
        reading: its grain, and what to look at first.
        component: number of the reference component (several joined by `_`), "" where there is none.
        is_windowed: computed from a window of days, so one run per day; a daily table takes a range of days in one run.
        is_log: needed for every day since the calendar starts, because histories are read across days. Other daily tables
            are needed only for the window and the day before it.
        is_rolling: of a daily table, a day follows from its own previous day; other daily tables can be made in any order of days.
        pool: concurrency pool, for an asset that must not run twice at once. A scene prefixes it with its own name;
            `TRAINER` is named by the configuration.
        never_expires: `storage.keep_days` does not count for it.
        is_on_request: no job runs it; materialize it by its name.
        section: optional section of the configuration that has jobs run it all the same.
        day_deps: of a windowed asset, the daily tables among its dependencies that it reads for the day itself instead of its
            window.
        reads_span: it reads its day_deps for all days of evaluation.span_days, which begin with the day.
        feature_source: for a table of encoded features, the table whose columns they are computed from.
        may_skip: its step may find that there is nothing to do on a day; what depends on it then does not run.
        runs_on_engine: table algebra or feature generation; with `engine: spark` its step is a job on the cluster.
    """

    step: LazyStep
    description: str
    group: str = ""
    reading: str = ""
    deps: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset({"parquet"})
    component: str = ""
    code_version: str = "1"
    is_windowed: bool = False
    is_log: bool = False
    is_rolling: bool = False
    checks: tuple[CheckRow, ...] = ()
    pool: str | None = None
    never_expires: bool = False
    is_on_request: bool = False
    section: str = ""
    day_deps: tuple[str, ...] = ()
    reads_span: bool = False
    feature_source: str = ""
    runs_on_engine: bool = False
    may_skip: bool = False

    @property
    def name(self) -> str:
        return self.step.name
