"""Spark SQL of ordered lists, which Ibis lacks."""

from __future__ import annotations

import ibis
import pytest

from dssm_assets.extras.spark.spark import spark_sql
from dssm_assets_tests.extras.spark.cluster import requires_pyspark

EVENTS = ibis.table({"user_id": "int64", "item_id": "string", "at": "int64", "price": "float64"}, name="events")


@requires_pyspark
def test_collect_sorts_structs_of_keys_and_value() -> None:
    lists = EVENTS.group_by("user_id").agg(
        items=EVENTS.item_id.collect(order_by=[EVENTS.at, EVENTS.item_id], include_null=True)
    )
    assert spark_sql(lists) == (
        "SELECT `t0`.`user_id`, TRANSFORM(ARRAY_SORT(COLLECT_LIST(NAMED_STRUCT('key_0', `t0`.`at`, 'key_1', `t0`.`item_id`, "
        "'value', `t0`.`item_id`))), entry -> entry.value) AS `items` FROM `events` AS `t0` GROUP BY 1"
    )


@requires_pyspark
def test_collect_filters_nulls_unless_include_null() -> None:
    lists = EVENTS.group_by("user_id").agg(items=EVENTS.item_id.collect(where=EVENTS.at > 5, order_by=EVENTS.at))
    assert "FILTER(WHERE `t0`.`at` > 5 AND `t0`.`item_id` IS NOT NULL)" in spark_sql(lists)


@requires_pyspark
@pytest.mark.parametrize("how", [{"order_by": ibis.desc("at")}, {"distinct": True}], ids=["descending", "distinct"])
def test_collect_refuses_descending_keys_and_distinct_entries(how: dict[str, object]) -> None:
    lists = EVENTS.group_by("user_id").agg(items=EVENTS.item_id.collect(**how))
    with pytest.raises(NotImplementedError, match="collect takes ascending keys and keeps every entry"):
        spark_sql(lists)
