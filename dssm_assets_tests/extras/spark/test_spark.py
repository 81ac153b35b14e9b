"""Spark SQL of ordered lists, which Ibis lacks."""

from __future__ import annotations

import ibis
import pytest

from dssm_assets.extras.spark.spark import write_sql
from dssm_assets_tests.extras.spark.cluster import requires_pyspark

EVENTS = ibis.table({"user_id": "int64", "item_id": "string", "at": "int64", "price": "float64"}, name="events")


@requires_pyspark
def test_collect_sorts_structs_of_keys_and_value() -> None:
    lists = EVENTS.group_by("user_id").agg(
        items=EVENTS.item_id.collect(order_by=[EVENTS.at, EVENTS.item_id], include_null=True)
    )
    text = " ".join(write_sql(lists).split())
    assert (
        "ARRAY_SORT( COLLECT_LIST( STRUCT(`t0`.`at` AS `key_0`, `t0`.`item_id` AS `key_1`, `t0`.`item_id` AS `value`)" in text
    )


@requires_pyspark
def test_collect_filters_nulls_unless_include_null() -> None:
    lists = EVENTS.group_by("user_id").agg(items=EVENTS.item_id.collect(where=EVENTS.at > 5, order_by=EVENTS.at))
    assert "( `t0`.`at` > 5 ) AND ( `t0`.`item_id` IS NOT NULL )" in " ".join(write_sql(lists).split())


@requires_pyspark
def test_collect_refuses_descending_keys() -> None:
    lists = EVENTS.group_by("user_id").agg(items=EVENTS.item_id.collect(order_by=ibis.desc("at")))
    with pytest.raises(NotImplementedError, match="collect takes ascending keys and keeps every entry"):
        write_sql(lists)
