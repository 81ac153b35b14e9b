"""From a step's result to Dagster metadata: row count, schema, uri, time, figures, report, images.

Belongs here: the one translation every asset uses. Does not belong here: computing figures.
"""

import base64
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.defs.scene import Scene

if TYPE_CHECKING:
    from dssm_assets.core.experiments import Experiment
    from dssm_assets.steps.workspace import StepResult, Workspace
    from dssm_assets.storage.manifest import Manifest


def metadata_of(result: "StepResult", workspace: "Workspace", seconds: float) -> dict[str, Any]:
    """Returns the metadata of one materialized partition."""
    manifest = result.manifest
    # What a person came for stands first: the report, the pictures, the figures; then where and how it was made.
    metadata: dict[str, Any] = {}
    if result.report_markdown is not None:
        metadata["report"] = dg.MetadataValue.md(result.report_markdown)
    for name, png in result.images.items():
        metadata[name] = dg.MetadataValue.md(f"![{name}]({data_uri(png)})")
    metadata.update({key: plain(value) for key, value in result.facts.items()})
    metadata |= {
        "dagster/row_count": manifest.rows,
        "dagster/uri": f"{workspace.tables.partitions.root}/{manifest.asset}/ds={manifest.ds}",
        "seconds": round(seconds, 3),
        "rows_per_s": round(manifest.rows / seconds, 1) if seconds > 0 else 0.0,
        "bytes": manifest.size_bytes,
        "digest": manifest.digest,
    }
    if manifest.columns:
        metadata["dagster/column_schema"] = dg.TableSchema(
            columns=[dg.TableColumn(column.name, column.type, column.description or None) for column in manifest.columns]
        )
    if manifest.inputs:
        metadata["inputs"] = dg.MetadataValue.json(dict(manifest.inputs))
    return metadata


def of_experiment(metadata: Mapping[str, Any], experiment: "Experiment", standing_digest: str) -> dict[str, Any]:
    """Returns the metadata of an experiment's partition: its name and settings first, its figures in one JSON entry.

    The UI draws every numeric entry over the partitions and shows the highest; as numbers the figures of an experiment would
    be taken for those of the standing partition.
    """
    figures = {key: value for key, value in metadata.items() if isinstance(value, (int, float))}
    told: dict[str, Any] = {
        "experiment": experiment.name,
        "changed": experiment.told or "nothing",
        "standing": f"not touched: the partition with digest {standing_digest[:12]} stays; this one lies at dagster/uri",
    }
    rest = {key: value for key, value in metadata.items() if key not in figures}
    return told | rest | {"experiment_figures": dg.MetadataValue.json(figures)}


def plain(value: Any) -> Any:
    """Returns a value that Dagster can store: numpy scalars become Python numbers, mappings and lists become JSON."""
    bare = _bare(value)
    return dg.MetadataValue.json(bare) if isinstance(bare, (dict, list)) else bare


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _bare(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_bare(inner) for inner in value]
    return value.item() if hasattr(value, "item") else value


def data_uri(png: bytes) -> str:
    """Returns a PNG as a data URI, which the UI shows inside markdown."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


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
