"""Finds the rows of the previous day's feature tables that samples point to: when samples are made, and when they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import Column
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.samples.sample_fg import FeatureRows
from dssm_assets.steps.workspace import Workspace, check_built_from, day_before
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.tables import TableStore

ID_COLUMNS: Final = {"user": col.USER_ID, "item": col.ITEM_ID}
"""Side -> the id column of its tables."""
ROW_COLUMNS: Final = {"user": col.USER_ROW, "item": col.ITEM_ROW}
"""Side -> the column of samples with rows of its feature table."""


def find_previous_day_features(workspace: Workspace, side: str, ds: str) -> Manifest | None:
    """Returns a side's feature table of the previous day, None on the first day of the calendar.

    Raises:
        PartitionMissingError: the table is not stored.
    """
    is_first = ds == workspace.config.calendar.start.isoformat()
    return None if is_first else workspace.need(f"{side}_features_fg", day_before(ds))


def read_feature_rows(tables: TableStore, manifest: Manifest, side: str) -> FeatureRows:
    """Reads the ids and dates of a feature table, for look-ups by id."""
    key = ID_COLUMNS[side]
    table = tables.read(manifest, [key, col.FEATURE_DATE], as_dictionaries=[col.FEATURE_DATE])
    return FeatureRows(table, key, f"table {side}_features_fg")


def no_feature_rows(side: str) -> FeatureRows:
    """Returns a look-up to which all ids are unknown."""
    key = ID_COLUMNS[side]
    empty = pa.schema([(key, pa.int64()), (col.FEATURE_DATE, pa.string())]).empty_table()
    return FeatureRows(empty, key, f"table {side}_features_fg")


@dataclass(frozen=True)
class PointedTable:
    """A feature table to which samples point by row number, and its digest when the samples were written."""

    manifest: Manifest
    digest: str

    def locate(self, rows: Column) -> Column:
        """Converts row numbers in the samples to row numbers in the table as stored now. Null: the user has been forgotten."""
        if self.digest == self.manifest.digest:
            return rows
        found = self.manifest.renumber(pc.fill_null(combine_chunks(rows), -1).to_numpy().astype(np.int64), self.digest)
        return pa.array(found, pa.int32(), mask=found < 0)


def find_features_of_positives(workspace: Workspace, side: str, positive: Manifest) -> PointedTable | None:
    """Returns the feature table that a day's positive samples point to. None on the first day of the calendar.

    Raises:
        ProvenanceError: a table between positives and features was made again, so the row numbers mean nothing.
    """
    ds = positive.ds
    samples = workspace.need("sample_fg", ds)
    check_built_from(positive, samples)
    if f"{side}_features_fg/{day_before(ds)}" not in samples.inputs:
        return None
    manifest = workspace.need(f"{side}_features_fg", day_before(ds))
    check_built_from(samples, manifest)
    return PointedTable(manifest, samples.inputs[manifest.key])
