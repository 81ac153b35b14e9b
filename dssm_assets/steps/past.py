"""The histories of all users, placed from stored days into files that are mapped into memory.

Belongs here: reading the days. Does not belong here: which days count (`training.py`), where an event goes
(`core/samples/history_build`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from dssm_assets.core.features.bucketizer import Bucketizer
from dssm_assets.core.samples.history import HistoryCsr
from dssm_assets.core.samples.history_build import place_history
from dssm_assets.core.samples.id_index import IdIndex
from dssm_assets.steps.feature_config import indexed_features
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.scratch_arrays import ScratchArrays


def placed_history(
    workspace: Workspace,
    past: Sequence[Manifest],
    item_index: IdIndex,
    bucketizer: Bucketizer,
    scratch: ScratchArrays,
    *,
    typed_by: Manifest | None = None,
) -> HistoryCsr:
    """Returns the histories of stored days of user_history_fg, with the features of sequences that are kept.

    Args:
        workspace: holds the days.
        past: the days.
        item_index: the corpus.
        bucketizer: which features are kept and what becomes of their values.
        scratch: where the arrays lie; they are gone with it.
        typed_by: a day whose columns tell the types of ids where there are no days.

    Raises:
        WindowIncompleteError: there are no days, and nothing tells their types.
        SchemaError: see `place_history`.
    """

    def days(columns: Sequence[str]) -> Iterator[pa.Table]:
        if not past and typed_by is not None:
            yield workspace.tables.open(typed_by).schema.empty_table()
        for day in past:
            yield workspace.tables.read(day, [column.name for column in day.columns if column.name in columns])

    names = indexed_features(bucketizer, "sequence").names
    return place_history(days, item_index, bucketizer.bucketize, features=names, allocate=scratch)
