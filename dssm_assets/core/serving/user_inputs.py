"""What a bundle holds of the input of each user's vector, so that a request can add to it: encoded features, latest events.

Letters: U users, n events of all of them.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, offsets_of, ranges
from dssm_assets.core.models.poolings.registry import make_pooling
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.samples.history import HistoryCsr

ITEM_ROWS: Final = "history/item_rows"
EVENT_TIMES_MS: Final = "history/event_times_ms"


def history_column(feature: str) -> str:
    """Returns the column with the embedding indices of a sub-feature of the history."""
    return f"history/{feature}"


def history_reach(spec: TowerSpec) -> int:
    """Returns how many of a user's latest events the user tower reads, 0 if it reads no history."""
    views = spec.history_views
    return max(
        (view.pooling.length if view.is_sequence else make_pooling(view.pooling).num_events for view in views), default=0
    )


def list_user_inputs(
    features: pa.Table, history: HistoryCsr, starts: IntArray, ends: IntArray, spec: TowerSpec
) -> pa.RecordBatch:
    """Returns a row of user_inputs.arrow per user: the features, and lists of the latest events that the tower reads, oldest first.

    Args:
        features: embedding indices of the user features [U].
        history: of all users; its item_index is the row of the item in the bundle.
        starts, ends: bounds of each user's events in it [U].
    """
    lengths = np.minimum(ends - starts, history_reach(spec))
    places, offsets = ranges(ends - lengths, lengths), pa.array(offsets_of(lengths))
    events: dict[str, npt.NDArray[Any]] = {ITEM_ROWS: history.item_index, EVENT_TIMES_MS: history.event_time_ms}
    events |= {history_column(feature.name): history.features[feature.name] for feature in spec.sequences}
    lists = {name: pa.LargeListArray.from_arrays(offsets, pa.array(values[places])) for name, values in events.items()}
    single = features.combine_chunks().to_batches()
    columns = dict(zip(features.column_names, single[0].columns, strict=True)) if single else {}
    return pa.RecordBatch.from_pydict(columns | lists)
