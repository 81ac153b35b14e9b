"""Where a column comes from: the lineage that the UI draws between columns of tables.

Two things are known without looking at values: a column that has its name in one of the tables it was made from passed
through (or is the key they were joined by), and a feature is made of the columns that its definition names. Nothing else is
claimed.

Belongs here: finding both. Does not belong here: the schema itself (`metadata.py`).
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import dagster as dg

from dssm_assets.defs.scene import Scene

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Workspace
    from dssm_assets.storage.manifest import Manifest

FEATURE_SOURCES = {
    "item_features_fg": "item_all_feature",
    "user_features_fg": "user_all_feature",
    "user_history_fg": "user_history",
    "sample_fg": "sample",
}
"""Table of encoded features -> the table whose columns its features are made of."""


class Lineage:
    """Finds the origins of an asset's columns; asks each table for its columns once per run."""

    def __init__(self, scene: Scene, workspace: "Workspace", asset: str, deps: Sequence[str]) -> None:
        """Takes the asset and its dependencies, the most telling first: a column of two of them comes from the first."""
        self._scene = scene
        self._workspace = workspace
        self._asset = asset
        self._deps = deps
        self._columns: dict[str, frozenset[str]] = {}

    def of(self, manifest: "Manifest") -> dg.TableColumnLineage | None:
        """Returns the lineage of a partition's columns, None where nothing is known."""
        if not manifest.columns:
            return None
        tables = self._read_tables(manifest)
        origins: dict[str, list[dg.TableColumnDep]] = {}
        for column in manifest.columns:
            table = next((name for name, columns in tables.items() if column.name in columns), None)
            source, inputs = (table, (column.name,)) if table is not None else self._feature(column.name)
            if source in tables:
                found = [name for name in inputs if name in tables[source]]
                origins[column.name] = [dg.TableColumnDep(self._scene.key(source), name) for name in found]
        known = {column: deps for column, deps in origins.items() if deps}
        return dg.TableColumnLineage(known) if known else None

    def _feature(self, column: str) -> tuple[str, tuple[str, ...]]:
        return FEATURE_SOURCES.get(self._asset, ""), self._inputs_of_features.get(column, ())

    @cached_property
    def _inputs_of_features(self) -> Mapping[str, tuple[str, ...]]:
        if self._asset not in FEATURE_SOURCES:
            return {}
        spec = self._workspace.fg_spec
        features = [*spec.features, *spec.sequence_features]
        weights = {feature.weights_name: feature.inputs for feature in features if feature.weights_name is not None}
        return {feature.name: feature.inputs for feature in features} | weights

    def _read_tables(self, manifest: "Manifest") -> dict[str, frozenset[str]]:
        """Returns table -> its columns, of the tables that the partition was made from, dependencies first."""
        days = dict(key.rsplit("/", 1) for key in manifest.inputs if key.count("/") == 1)
        days.setdefault(FEATURE_SOURCES.get(self._asset, ""), manifest.ds)
        for name in [*self._deps, *sorted(days)]:
            if name in days and name not in self._columns:
                found = self._workspace.find(name, days[name])
                self._columns[name] = frozenset() if found is None else frozenset(column.name for column in found.columns)
        return self._columns
