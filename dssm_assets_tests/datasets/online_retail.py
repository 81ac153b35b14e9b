"""Online Retail (UCI, by way of the CRAN package onlineretail; CC0): purchases and cancellations of a gift wholesaler.

Belongs here: reading a folder of its three tables and dropping non-products. Does not belong here: the slice for tests
(`dssm_assets_tests/fixtures/online_retail`).
Cite: Chen, Sain and Guo (2012), Journal of Database Marketing and Customer Strategy Management 19, doi:10.1057/dbm.2012.17.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from dssm_assets.datasets.complete_journey import SourceTables, sort_rows


def load(folder: Path) -> SourceTables:
    """Returns users, products and behaviour (events `buy` and `cancel`, times in seconds since 1970-01-01 UTC), sorted.

    Postage, fees and the like (`is_product` false) are dropped together with their events; all users are kept.

    Args:
        folder: a folder with users.parquet, items.parquet and behavior.parquet.
    """
    users, items, behavior = (pq.read_table(folder / f"{name}.parquet") for name in ("users", "items", "behavior"))
    products = items.filter(pc.field("is_product")).drop_columns(["is_product"])
    is_product = pc.is_in(behavior.column("item_id"), value_set=products.column("item_id").combine_chunks())
    return SourceTables(
        users=users.sort_by("user_id"),
        items=products.sort_by("item_id"),
        behavior=sort_rows(behavior.filter(is_product), ["event_time", "user_id", "item_id"]),
    )
