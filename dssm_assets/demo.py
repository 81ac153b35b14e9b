"""`dssm-assets demo`: the whole graph on a year of real grocery purchases.

Belongs here: preparing the home folder, the order of runs, what is reused. Does not belong here: what an asset computes,
and printing (`terminal.py`).
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
from dssm_assets.defs.asset_table import SAMPLE_GROUPS, all_rows
from dssm_assets.defs.automation import PUBLISH, TRAIN_AND_EVALUATE, job_assets
from dssm_assets.defs.runs import run_day, run_range
from dssm_assets.deployment.run_owner import end_dead_runs
from dssm_assets.steps.workspace import Workspace, day_before, days_between, window_days
from dssm_assets.storage.config_choice import CONFIG_FILE
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets.storage.instance_file import write_instance_file

ORIGINAL_YEAR = 2017
NAME = "demo"
"""Name of the demo's configuration."""


def prepare_home(home: Path, today: dt.date, *, is_shifted: bool) -> LoadedConfig:
    """Returns the demo's configuration; on first use writes the source tables and the configuration.

    An existing home keeps its dates: a later call continues it.

    Args:
        home: its folder.
        today: the current date.
        is_shifted: move all dates by whole weeks, so that the last day is recent.

    Raises:
        ConfigError: the home holds another configuration.
    """
    home.mkdir(parents=True, exist_ok=True)
    config_path = home / CONFIG_FILE
    if not config_path.is_file():
        weeks = complete_journey.weeks_to(today) if is_shifted else 0
        complete_journey.write_source_tables(home / "source", shift_weeks=weeks)
        shutil.copyfile(PACKAGED_CONFIG.with_name("complete_journey.fg.json"), home / "complete_journey.fg.json")
        write_instance_file(home)
        text = _shift_calendar(PACKAGED_CONFIG.read_text(encoding="utf-8"), weeks)
        staged = config_path.with_suffix(".part")
        staged.write_text(text, encoding="utf-8")
        staged.replace(config_path)
    loaded = load_config(config_path, home)
    if loaded.config.name != NAME:
        got = f"{config_path} with the name {loaded.config.name!r}"
        remedy = "choose another --home, or run your own configuration with dssm-assets materialize"
        raise ConfigError(Fault(f"home {home}", f"an empty folder, or the configuration of the demo, {NAME!r}", got, remedy))
    return loaded


def _shift_calendar(text: str, weeks: int) -> str:
    calendar = yaml.safe_load(text)["calendar"]
    for key in ("start", "end"):
        shifted = calendar[key] + dt.timedelta(weeks=weeks)
        text = text.replace(f"{key}: {calendar[key]}", f"{key}: {shifted}")
    return text


def evaluation_days(loaded: LoadedConfig, count: int) -> list[str]:
    """Returns the last `count` days of the calendar.

    Raises:
        ConfigError: the calendar in the home's configuration has no end.
    """
    last = loaded.config.calendar.end
    if last is None:
        raise ConfigError(Fault("configuration, key calendar.end", "the demo's last day", "nothing", "enter the day again"))
    return days_between(day_before(last.isoformat(), count - 1), last.isoformat())


class DemoPlan:
    """The runs that are still missing, as (assets, days, whether one run takes all days)."""

    def __init__(self, workspace: Workspace, days: Sequence[str]) -> None:
        self.runs: list[tuple[list[str], list[str], bool]] = []
        self._workspace = workspace
        rows = all_rows()
        start = workspace.config.calendar.start.isoformat()
        window_first = window_days(days[0], workspace.config.window.days)[0]
        log = [row.name for row in rows if row.is_log]
        samples = [row.name for row in rows if row.group in SAMPLE_GROUPS and not row.is_windowed]
        features = [row.name for row in rows if not row.is_windowed and row.name not in (*log, *samples)]
        self._plan_range(log, days_between(start, days[-1]))
        self._plan_range(features, days_between(day_before(window_first), days[-1]))
        self._plan_range(samples, days_between(window_first, days[-1]))
        for ds in days:
            self._plan_day("total_hit_rate", job_assets(rows, TRAIN_AND_EVALUATE), ds)
        self._plan_day("serving_bundle", job_assets(rows, PUBLISH), days[-1])

    @property
    def step_count(self) -> int:
        """Returns the number of asset steps over all runs."""
        return sum(len(names) for names, _, _ in self.runs)

    def _plan_range(self, names: Sequence[str], days: Sequence[str]) -> None:
        stored = [set(self._workspace.tables.partitions.days(name)) for name in names]
        missing = [ds for ds in days if not all(ds in known for known in stored)]
        if missing:
            self.runs.append((list(names), days_between(missing[0], missing[-1]), True))

    def _plan_day(self, last: str, names: Sequence[str], ds: str) -> None:
        if self._workspace.find(last, ds) is None:
            self.runs.append((list(names), [ds], False))


def run_demo(loaded: LoadedConfig, observer: Observer, plan: DemoPlan) -> None:
    """Makes the runs of a plan on the home's Dagster instance."""
    defs = build_definitions(loaded, observer)
    with dg.DagsterInstance.from_config(str(loaded.home)) as instance:
        end_dead_runs(instance)
        for names, days, is_range in plan.runs:
            if is_range:
                run_range(defs, instance, names, days)
            else:
                run_day(defs, instance, names, days[0])
