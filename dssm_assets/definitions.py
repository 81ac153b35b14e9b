"""The Dagster code location: `build_definitions(...)` builds the asset graph, and `defs` builds it from the environment for Dagster.

`storage/config_choice.py` finds the configuration and the home. A folder without a configuration loads the packaged demo.

Importing this module sets OMP_WAIT_POLICY to PASSIVE unless it is set.
"""

import itertools
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import dagster as dg

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import DAILY_TABLES, build_jobs, daily_schedule, landed_sensor
from dssm_assets.defs.failure_sensor import failure_sensor
from dssm_assets.defs.scene import Launch, Scene
from dssm_assets.defs.upstream_runs import build_chain, make_upstream
from dssm_assets.installed_extras import load_all
from dssm_assets.storage.config_choice import ConfigChoice, choose_config
from dssm_assets.storage.config_file import LoadedConfig, load_config

# Set before a step loads torch: by default threads spin while they wait for each other, which makes training three to ten
# times slower as soon as anything else runs on the machine. Results do not depend on it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

PACKAGED_CONFIG = Path(__file__).parent / "datasets" / "complete_journey.yaml"
SCAFFOLDED = Path(__file__).parent / "scaffolded"

ConfigSource = LoadedConfig | Path


def build_definitions(
    config: ConfigSource | Sequence[ConfigSource] | None = None, launch: Launch | None = None
) -> dg.Definitions:
    """Returns the asset graph of one or several configurations.

    For one configuration, assets, groups and jobs have plain names. For several, each name starts with the scene's name (the key
    `name`): `shop/total_hit_rate`, group `shop_evaluation`, job `shop_daily_tables`. Another project adds them with
    `dg.Definitions.merge(its_own, build_definitions([Path("a.yaml"), Path("b.yaml")]))`. No executor is included: a run of these
    jobs is one process, and other runs use that project's executor.

    Args:
        config: a loaded configuration, the path of a YAML file (its folder is the home), or a list of these. None: the
            configurations named by the environment.
        launch: starts jobs for scenes with `engine: spark`. None: spark-submit.

    Raises:
        ConfigError: a file is missing or wrong, or two scenes share a name or a storage root.
    """
    configs = [config] if isinstance(config, LoadedConfig | Path) else config
    scenes = build_scenes(load_configured(checks_features=False) if configs is None else configs)
    return dg.Definitions.merge(*(scene_definitions(replace(scene, launch=launch), Observer()) for scene in scenes))


def scene_definitions(scene: Scene, observer: Observer, *, makes_upstream: bool = True) -> dg.Definitions:
    """Returns the asset graph of one scene, with its jobs, schedule and sensors, without an executor.

    Args:
        makes_upstream: whether a run first makes the missing inputs of its days.
    """
    rows = all_rows(scene.loaded.config)
    make_first = partial(make_upstream, scene) if makes_upstream else None
    jobs, chain, extras = build_jobs(rows, scene), build_chain(scene), [extra.build(scene) for extra in load_all("definitions")]
    every_job = [*jobs.values(), chain, *(job for extra in extras for job in extra.jobs or ())]
    spine = dg.Definitions(
        assets=[build_asset(row, scene, observer, make_first) for row in rows],
        jobs=[*jobs.values(), chain],
        schedules=[daily_schedule(scene, chain)],
        sensors=[landed_sensor(scene, [chain, jobs[DAILY_TABLES]]), failure_sensor(scene, every_job, rows)],
    )
    return dg.Definitions.merge(spine, *extras)


def build_scenes(configs: Sequence[ConfigSource]) -> list[Scene]:
    """Returns one scene per configuration. Several scenes prefix their names. For errors see `build_definitions`."""
    loaded = [
        load_config(one.absolute(), one.absolute().parent, checks_features=False) if isinstance(one, Path) else one
        for one in configs
    ]
    faults = [] if loaded else [Fault("configurations", "at least one", "none", "name a YAML file")]
    for other, one in itertools.combinations(loaded, 2):
        names = (config.path.name if config.path is not None else config.config.name for config in (other, one))
        both = f"configurations {' and '.join(names)}"
        if other.config.name == one.config.name:
            faults.append(Fault(f"{both}, key name", "names that differ", repr(one.config.name), "rename one of the scenes"))
        if other.root == one.root:
            remedy = 'set storage.root to "{home}/{name}/tables" in both'
            faults.append(Fault(f"{both}, key storage.root", "a different root for each", one.root, remedy))
    ConfigError.raise_if(faults)
    return [Scene(one, one.config.name if len(loaded) > 1 else "") for one in loaded]


def load_configured(choice: ConfigChoice | None = None, *, checks_features: bool = True) -> list[LoadedConfig]:
    """Loads the chosen configurations. By default these are named by the environment; without any, the packaged demo is loaded.

    For `checks_features` see `load_config`.

    Raises:
        ConfigError: a configuration is missing or wrong.
    """
    if choice is None:
        choice = choose_config(packaged=PACKAGED_CONFIG)
        if choice.is_packaged:
            logging.getLogger(__name__).warning(
                "No configuration is named or found: the packaged demo's, on home %s. To load your own, set DSSM_CONFIG to its "
                "file.",
                choice.home,
            )
    return [load_config(path, choice.home, checks_features=checks_features) for path in choice.paths]


def load_scene(name: str | None = None, choice: ConfigChoice | None = None) -> Scene:
    """Loads the chosen configurations (see `load_configured`), and returns the scene with this name. By default the only scene.

    Raises:
        ConfigError: a configuration is missing or wrong; no scene has the name; or there are several and no name is given.
    """
    scenes = build_scenes(load_configured(choice))
    chosen = scenes if name is None else [scene for scene in scenes if scene.loaded.config.name == name]
    if len(chosen) != 1:
        known = ", ".join(scene.loaded.config.name for scene in scenes)
        remedy = "name one with --scene, or only its file with --config or DSSM_CONFIG"
        raise ConfigError(Fault("scene", f"one of: {known}", "none" if name is None else repr(name), remedy))
    return chosen[0]


@dg.definitions
def defs() -> dg.Definitions:
    """Returns the asset graph of the environment's configurations, with definitions written by `dg scaffold defs`.

    Dagster calls it to load the code location. A run is one process, so that its steps share imports and its memory has one limit.
    """
    own = dg.Definitions.merge(build_definitions(), dg.Definitions(executor=dg.in_process_executor))
    added = [path for path in SCAFFOLDED.iterdir() if path.name not in ("__init__.py", "__pycache__")]
    # Loading a folder takes seconds, in every process of every run.
    return dg.Definitions.merge(own, dg.load_from_defs_folder(path_within_project=SCAFFOLDED)) if added else own
