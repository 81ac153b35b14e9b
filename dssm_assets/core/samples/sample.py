"""The sample table: which events of a day become labelled rows.

Belongs here: the choice of rows, the label and the columns. Does not belong here: features (`sample_fg.py`) and
the hour and weekday of an event, which the behaviour table of features_raw already has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import ibis
import ibis.expr.types as ir

from dssm_assets.core import columns as col
from dssm_assets.core.samples.specs import BASE_COLUMNS, ROW_ORDER, refuse_collisions, require_columns


def sample(
    behavior: ir.Table,
    *,
    positive_events: Sequence[str],
    exposure_events: Sequence[str],
    context_columns: Sequence[str],
) -> ir.Table:
    """Returns one labelled row per event of the day that says whether a user wanted an item.

    With exposure events, rows are the positive and the exposure events: an event that is neither (a cart event
    where buying is positive) would be a false "not wanted". Without them every event of the log is a row, and
    what is not positive has label 0.

    Columns: those of `specs.SAMPLE`, then the context columns. Sorted by (event_time_ms, user_id, item_id, event)
    and then by every other column, so rows that tie are equal and their order cannot matter.

    Raises:
        SchemaError: a column is missing from the behaviour table, or a context column is named `label`.
    """
    fixed = [spec.name for spec in BASE_COLUMNS]
    # A context column may be one that every sample has anyway (hour, weekday, request_id).
    context = [name for name in dict.fromkeys(context_columns) if name not in fixed or name == col.LABEL]
    refuse_collisions("table sample", {"the label": [col.LABEL], "context_columns": context})
    require_columns("table behavior", behavior.columns, [name for name in [*fixed, *context] if name != col.LABEL])
    rows = behavior
    if exposure_events:
        rows = rows.filter(rows[col.EVENT].isin(sorted({*positive_events, *exposure_events})))
    label = ibis.ifelse(rows[col.EVENT].isin(sorted(set(positive_events))), 1, 0).cast("int8")
    rows = rows.mutate(**{col.LABEL: label}).select(*fixed, *context)
    return rows.order_by(total_order(rows))


def total_order(rows: ir.Table, among: Iterable[str] | None = None) -> list[ir.Value]:
    """Returns sort keys that put the sample's key first and every other scalar column after it, nulls last.

    `among` limits the columns (default: all). Lists are left out: they follow from the scalar columns.
    """
    allowed = list(rows.columns if among is None else among)
    first = [name for name in ROW_ORDER if name in allowed]
    rest = [name for name in allowed if name not in first and not rows[name].type().is_array()]
    return [ibis.asc(rows[name], nulls_first=False) for name in [*first, *rest]]
