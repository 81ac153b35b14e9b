"""Makes small files of a bundle: fg.json and the files that it names, popular items, inputs for users' vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges, repeat_rows
from dssm_assets.core.columns import COUNT, ITEM_ID
from dssm_assets.core.evaluation.interactions import interactions_of_events
from dssm_assets.core.features.fg_files import ReadFile, rename_files
from dssm_assets.core.features.spec import parse_fg
from dssm_assets.core.file_names import OwnItemColumn
from dssm_assets.core.models.poolings import make_pooling
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.samples.history import HistoryCsr

PACKED_FOLDER: Final = "fg_files"
ITEM_ROWS: Final = "history/item_rows"
EVENT_TIMES_MS: Final = "history/event_times_ms"
_OWN_ITEMS: Final = pa.schema(
    [
        (OwnItemColumn.ROWS, pa.large_list(pa.int32())),
        (OwnItemColumn.COUNTS, pa.large_list(pa.int32())),
        (OwnItemColumn.LAST_TIMES_MS, pa.large_list(pa.int64())),
    ]
)


def pack_fg(raw: Mapping[str, Any], read_file: ReadFile) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Packs feature definitions together with the files that they name.

    Returns the definitions with new paths, `fg_files/<digest>-<name>`, and path -> content.

    Raises:
        FeatureSpecError: the definitions are wrong, or a file cannot be read.
    """
    contents: dict[str, bytes] = {}

    def read_and_record(name: str) -> bytes:
        contents[name] = read_file(name)
        return contents[name]

    parse_fg(raw, read_file=read_and_record)
    digests = {name: hashlib.sha256(content).hexdigest()[:12] for name, content in contents.items()}
    paths = {name: f"{PACKED_FOLDER}/{digest}-{name.rpartition('/')[2]}" for name, digest in digests.items()}
    renamed = rename_files(dict(raw), lambda name: paths.get(name, name))
    return renamed, {paths[name]: content for name, content in contents.items()}


def rank_popular_items(positive_counts: pa.Table, item_index: IdIndex) -> pa.Table:
    """Returns item_id, count of the corpus items with a positive event, most events first, ties by id.

    Items of `positive_counts` (item_id, count) outside the corpus cannot be recalled, so they are left out.
    """
    rows = item_index.lookup(positive_counts.column(ITEM_ID), where=f"positive counts, column {ITEM_ID}")
    counts = positive_counts.column(COUNT).to_numpy()
    kept = np.flatnonzero((rows >= 0) & (counts > 0))
    table = pa.table({ITEM_ID: item_index.ids.take(pa.array(rows[kept])), COUNT: pa.array(counts[kept].astype(np.int64))})
    order = pc.sort_indices(table, [(COUNT, "descending"), (ITEM_ID, "ascending")])
    return table.take(order).combine_chunks()


def history_column(feature: str) -> str:
    """Returns the name of the column for a sub-feature of the history."""
    return f"history/{feature}"


def history_reach(spec: TowerSpec) -> int:
    """Returns the number of a user's latest events that the user tower reads."""
    views = spec.history_views
    return max(
        (view.pooling.length if view.is_sequence else make_pooling(view.pooling).num_events for view in views), default=0
    )


def list_user_inputs(
    features: pa.Table, history: HistoryCsr, starts: IntArray, ends: IntArray, spec: TowerSpec
) -> pa.RecordBatch:
    """Returns the rows of user_inputs.arrow, one per user: the features, and lists of the latest events for the tower, oldest first.

    Args:
        features: embedding indices of the user features [U].
        history: histories of all users; item_index is the item's row in the bundle.
        starts, ends: bounds of each user's events in the history [U].
    """
    lengths = np.minimum(ends - starts, history_reach(spec))
    places, offsets = ranges(ends - lengths, lengths), pa.array(offsets_of(lengths))
    events: dict[str, npt.NDArray[Any]] = {ITEM_ROWS: history.item_index, EVENT_TIMES_MS: history.event_time_ms}
    events |= {history_column(feature.name): history.features[feature.name] for feature in spec.sequences}
    lists = {name: pa.LargeListArray.from_arrays(offsets, pa.array(values[places])) for name, values in events.items()}
    single = features.combine_chunks().to_batches()
    columns = dict(zip(features.column_names, single[0].columns, strict=True)) if single else {}
    return pa.RecordBatch.from_pydict(columns | lists)


def list_own_items(history: HistoryCsr, starts: IntArray, ends: IntArray, num_items: int) -> pa.RecordBatch:
    """Returns the rows of own_items.arrow, one per user: item rows ascending, with counts and last times."""
    places, owner = ranges(starts, ends - starts), repeat_rows(ends - starts)
    items, times = history.item_index[places], history.event_time_ms[places]
    own = interactions_of_events(owner, items, times, num_users=len(starts), num_items=num_items)
    offsets = pa.array(np.asarray(own.indptr, np.int64))
    columns = [
        pa.LargeListArray.from_arrays(offsets, pa.array(values, field.type.value_type))
        for values, field in zip((own.item_index, own.count, own.last_time_ms), _OWN_ITEMS, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_OWN_ITEMS)
