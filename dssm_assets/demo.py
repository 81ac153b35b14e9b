"""The demo: the whole graph on a year of real grocery purchases, then a table of hit rates and how to open the UI.

Belongs here: preparing the home folder, the order of runs, what is reused. Does not belong here: what an asset does,
and drawing (`terminal.py`).
"""

import datetime as dt
import shutil
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import yaml

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.datasets import complete_journey
from dssm_assets.definitions import PACKAGED_CONFIG, build_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import PUBLISH, TRAIN_AND_EVALUATE, names_of
from dssm_assets.defs.runs import run_day, run_range
from dssm_assets.steps.workspace import Workspace, day_before, days_between, window_days
from dssm_assets.storage.config_file import LoadedConfig, load_config

LOG_ASSETS = ("user_table", "item_table", "behavior_table", "behavior", "user_history", "user_history_fg")
"""Read over the whole year: histories reach back to the first day."""
SAMPLE_ASSETS = ("sample", "sample_fg", "positive_sample", "numeric_value_counts", "category_value_counts")
"""Read over the window; they need the features of the day before."""

ORIGINAL_YEAR = 2017

INSTANCE_YAML = """\
# Written by `dssm-assets demo`: a local instance, SQLite in this folder.
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
concurrency:
  runs: {max_concurrent_runs: 1}
telemetry: {enabled: false}
nux: {enabled: false}
"""


def prepare_home(home: Path, today: dt.date, *, is_shifted: bool) -> LoadedConfig:
    """Returns the demo's configuration; writes source tables and configuration on first use.

    The dates of an existing home stand: a later call continues it.
    """
    home.mkdir(parents=True, exist_ok=True)
    config_path = home / "config.yaml"
    if not config_path.is_file():
        weeks = complete_journey.weeks_to(today) if is_shifted else 0
        complete_journey.write_source_tables(home / "source", shift_weeks=weeks)
        shutil.copyfile(PACKAGED_CONFIG.with_name("complete_journey.fg.json"), home / "complete_journey.fg.json")
        if not (home / "dagster.yaml").exists():
            (home / "dagster.yaml").write_text(INSTANCE_YAML, encoding="utf-8")
        text = _with_dates(PACKAGED_CONFIG.read_text(encoding="utf-8"), weeks)
        aside = config_path.with_suffix(".part")
        aside.write_text(text, encoding="utf-8")
        aside.replace(config_path)
    return load_config(config_path, home)


def _with_dates(text: str, weeks: int) -> str:
    calendar = yaml.safe_load(text)["calendar"]
    for key in ("start", "end"):
        moved = calendar[key] + dt.timedelta(weeks=weeks)
        text = text.replace(f"{key}: {calendar[key]}", f"{key}: {moved}")
    return text


def evaluation_days(loaded: LoadedConfig, count: int) -> list[str]:
    """Returns the last so many days of the calendar.

    Raises:
        ConfigError: the home's configuration has lost the calendar's end.
    """
    last = loaded.config.calendar.end
    if last is None:
        raise ConfigError(Fault("configuration, key calendar.end", "the demo's last day", "nothing", "put the day back"))
    return days_between(day_before(last.isoformat(), count - 1), last.isoformat())


class Plan:
    """The runs that are still to be made: (assets, days, whether one run takes them all)."""

    def __init__(self, workspace: Workspace, days: Sequence[str]) -> None:
        self.runs: list[tuple[list[str], list[str], bool]] = []
        rows = all_rows()
        start = workspace.config.calendar.start.isoformat()
        window_first = window_days(days[0], workspace.config.window.days)[0]
        features = [row.name for row in rows if not row.is_windowed and row.name not in (*LOG_ASSETS, *SAMPLE_ASSETS)]
        self._add_range(workspace, LOG_ASSETS, days_between(start, days[-1]))
        self._add_range(workspace, features, days_between(day_before(window_first), days[-1]))
        self._add_range(workspace, SAMPLE_ASSETS, days_between(window_first, days[-1]))
        for ds in days:
            self._add_day(workspace, "total_hit_rate", names_of(rows, TRAIN_AND_EVALUATE), ds)
        self._add_day(workspace, "serving_bundle", names_of(rows, PUBLISH), days[-1])

    @property
    def steps(self) -> int:
        """Returns the number of asset steps over all runs."""
        return sum(len(names) for names, _, _ in self.runs)

    def _add_range(self, workspace: Workspace, names: Sequence[str], days: Sequence[str]) -> None:
        there = {name: set(workspace.tables.partitions.days(name)) for name in names}
        lacking = [ds for ds in days if any(ds not in stored for stored in there.values())]
        if lacking:
            self.runs.append((list(names), days_between(lacking[0], lacking[-1]), True))

    def _add_day(self, workspace: Workspace, last: str, names: Sequence[str], ds: str) -> None:
        if workspace.find(last, ds) is None:
            self.runs.append((list(names), [ds], False))


def run_demo(loaded: LoadedConfig, observer: Observer, plan: Plan) -> None:
    """Makes the runs of a plan on the home's Dagster instance."""
    defs = build_definitions(loaded, observer)
    with dg.DagsterInstance.from_config(str(loaded.home)) as instance:
        for names, run_days, is_range in plan.runs:
            if is_range:
                run_range(defs, instance, names, run_days)
            else:
                run_day(defs, instance, names, run_days[0])
