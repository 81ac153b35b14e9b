"""`dssm-assets experiment`: the runs of an experiment in this process, and its settings as the configuration.

Belongs here: which assets run, adopting settings. Does not belong here: what an experiment is (`extras/experiments/experiment.py`), its
partitions (`extras/experiments/experiments.py`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dssm_assets.core.config.pipeline import json_value_of, parse_config
from dssm_assets.core.errors import CheckFailedError, ConfigError, Fault, remedy_of_missing
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import TRAIN_AND_EVALUATE
from dssm_assets.defs.runs import open_instance, run_day
from dssm_assets.defs.scene import Scene
from dssm_assets.deployment.run_owner import end_dead_runs
from dssm_assets.extras.experiments.experiment import EXPERIMENTS, REGULAR, Experiment
from dssm_assets.extras.experiments.experiments import check_experiment, experiment_days, is_fitted, read_settings
from dssm_assets.extras.experiments.forms import FORM_KEYS
from dssm_assets.extras.experiments.runs import NAME_PATTERN
from dssm_assets.extras.experiments.settings import expand_settings, needs_fit, reached_assets
from dssm_assets.extras.experiments.yaml_edit import edit_yaml
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.local_files import write_atomic

ADOPT = "adopt"
"""`experiment adopt NAME` adopts, so no experiment has this name."""


@dataclass(frozen=True)
class ExperimentPlan:
    """The runs of an experiment: one per day.

    Attributes:
        changes: key -> value, as entered.
        settings: one line per day, all settings in force.
        names: the assets of each run, the table `experiments` last.
    """

    scene: Scene
    name: str
    changes: Mapping[str, Any]
    settings: tuple[str, ...]
    names: tuple[str, ...]
    days: tuple[str, ...]

    @property
    def days_by_asset(self) -> dict[str, int]:
        """Returns on how many days each asset is made."""
        return dict.fromkeys(self.names, len(self.days))


def plan_experiment(scene: Scene, name: str, entered: Mapping[str, Any], days: Sequence[str]) -> ExperimentPlan:
    """Returns the runs of an experiment: the fit and what follows, or only the hit counts if no setting reaches the towers.

    Args:
        entered: key -> value; a known experiment keeps the others.

    Raises:
        ConfigError: naming every wrong key and value, an unusable name, days without a regular run.
    """
    workspace = scene.open_workspace(lambda _: None)
    faults = [*_name_faults(name), *_day_faults(workspace, days)]
    found: list[Experiment] = []
    changes: Mapping[str, Any] = {}
    try:
        changes = expand_settings(workspace.config, entered)
        found = [] if faults else [check_experiment(workspace, name, changes, ds) for ds in days]
    except ConfigError as error:
        faults += error.faults
    if not faults and any(not one.changes for one in found):
        got = f"the configured settings on {days[[bool(one.changes) for one in found].index(False)]}"
        faults.append(Fault(f"experiment {name}", "a setting that differs from the configuration", got, "add --set key=value"))
    ConfigError.raise_if(faults)
    has_fit = any(_was_changed(workspace, name, one, ds) for one, ds in zip(found, days, strict=True))
    names = [row.name for row in all_rows() if _is_run(row, has_fit)]
    settings = tuple(f"{ds}: {one.summary}" for one, ds in zip(found, days, strict=True))
    return ExperimentPlan(scene, name, changes, settings, tuple(names), tuple(days))


def run_experiment(plan: ExperimentPlan, observer: Observer, instance_home: Path) -> None:
    """Makes the runs of an experiment; a day whose check fails does not stop the next day.

    Raises:
        CheckFailedError: at the end, with the descriptions of the blocking checks that failed.
    """
    defs = scene_definitions(plan.scene, observer, makes_upstream=False)
    keys = [plan.scene.key(name).to_user_string() for name in plan.names]
    form = {plan.scene.op(plan.names[0]): {"experiment": plan.name, "changes": dict(plan.changes)}}
    failed = []
    with open_instance(instance_home) as instance:
        end_dead_runs(instance)
        for ds in plan.days:
            try:
                run_day(defs, instance, keys, ds, form, job=plan.scene.name(TRAIN_AND_EVALUATE))
            except CheckFailedError as error:
                failed.append(str(error))
    if failed:
        raise CheckFailedError("; ".join(failed))


@dataclass(frozen=True)
class Adoption:
    """Settings that were written into a configuration: key -> (value before, value now)."""

    path: Path
    day: str
    changed: Mapping[str, tuple[Any, Any]]

    @property
    def remade(self) -> list[str]:
        """Returns what to materialize, so that the regular partitions follow: the whole job, or what comes after the towers."""
        if needs_fit(self.changed):
            return [TRAIN_AND_EVALUATE]
        reached = reached_assets(self.changed)
        counted = ["hit_counts", "hit_rate_detail", "total_hit_rate"]
        return [row.name for row in all_rows() if row.name in reached or row.name in counted]


def adopt_experiment(scene: Scene, name: str) -> Adoption:
    """Writes the settings of an experiment's last day into the configuration file, whose comments stay.

    Raises:
        ConfigError: there is no such experiment, it has no settings of its own, or the file cannot be edited.
    """
    workspace, path = scene.open_workspace(lambda _: None), scene.loaded.path
    days = experiment_days(workspace, name)
    if not days:
        remedy = f"run dssm-assets experiment {name} --set key=value --from DAY"
        raise ConfigError(Fault(f"experiment {name}", "an experiment that was run", "none of this name", remedy))
    assert path is not None  # a scene's configuration is a file
    settings = check_experiment(workspace, name, read_settings(workspace, name, days[-1]), days[-1]).changes
    if not settings:
        remedy = "nothing is left to do: the configuration has them already"
        raise ConfigError(Fault(f"experiment {name}", "settings that differ from the configuration", "none", remedy))
    text = edit_yaml(path.read_text(encoding="utf-8"), settings, f"experiment {name}")
    parse_config(yaml.safe_load(text), where=f"configuration {path.name}")
    write_atomic(path, [text.encode()])
    return Adoption(
        path, days[-1], {key: (json_value_of(workspace.config, key), value) for key, value in sorted(settings.items())}
    )


def _was_changed(workspace: Workspace, name: str, found: Experiment, ds: str) -> bool:
    """Returns whether other towers follow from an experiment's settings than from those of its last run."""
    before = read_settings(workspace, name, ds)
    keys = {key for key in {*before, *found.changes} if before.get(key) != found.changes.get(key)}
    return needs_fit(keys or found.changes) or (needs_fit(found.changes) and not is_fitted(workspace, name, ds))


def _is_run(row: AssetRow, has_fit: bool) -> bool:
    return row.name == EXPERIMENTS.name or "evaluation.k" in FORM_KEYS.get(row.name, ()) or (row.name in FORM_KEYS and has_fit)


def _name_faults(name: str) -> list[Fault]:
    if name in (REGULAR, ADOPT) or not re.fullmatch(NAME_PATTERN, name):
        expected = f"small letters, digits and _, beginning with a letter, and neither {REGULAR} nor {ADOPT}"
        return [Fault("experiment", expected, repr(name), "choose another name")]
    return []


def _day_faults(workspace: Workspace, days: Sequence[str]) -> list[Fault]:
    if not days:
        return [Fault("range of days", "a first day that is not after the last", "none", "swap --from and --to")]
    missing = [ds for ds in days if workspace.find("total_hit_rate", ds) is None]
    if not missing:
        return []
    remedy = remedy_of_missing("total_hit_rate", missing[0], missing[-1])
    return [Fault("total_hit_rate", "a regular run of each day to compare with", f"none of {', '.join(missing)}", remedy)]
