"""The feature tables that samples point into, read once per content while a step goes through its days.

Belongs here: which partition a day's samples point into, that it is still the one they were made from, and holding the
last one read. Does not belong here: finding a sample's rows (`eve_rows.py`), what is done with them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.features.spec import Feature
from dssm_assets.core.features.value_counts import CodedTable, coded
from dssm_assets.core.samples.sample_fg import widened
from dssm_assets.steps.workspace import Workspace, check_made_from, day_before
from dssm_assets.storage.manifest import Manifest

KEYS: Final = {"user": col.USER_ID, "item": col.ITEM_ID}
ROWS: Final = {"user": col.USER_ROW, "item": col.ITEM_ROW}


def of_the_eve(workspace: Workspace, side: str, ds: str) -> Manifest | None:
    """Returns a side's features as of the day before; None on the first day of all, when nothing was known.

    Raises:
        PartitionMissingError: if there is no such partition.
    """
    is_first = ds == workspace.config.calendar.start.isoformat()
    return None if is_first else workspace.need(f"{side}_features_fg", day_before(ds))


class FeatureTables:
    """Feature tables of one side at a time: days that share a table by content read it once."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._values: dict[str, tuple[str, pa.Table | CodedTable]] = {}

    def of_positives(self, side: str, positive: Manifest) -> Manifest | None:
        """Returns the feature table that a day's positives point into; None on the first day.

        Raises:
            ProvenanceError: a table between it and the positives was made again since: the row numbers mean nothing.
        """
        workspace, ds = self._workspace, positive.ds
        placed = workspace.need("sample_fg", ds)
        check_made_from(positive, placed)
        if f"{side}_features_fg/{day_before(ds)}" not in placed.inputs:
            return None
        manifest = workspace.need(f"{side}_features_fg", day_before(ds))
        check_made_from(placed, manifest)
        return manifest

    def values(self, side: str, manifest: Manifest, features: Sequence[Feature]) -> pa.Table | CodedTable:
        """Returns features of a table as `count_values` takes them; those of the last table of each side are held.

        The first day of a table gets its columns as they are. A day that finds the same table again gets them coded: that
        costs more than a day's counting, and makes counting cheap on all days that follow.
        """
        digest, held = self._values.get(side, ("", None))
        if held is None or digest != manifest.digest:
            held = self._workspace.tables.read(manifest, [feature.name for feature in features]).combine_chunks()
        elif isinstance(held, pa.Table):
            held = coded(held, features)
        self._values[side] = (manifest.digest, held)
        return held


def wide_sample(workspace: Workspace, asset: str, ds: str) -> pa.Table:
    """Returns a day of sample_fg or positive_sample with every feature in a column of its own, for people to look at.

    Raises:
        PartitionMissingError: if there is no such partition.
        ProvenanceError: if the feature tables were made again since.
    """
    samples = workspace.need(asset, ds)
    placed = samples if asset == "sample_fg" else workspace.need("sample_fg", ds)
    if placed is not samples:
        check_made_from(samples, placed)
    sides = []
    for side in KEYS:
        key = f"{side}_features_fg/{day_before(ds)}"
        if key in placed.inputs:
            manifest = workspace.need(f"{side}_features_fg", day_before(ds))
            check_made_from(placed, manifest)
            sides.append(workspace.tables.read(manifest))
        else:
            sides.append(workspace.tables.open(workspace.need(f"{side}_features_fg", ds)).schema.empty_table())
    return widened(workspace.tables.read(samples), *sides)
