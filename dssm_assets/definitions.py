"""The table of contents of the code location: `build_definitions(...)`, and `defs`, built from the environment.

    DSSM_CONFIG   the YAML file, or several, separated as in PATH (default: config.yaml in the home folder, else the demo's)
    DSSM_HOME     where tables and models go (default: DAGSTER_HOME, else ./.dssm)

It sets OMP_WAIT_POLICY to PASSIVE unless it is set.

Belongs here: putting assets, jobs and the executor together. Does not belong here: any of their parts.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import dagster as dg

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import daily_schedule, failure_sensor, jobs_for, landed_sensor
from dssm_assets.defs.scene import Scene
from dssm_assets.defs.spark_runs import Launch, spark_submit
from dssm_assets.storage.config_file import LoadedConfig, load_config

# Before a step loads torch: threads that wait for one another by spinning make a training three to ten times slower as
# soon as anything else runs on the machine. Results do not depend on it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PACKAGED_CONFIG = Path(__file__).parent / "datasets" / "complete_journey.yaml"

Config = LoadedConfig | Path


def build_definitions(
    config: Config | Sequence[Config] | None = None, observer: Observer | None = None, launch: Launch = spark_submit
) -> dg.Definitions:
    """Returns the whole asset graph of one configuration, or of several side by side.

    Of one, assets, groups and jobs have their plain names. Of several, each scene's name (the key `name`) stands before them:
    `shop/total_hit_rate`, group `shop_evaluation`, job `shop_daily_tables`. Another project takes them in with
    `dg.Definitions.merge(its_own, build_definitions([Path("a.yaml"), Path("b.yaml")]))`.

    Args:
        config: a loaded configuration, the path of a YAML file (its folder is the home), several of them, or None for what
            the environment names.
        observer: told of progress.
        launch: runs the jobs of scenes with `engine: spark`; by default with spark-submit.

    Raises:
        ConfigError: a file is missing or wrong; two scenes share a name or a place to write to.
    """
    scenes = [replace(scene, launch=launch) for scene in scenes_of(_listed(config))]
    return dg.Definitions.merge(*(scene_definitions(scene, observer or Observer()) for scene in scenes))


def _listed(config: Config | Sequence[Config] | None) -> Sequence[Config]:
    if config is None:
        return configured_scenes(checks_features=False)
    return [config] if isinstance(config, LoadedConfig | Path) else config


def scene_definitions(scene: Scene, observer: Observer) -> dg.Definitions:
    """Returns the whole asset graph of one scene."""
    rows = all_rows()
    jobs = jobs_for(rows, scene)
    return dg.Definitions(
        assets=[build_asset(row, scene, observer) for row in rows],
        jobs=list(jobs.values()),
        schedules=[daily_schedule(scene, jobs, rows)],
        sensors=[landed_sensor(scene, jobs, rows), failure_sensor(scene, jobs, rows)],
        executor=dg.in_process_executor,
    )


def scenes_of(configs: Sequence[Config]) -> list[Scene]:
    """Returns the scenes of some configurations, with their names before everything where there are several.

    Raises:
        ConfigError: as `build_definitions`.
    """
    loaded = [
        load_config(one.absolute(), one.absolute().parent, checks_features=False) if isinstance(one, Path) else one
        for one in configs
    ]
    faults = []
    for place, one in enumerate(loaded):
        for other in loaded[:place]:
            both = f"configurations {_file(other)} and {_file(one)}"
            if other.config.name == one.config.name:
                faults.append(
                    Fault(f"{both}, key name", "names that differ", repr(one.config.name), "rename one of the scenes")
                )
            if other.root == one.root:
                remedy = 'set storage.root to "{home}/{name}/tables" in both'
                faults.append(Fault(f"{both}, key storage.root", "a place of its own for each", one.root, remedy))
    if not loaded:
        faults.append(Fault("configurations", "at least one", "none", "name a YAML file"))
    if faults:
        raise ConfigError(faults)
    return [Scene(one, one.config.name if len(loaded) > 1 else "") for one in loaded]


def _file(loaded: LoadedConfig) -> str:
    return loaded.path.name if loaded.path is not None else loaded.config.name


def configured_scenes(*, checks_features: bool = True) -> list[LoadedConfig]:
    """Returns the configurations that the environment names; see `load_config` for checks_features.

    Raises:
        ConfigError: one of them is missing or wrong.
    """
    home = Path(os.environ.get("DSSM_HOME") or os.environ.get("DAGSTER_HOME") or ".dssm").absolute()
    default = home / "config.yaml"
    named = [part for part in os.environ.get("DSSM_CONFIG", "").split(os.pathsep) if part]
    paths = [Path(part) for part in named] or [default if default.is_file() else PACKAGED_CONFIG]
    return [load_config(path.absolute(), home, checks_features=checks_features) for path in paths]


def configured() -> LoadedConfig:
    """Returns the one configuration that the environment names.

    Raises:
        ConfigError: it is missing or wrong, or there are several.
    """
    return configured_scene().loaded


def configured_scene(name: str | None = None) -> Scene:
    """Returns the scene of that name among those that the environment names, by default the only one.

    Raises:
        ConfigError: as `configured_scenes`; or there is none of that name, or none is named and there are several.
    """
    scenes = scenes_of(configured_scenes())
    chosen = scenes if name is None else [scene for scene in scenes if scene.loaded.config.name == name]
    if len(chosen) != 1:
        known = ", ".join(scene.loaded.config.name for scene in scenes)
        remedy = "name one with --scene, or set DSSM_CONFIG to its file"
        raise ConfigError(Fault("scene", f"one of: {known}", "none" if name is None else repr(name), remedy))
    return chosen[0]


defs = build_definitions()
