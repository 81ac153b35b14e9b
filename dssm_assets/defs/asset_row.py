"""The declaration of an asset: one row of the asset table. It names its step and knows no configuration."""

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult, Workspace

TRAINER = "trainer"
"""Pool of the assets that train. All scenes share it, because they may share a machine."""


@dataclass(frozen=True)
class LazyStep:
    """A step, imported when first called: the code location loads without torch, faiss or an engine.

    Example: `LazyStep("steps.evaluation", "ground_truth")` is the function ground_truth in `dssm_assets/steps/evaluation.py`.

    Attributes:
        module: name of the module below `dssm_assets`, such as `steps.evaluation`.
    """

    module: str
    name: str

    def __call__(self, workspace: "Workspace", days: Sequence[str]) -> "Iterator[StepResult]":
        return getattr(importlib.import_module(f"dssm_assets.{self.module}"), self.name)(workspace, days)


@dataclass(frozen=True)
class CheckRow:
    """A check of an asset. The asset's step reports it, or a plug-in (`steps/checks.py`)."""

    name: str
    description: str
    is_blocking: bool = False


@dataclass(frozen=True)
class AssetRow:
    """One row of the asset table: an asset's meaning, its inputs and its step. Asset and step have the same name.

    Attributes:
        description: content of the asset, and how it is computed.
        group: group in the asset table.
        reading: the grain, then where to look first.
        is_windowed: whether the asset is computed from a window of days, one day per run. If not, it is a daily table, and a
            run takes a range of days.
        is_log: whether every day since the calendar's start is needed, because histories are read across days. Other daily
            tables are needed only for the window and the day before it.
        is_rolling: whether a day of a daily table is computed from its previous day. If not, days can be made in any order.
        pool: concurrency pool, for an asset that must not run twice at once. A scene prefixes it with its own name, unless
            it is `TRAINER`.
        never_expires: whether `storage.keep_days` does not apply.
        is_on_request: whether the asset is in no job; it is then materialized by its name.
        section: optional section of the configuration; if present, it puts an asset on request into the jobs.
        needs: optional key of the configuration, without which the asset does not exist.
        day_deps: daily tables that a windowed asset reads for the day itself instead of its window.
        reads_span: whether the asset reads its day_deps for all days of evaluation.span_days, from the day on.
        runs_on_engine: whether the step is table algebra or feature generation; with `engine: spark` it is a job on the cluster.
    """

    step: LazyStep
    description: str
    group: str = ""
    reading: str = ""
    deps: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset({"parquet"})
    code_version: str = "1"
    is_windowed: bool = False
    is_log: bool = False
    is_rolling: bool = False
    checks: tuple[CheckRow, ...] = ()
    pool: str | None = None
    never_expires: bool = False
    is_on_request: bool = False
    section: str = ""
    needs: str = ""
    day_deps: tuple[str, ...] = ()
    reads_span: bool = False
    runs_on_engine: bool = False

    @property
    def name(self) -> str:
        return self.step.name
