"""Samples with the features that they point to as columns, to look at in tests."""

from __future__ import annotations

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.samples.sample_tables import refuse_collisions
from dssm_assets.steps.previous_day import ID_COLUMNS
from dssm_assets.steps.workspace import Workspace, check_built_from, day_before


def read_wide_sample(workspace: Workspace, asset: str, ds: str) -> pa.Table:
    """Returns a day of sample_fg or positive_sample with a column for every feature, to look at.

    Raises:
        PartitionMissingError: if there is no such partition.
        ProvenanceError: if the feature tables were materialized again since.
    """
    rows = workspace.need(asset, ds)
    samples = rows if asset == "sample_fg" else workspace.need("sample_fg", ds)
    if samples is not rows:
        check_built_from(rows, samples)
    sides = []
    for side in ID_COLUMNS:
        key = f"{side}_features_fg/{day_before(ds)}"
        if key in samples.inputs:
            manifest = workspace.need(f"{side}_features_fg", day_before(ds))
            check_built_from(samples, manifest)
            sides.append(workspace.tables.read(manifest))
        else:
            sides.append(workspace.tables.open(workspace.need(f"{side}_features_fg", ds)).schema.empty_table())
    return widen(workspace.tables.read(rows), *sides)


def widen(sample_fg: pa.Table, user_features: pa.Table, item_features: pa.Table) -> pa.Table:
    """Returns sample_fg with the features of the user and the item instead of their row numbers; null where unknown.

    Args:
        sample_fg: samples of one day.
        user_features: user_features_fg of the previous day.
        item_features: item_features_fg of the previous day.

    Raises:
        SchemaError: two sides have a column of the same name.
    """
    kept = sample_fg.drop_columns([col.USER_ROW, col.ITEM_ROW])
    sides = {
        "the user side": user_features.drop_columns([col.USER_ID, col.FEATURE_DATE]).take(sample_fg.column(col.USER_ROW)),
        "the item side": item_features.drop_columns([col.ITEM_ID, col.FEATURE_DATE]).take(sample_fg.column(col.ITEM_ROW)),
    }
    refuse_collisions("table sample_fg", {"the sample": kept.column_names} | {k: t.column_names for k, t in sides.items()})
    for table in sides.values():
        for name, column in zip(table.column_names, table.columns, strict=True):
            kept = kept.append_column(name, column)
    return kept
