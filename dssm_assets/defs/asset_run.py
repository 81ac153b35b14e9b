"""One run of one asset: its workspace, its checks, and the metadata of its partitions. An extra may replace the regular run.

The metadata are shown in this order: day, figures, report, images, row count, schema, URI and time. The UI
plots every number over the partitions, so only figures to watch are numbers; everything else is text or JSON.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.defs.asset_row import AssetRow
from dssm_assets.defs.scene import Scene
from dssm_assets.installed_extras import load_all

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult, Workspace


def open_run(context: dg.AssetExecutionContext, scene: Scene, row: AssetRow) -> "AssetRun":
    """Returns the run of an asset. This is an extra's run if the run's settings ask for it, else the regular run."""
    opened = (extra.open_run(context, scene, row) for extra in load_all("runs"))
    return next(filter(None, opened), None) or AssetRun(context, scene, row)


class AssetRun:
    """The regular run of an asset of a scene.

    Attributes:
        data_version: reported as data version in place of the partition's digest. None: the digest is reported.
        is_regular: whether the run writes the regular partitions.
    """

    is_regular = True

    def __init__(self, context: dg.AssetExecutionContext, scene: Scene, row: AssetRow) -> None:
        self.context, self.scene, self.row = context, scene, row
        self.data_version: dg.DataVersion | None = None

    def open_workspace(self, regular: "Workspace", days: Sequence[str]) -> "Workspace":
        self._workspace, self._last_day = regular, days[-1]
        return regular

    def describe(self, result: "StepResult", seconds: float) -> dict[str, Any]:
        """Returns the metadata of one partition. Columns and inputs, nine tenths of the bytes, are included only for a run's last day."""
        from dssm_assets.steps.workspace import window_days

        metadata, manifest = partition_metadata(result, self._workspace, seconds), result.manifest
        if manifest.ds == self._last_day:
            if manifest.columns:
                columns = [dg.TableColumn(column.name, column.type, column.description or None) for column in manifest.columns]
                metadata["dagster/column_schema"] = dg.TableSchema(columns)
            if manifest.inputs:
                metadata["inputs"] = dg.MetadataValue.json(dict(manifest.inputs))
        if self.row.is_windowed:
            window = window_days(manifest.ds, self._workspace.config.window.days)
            metadata["window"] = f"{window[0]} to {window[-1]}"
        return metadata

    def label_check(self, result: dg.AssetCheckResult) -> dg.AssetCheckResult:
        return result


def partition_metadata(result: "StepResult", workspace: "Workspace", seconds: float) -> dict[str, Any]:
    manifest = result.manifest
    # The day comes first, because the UI's Overview shows the partition made last, and it may be of any day.
    metadata: dict[str, Any] = {"day": manifest.ds}
    metadata |= {key: to_metadata_value(value) for key, value in result.headline.items()}
    if result.report_markdown is not None:
        metadata["report"] = dg.MetadataValue.md(result.report_markdown)
    for name, png in result.images.items():
        # The UI shows images inside markdown only as data URIs.
        metadata[name] = dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode()})")
    metadata.update({key: _in_words(key, value) or to_metadata_value(value) for key, value in result.facts.items()})
    return metadata | {
        "dagster/row_count": manifest.rows,
        "dagster/uri": f"{workspace.tables.partitions.root}/{manifest.asset}/ds={manifest.ds}",
        "seconds": round(seconds, 3),
        "size": describe_bytes(manifest.size_bytes),
        "digest": manifest.digest,
    }


def describe_bytes(size: int) -> str:
    """Returns a size as text, such as `1.5 MB` or `12 kB`."""
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def _in_words(key: str, value: Any) -> str | None:
    return describe_bytes(value) if key.endswith("bytes") else f"{value:,.0f}" if key.endswith("rows_per_s") else None


def to_metadata_value(value: Any) -> Any:
    """Converts a value for Dagster: numpy scalars become Python numbers, mappings and lists become JSON.

    Fractions are rounded to four decimals, below 0.1 to four significant digits. The stored tables keep all digits.
    """
    plain = _without_numpy(value)
    return dg.MetadataValue.json(plain) if isinstance(plain, (dict, list)) else plain


def _without_numpy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _without_numpy(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_numpy(inner) for inner in value]
    plain = value.item() if hasattr(value, "item") else value
    return float(f"{plain:.4{'g' if abs(plain) < 0.1 else 'f'}}") if isinstance(plain, float) else plain
