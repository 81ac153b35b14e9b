"""From a step's result to Dagster metadata: row count, schema, uri, time, figures, report, images.

Belongs here: the one translation every asset uses. Does not belong here: computing figures.
"""

import base64
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from dssm_assets.core.experiments import Experiment
    from dssm_assets.steps.workspace import StepResult, Workspace


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
