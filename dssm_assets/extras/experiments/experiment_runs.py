"""Runs `dssm-assets experiment` in this process, and writes an experiment's settings into the configuration."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import CheckFailedError, ConfigError, Fault, remedy_of_missing
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import TRAIN_AND_EVALUATE
from dssm_assets.defs.runs import open_instance, run_days
from dssm_assets.defs.scene import Scene
from dssm_assets.deployment.run_owner import end_dead_runs
from dssm_assets.extras.experiments import experiments
from dssm_assets.extras.experiments.forms import FORM_KEYS, json_value_of
from dssm_assets.extras.experiments.runs import COMPARISON
from dssm_assets.steps.workspace import Workspace, reason_to_skip
from dssm_assets.storage.local_files import write_atomic
from dssm_assets.storage.overlay import OverlayStore

COUNTED = ("hit_counts", "hit_rate_detail", "total_hit_rate")
"""Assets to make if no setting changes the towers."""


@dataclass(frozen=True)
class ExperimentPlan:
    """The runs of an experiment, one per day: the entered changes, a line of settings per day, the assets of each run."""

    scene: Scene
    name: str
    changes: Mapping[str, Any]
    settings: tuple[str, ...]
    names: tuple[str, ...]
    days: tuple[str, ...]


def plan_experiment(scene: Scene, name: str, entered: Mapping[str, Any], days: Sequence[str]) -> ExperimentPlan:
    """Plans an experiment: the fit and everything after it. If no setting changes the towers, it begins with the hit counts.

    Raises:
        ConfigError: keys or values are wrong, the name is unusable, or days have no regular run. All faults are listed.
    """
    workspace = scene.open_workspace(lambda _: None)
    faults = [*experiments.find_name_faults(name)]
    if not days:
        faults.append(Fault("range of days", "a first day that is not after the last", "none", "swap --from and --to"))
    if missing := [ds for ds in days if workspace.find("total_hit_rate", ds) is None]:
        reasons = [reason for ds in missing if (reason := reason_to_skip(workspace, ds)) is not None]
        remedy = f"choose other days: {reasons[0]}" if reasons else remedy_of_missing("total_hit_rate", missing[0], missing[-1])
        got = f"none of {', '.join(missing)}"
        faults.append(Fault("total_hit_rate", "a regular run of each day to compare with", got, remedy))
    found: list[experiments.Experiment] = []
    changes: Mapping[str, Any] = {}
    try:
        changes = experiments.expand_settings(workspace.config, entered)
        found = [] if faults else [experiments.check_experiment(workspace, name, changes, ds) for ds in days]
    except ConfigError as error:
        faults += error.faults
    for one, ds in zip(found, days, strict=False):
        if not one.changes:
            got, remedy = f"the configured settings on {ds}", "add --set key=value"
            faults.append(Fault(f"experiment {name}", "a setting that differs from the configuration", got, remedy))
    ConfigError.raise_if(faults)
    has_fit = any(_was_changed(workspace, one, ds) for one, ds in zip(found, days, strict=True))
    made = (*(FORM_KEYS if has_fit else COUNTED), COMPARISON)
    names = tuple(row.name for row in all_rows() if row.name in made)
    settings = tuple(f"{ds}: {experiments.describe_changes(one.changes)}" for one, ds in zip(found, days, strict=True))
    return ExperimentPlan(scene, name, changes, settings, names, tuple(days))


def run_experiment(plan: ExperimentPlan, observer: Observer, instance_home: Path) -> None:
    """Runs an experiment: one Dagster run per day. If a check fails on a day, the next day still runs."""
    defs = scene_definitions(plan.scene, observer, makes_upstream=False)
    keys = [plan.scene.key(name).to_user_string() for name in plan.names]
    form = {plan.scene.op(plan.names[0]): {"experiment": plan.name, "changes": dict(plan.changes)}}
    failed = []
    with open_instance(instance_home) as instance:
        end_dead_runs(instance)
        for ds in plan.days:
            try:
                run_days(defs, instance, keys, [ds], form, job=plan.scene.name(TRAIN_AND_EVALUATE))
            except CheckFailedError as error:
                failed.append(str(error))
    if failed:
        raise CheckFailedError("; ".join(failed))


@dataclass(frozen=True)
class Adoption:
    """Settings written into a configuration: key -> (value before, value now)."""

    path: Path
    day: str
    changed: Mapping[str, tuple[Any, Any]]

    @property
    def remade(self) -> list[str]:
        """Returns the assets to make again: the whole job if a setting changes the towers, else the assets that the settings reach."""
        if experiments.needs_fit(self.changed):
            return [TRAIN_AND_EVALUATE]
        return [row.name for row in all_rows() if row.name in (*experiments.reached_assets(self.changed), *COUNTED)]


def adopt_experiment(scene: Scene, name: str) -> Adoption:
    """Writes the settings of an experiment's last day into the configuration file. Comments stay."""
    workspace, path = scene.open_workspace(lambda _: None), scene.loaded.path
    days = OverlayStore(workspace.tables.partitions, name).days(experiments.SETTINGS)
    if not days:
        remedy = f"run dssm-assets experiment {name} --set key=value --from DAY"
        raise ConfigError(Fault(f"experiment {name}", "an experiment that was run", "none of this name", remedy))
    assert path is not None  # a scene's configuration is a file
    settings = experiments.check_experiment(workspace, name, {}, days[-1]).changes
    if not settings:
        remedy = "do nothing: the configuration has these settings already"
        raise ConfigError(Fault(f"experiment {name}", "settings that differ from the configuration", "none", remedy))
    text = experiments.edit_yaml(path.read_text(encoding="utf-8"), settings, f"experiment {name}")
    parse_config(yaml.safe_load(text), where=f"configuration {path.name}")
    write_atomic(path, [text.encode()])
    changed = {key: (json_value_of(workspace.config, key), value) for key, value in sorted(settings.items())}
    return Adoption(path, days[-1], changed)


def _was_changed(workspace: Workspace, found: experiments.Experiment, ds: str) -> bool:
    before = experiments.read_settings(workspace, found.name, ds)
    keys = {key for key in {*before, *found.changes} if before.get(key) != found.changes.get(key)}
    return experiments.needs_fit(keys or found.changes) or (
        experiments.needs_fit(found.changes) and not experiments.is_fitted(workspace, found.name, ds)
    )
