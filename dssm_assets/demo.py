"""`dssm-assets demo`: makes the whole graph on a year of real grocery purchases."""

import datetime as dt
import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.datasets import complete_journey
from dssm_assets.definitions import PACKAGED_CONFIG
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import PUBLISH, TRAIN_AND_EVALUATE, job_assets
from dssm_assets.defs.run_plan import RunPlan, Wanted, plan_upstream
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.workspace import day_before, days_between
from dssm_assets.storage.config_choice import CONFIG_FILE
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets.storage.instance_file import write_instance_file
from dssm_assets.storage.local_files import write_atomic

ORIGINAL_YEAR = 2017
NAME = "demo"
"""Name of the demo's configuration."""


def prepare_home(home: Path, today: dt.date, *, is_shifted: bool) -> LoadedConfig:
    """Returns the demo's configuration. On first use, writes the source tables and the configuration.

    An existing home keeps its dates, so that a later call continues it.

    Args:
        is_shifted: move all dates by whole weeks, so that the last day is recent.

    Raises:
        ConfigError: the home has another configuration.
    """
    home.mkdir(parents=True, exist_ok=True)
    config_path = home / CONFIG_FILE
    if not config_path.is_file():
        weeks = complete_journey.weeks_to(today) if is_shifted else 0
        complete_journey.write_tables(complete_journey.load(shift_weeks=weeks), home / "source")
        shutil.copyfile(PACKAGED_CONFIG.with_name("complete_journey.fg.json"), home / "complete_journey.fg.json")
        write_instance_file(home)
        text = _shift_calendar(PACKAGED_CONFIG.read_text(encoding="utf-8"), weeks)
        write_atomic(config_path, [text.encode()])
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


def plan_demo(loaded: LoadedConfig, days: Sequence[str]) -> RunPlan:
    """Returns the missing runs: all assets of the evaluation days in order, then the bundle of the last day."""
    rows = all_rows()
    evaluated = Wanted(tuple(job_assets(rows, TRAIN_AND_EVALUATE)), tuple(days))
    published = Wanted(tuple(job_assets(rows, PUBLISH)), (days[-1],))
    return plan_upstream(Scene(loaded), [evaluated, published], is_remaking=False)
