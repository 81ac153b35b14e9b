"""The sample joined with features as of the day before, and the proof that nothing newer came in.

Belongs here: the as-of join and its two checks (row count, leak). Does not belong here: feature generation, and
the choice of the partition that is joined: the caller hands in the feature tables of D-1.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

import ibis.expr.types as ir
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core import columns as col
from dssm_assets.core.errors import DuplicateKeyError, Fault, SchemaError
from dssm_assets.core.samples.sample import total_order
from dssm_assets.core.samples.specs import refuse_collisions, require_columns


def join_features(sample: ir.Table, user_fg: ir.Table, item_fg: ir.Table) -> ir.Table:
    """Returns the sample with the features of its user and item, one row per row of the sample.

    Both joins are left joins of cardinality n : 0..1 (`user_id` and `item_id` are the keys of the feature tables):
    a user or item without a row gets nulls, its feature date included. The caller counts rows before and after and
    hands the counts to `check_join_rows`.

    Columns: the sample's, user_feature_date, item_feature_date, user features, item features. Sorted like the sample.

    Raises:
        SchemaError: a name comes from two sides, a key or feature_date is missing, or the key types differ.
    """
    require_columns("table sample", sample.columns, [col.USER_ID, col.ITEM_ID])
    require_columns("table user_features_fg", user_fg.columns, [col.USER_ID, col.FEATURE_DATE])
    require_columns("table item_features_fg", item_fg.columns, [col.ITEM_ID, col.FEATURE_DATE])
    user_features = [name for name in user_fg.columns if name not in {col.USER_ID, col.FEATURE_DATE}]
    item_features = [name for name in item_fg.columns if name not in {col.ITEM_ID, col.FEATURE_DATE}]
    dates = [col.USER_FEATURE_DATE, col.ITEM_FEATURE_DATE]
    sources = {
        "the sample": list(sample.columns),
        "the join": dates,
        "the user side": user_features,
        "the item side": item_features,
    }
    refuse_collisions("table sample_fg", sources)
    _require_same_keys(sample, {col.USER_ID: user_fg, col.ITEM_ID: item_fg})
    users = user_fg.rename({col.USER_FEATURE_DATE: col.FEATURE_DATE})
    items = item_fg.rename({col.ITEM_FEATURE_DATE: col.FEATURE_DATE})
    with_user = sample.left_join(users, col.USER_ID).select(*sample.columns, col.USER_FEATURE_DATE, *user_features)
    joined = with_user.left_join(items, col.ITEM_ID).select(*sample.columns, *dates, *user_features, *item_features)
    return joined.order_by(total_order(joined, among=sample.columns))


def check_join_rows(before: int, after: int) -> None:
    """Checks that a join that must keep every row once has done so.

    Raises:
        DuplicateKeyError: there are more rows than before: a key occurs more than once on the joined side.
        SchemaError: there are fewer.
    """
    if after == before:
        return
    error = DuplicateKeyError if after > before else SchemaError
    remedy = "make user_id and item_id unique in the feature tables" if after > before else "join with a left join"
    raise error(Fault("table sample_fg", f"the {before} rows of sample", f"{after} rows", remedy))


@dataclass(frozen=True)
class LeakReport:
    """What the feature dates of a sample say.

    Attributes:
        passed: no row has features from after the end of the day before.
        newest_user_feature_date: latest date among the user features, None if no user was known.
        newest_item_feature_date: the same for items.
        row_count: rows looked at.
        leaking_row_count: rows with a user or item feature date later than the day before.
        unknown_user_count: rows whose user had no features (null date). Not a leak: the user is new.
        unknown_item_count: the same for items.
    """

    passed: bool
    newest_user_feature_date: str | None
    newest_item_feature_date: str | None
    row_count: int
    leaking_row_count: int
    unknown_user_count: int
    unknown_item_count: int


def combine_leak_reports(reports: Iterable[LeakReport]) -> LeakReport:
    """Returns the report of a whole whose parts were looked at one by one."""
    parts = list(reports)
    users = [part.newest_user_feature_date for part in parts if part.newest_user_feature_date is not None]
    items = [part.newest_item_feature_date for part in parts if part.newest_item_feature_date is not None]
    return LeakReport(
        passed=all(part.passed for part in parts),
        newest_user_feature_date=max(users, default=None),
        newest_item_feature_date=max(items, default=None),
        row_count=sum(part.row_count for part in parts),
        leaking_row_count=sum(part.leaking_row_count for part in parts),
        unknown_user_count=sum(part.unknown_user_count for part in parts),
        unknown_item_count=sum(part.unknown_item_count for part in parts),
    )


def check_no_leak(sample_fg: pa.Table | Iterable[pa.RecordBatch | pa.Table], ds: str) -> LeakReport:
    """Returns what the feature dates of the samples of day `ds` say; it does not raise on a leak.

    Example: ds 2024-05-02 and user_feature_date 2024-05-02 in one row: passed is False, leaking_row_count is 1.

    Raises:
        SchemaError: `ds` is not YYYY-MM-DD, or a date column is missing or not text.
    """
    allowed = _day_before(ds)
    newest: dict[str, str] = {}
    unknown = {col.USER_FEATURE_DATE: 0, col.ITEM_FEATURE_DATE: 0}
    row_count = leaking_count = 0
    for batch in [sample_fg] if isinstance(sample_fg, pa.Table) else sample_fg:
        require_columns("table sample_fg", batch.schema.names, unknown)
        row_count += batch.num_rows
        leaks = []
        for name in unknown:
            dates = _as_text(name, batch.column(name))
            unknown[name] += dates.null_count
            latest = pc.max(dates).as_py()
            if latest is not None:
                newest[name] = max(latest, newest.get(name, latest))
            leaks.append(pc.fill_null(pc.greater(dates, allowed), False))
        leaking_count += pc.sum(pc.or_(*leaks)).as_py() or 0
    return LeakReport(
        passed=leaking_count == 0,
        newest_user_feature_date=newest.get(col.USER_FEATURE_DATE),
        newest_item_feature_date=newest.get(col.ITEM_FEATURE_DATE),
        row_count=row_count,
        leaking_row_count=leaking_count,
        unknown_user_count=unknown[col.USER_FEATURE_DATE],
        unknown_item_count=unknown[col.ITEM_FEATURE_DATE],
    )


def _require_same_keys(sample: ir.Table, sides: dict[str, ir.Table]) -> None:
    # An engine would cast "7" to 7 to make a join work and, on another day's ids, fail or match nothing.
    faults = [
        Fault(
            f"table sample_fg, column {key}",
            f"ids of one type ({sample[key].type()})",
            str(side[key].type()),
            "cast the source's ids",
        )
        for key, side in sides.items()
        if sample[key].type().is_integer() != side[key].type().is_integer()
        or sample[key].type().is_string() != side[key].type().is_string()
    ]
    if faults:
        raise SchemaError(faults)


def _day_before(ds: str) -> str:
    try:
        day = dt.date.fromisoformat(ds)
    except ValueError:
        day = None
    # fromisoformat also reads 20240502, which no partition is called and which sorts wrongly beside 2024-05-02.
    if day is None or day.isoformat() != ds:
        raise SchemaError(Fault("partition ds", "a day as YYYY-MM-DD", repr(ds), "pass the partition's key"))
    return (day - dt.timedelta(days=1)).isoformat()


def _as_text(name: str, dates: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    if not (pa.types.is_string(dates.type) or pa.types.is_large_string(dates.type) or pa.types.is_null(dates.type)):
        raise SchemaError(
            Fault(f"table sample_fg, column {name}", "text", str(dates.type), "write feature_date as YYYY-MM-DD text")
        )
    return dates.cast(pa.string())
