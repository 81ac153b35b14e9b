"""A scene: one configuration and the names that its assets, jobs and pools have in a code location.

A code location with one scene names them plainly (`sample`, `daily_tables`); one with several puts the scene's name before
each (`shop/sample`, `shop_daily_tables`).

Belongs here: names and partitions of a scene. Does not belong here: the definitions themselves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from dssm_assets.defs.partitions import daily_partitions
from dssm_assets.defs.spark_runs import Launch, spark_submit
from dssm_assets.storage.config_file import LoadedConfig

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Workspace

SCENE_TAG = "dssm/scene"


@dataclass(frozen=True)
class Scene:
    """One configuration in a code location.

    Attributes:
        loaded: its configuration.
        prefix: what stands before its names; "" where it is the only scene.
        launch: runs the jobs of its assets with `engine: spark`.
    """

    loaded: LoadedConfig
    prefix: str = ""
    launch: Launch = spark_submit

    @cached_property
    def daily(self) -> dg.DailyPartitionsDefinition:
        """Returns the days of the scene, the partitions of all of its assets."""
        return daily_partitions(self.loaded.config.calendar)

    @property
    def tags(self) -> dict[str, str]:
        """Returns the tags of its assets and runs."""
        return {SCENE_TAG: self.loaded.config.name}

    def key(self, asset: str) -> dg.AssetKey:
        """Returns the key of an asset."""
        return dg.AssetKey([self.prefix, asset] if self.prefix else [asset])

    def name(self, plain: str) -> str:
        """Returns the name of a group, a job, a schedule, a sensor, or a pool that is the scene's alone."""
        return f"{self.prefix}_{plain}" if self.prefix else plain

    def op(self, asset: str) -> str:
        """Returns the name of an asset's op: where run configuration speaks of it."""
        return f"{self.prefix}__{asset}" if self.prefix else asset

    def workspace(self, log: Callable[[str], None]) -> "Workspace":
        """Returns the workspace that the scene's steps work in.

        Raises:
            FeatureSpecError: the feature definitions are faulty: no step works on those, whether it reads them or not.
        """
        from dssm_assets.steps.workspace import open_workspace

        self.loaded.check_features()
        return open_workspace(self.loaded, log=log)
