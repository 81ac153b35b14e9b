"""Makes labelled samples from the events of a day: chooses the events, labels them, and weighs the positive samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import combine_chunks
from dssm_assets.core.samples.sample_tables import BASE_COLUMNS, ROW_ORDER, refuse_collisions, require_columns


def label_events(
    behavior: ir.Table,
    *,
    positive_events: Sequence[str],
    exposure_events: Sequence[str],
    context_columns: Sequence[str],
) -> ir.Table:
    """Returns one row per event of the day, with label 1 for positive events, else 0.

    If exposure events are configured, rows are only the positive and the exposure events. Other events say nothing against the
    item: a cart event, with buying as positive, would be a false 0. Without exposure events, every event is a row.

    The columns of `sample_tables.SAMPLE` come first, then the context columns. Rows are sorted by (event_time_ms, user_id,
    item_id, event), then by every other scalar column, so only equal rows can tie.

    Raises:
        SchemaError: a column is missing from the behavior table, or a context column is named `label`.
    """
    fixed = [spec.name for spec in BASE_COLUMNS]
    # A context column may be a column that every sample has anyway (hour, weekday, request_id).
    context = [name for name in dict.fromkeys(context_columns) if name not in fixed or name == col.LABEL]
    refuse_collisions("table sample", {"the label": [col.LABEL], "context_columns": context})
    require_columns("table behavior", behavior.columns, [name for name in [*fixed, *context] if name != col.LABEL])
    rows = behavior
    if exposure_events:
        rows = rows.filter(rows[col.EVENT].isin(sorted({*positive_events, *exposure_events})))
    label = ibis.ifelse(rows[col.EVENT].isin(sorted(set(positive_events))), 1, 0).cast("int8")
    rows = rows.mutate(**{col.LABEL: label}).select(*fixed, *context)
    others = [name for name in rows.columns if name not in ROW_ORDER and not rows[name].type().is_array()]
    return rows.order_by([ibis.asc(rows[name], nulls_first=False) for name in (*ROW_ORDER, *others)])


_LEAST = float(np.finfo(np.float32).tiny)
"""The lowest weight. It is above 0, so that a batch of only old samples has a mean."""


@dataclass(frozen=True)
class SampleWeights:
    """weight = event_weights[event] * 2 ** (-age in days / half_life_days); the last day of the window has age 1.

    Example: `buy` has weight 3, the half-life is 2 days. A buy three days before the evaluation day weighs 3 * 2 ** -1.5 = 1.06.

    Attributes:
        event_weights: event -> weight; other events weigh 1.
        half_life_days: half-life of a weight. None: age does not matter.
    """

    event_weights: Mapping[str, float] = field(default_factory=dict)
    half_life_days: float | None = None
    window_days: int = 1

    def weigh(self, positive_sample: pa.Table, day: int) -> npt.NDArray[np.float32]:
        """Returns the weight of every row, float32 above 0.

        Args:
            day: number of the day in the window, 0 the oldest.
        """
        weights = np.ones(positive_sample.num_rows)
        if self.event_weights:
            names = pa.array(list(self.event_weights), pa.string())
            position = pc.index_in(combine_chunks(positive_sample.column(col.EVENT)).cast(pa.string()), value_set=names)
            weights = np.array([*self.event_weights.values(), 1.0])[pc.fill_null(position, len(names)).to_numpy()]
        if self.half_life_days is not None:
            weights = weights * np.exp2(-(self.window_days - day) / self.half_life_days)
        return np.maximum(weights, _LEAST).astype(np.float32)
