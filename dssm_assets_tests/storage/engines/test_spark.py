"""Spark's SQL where Ibis has none: ordered lists, and floats as text."""

from __future__ import annotations

import duckdb
import ibis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.storage.engines.spark import float_text, spark_sql
from dssm_assets_tests.spark.cluster import requires_pyspark

TAKEN = ibis.table({"user_id": "int64", "item_id": "string", "at": "int64", "price": "float64"}, name="taken")


@pytest.mark.parametrize(("narrow", "sql"), [(False, "DOUBLE"), (True, "FLOAT")])
@given(data=st.data())
def test_a_float_becomes_the_text_that_duckdb_writes(narrow: bool, sql: str, data: st.DataObject) -> None:
    number = data.draw(st.floats(width=32 if narrow else 64, allow_nan=False) | st.integers(-(10**18), 10**18).map(float))
    stored = float(np.float32(number)) if narrow else number
    numbers = pa.table({"number": pa.array([stored], pa.float32() if narrow else pa.float64())})
    ((text,),) = duckdb.sql("SELECT CAST(number AS VARCHAR) FROM numbers").fetchall()
    assert numbers.num_rows == 1
    assert float_text(stored, narrow) == text


def test_a_missing_number_is_no_text_and_nan_is_one() -> None:
    assert float_text(None, False) is None
    assert float_text(float("nan"), False) == "nan"


@requires_pyspark
def test_an_ordered_list_is_collected_with_its_keys_sorted_and_stripped() -> None:
    lists = TAKEN.group_by("user_id").agg(items=TAKEN.item_id.collect(order_by=[TAKEN.at, TAKEN.item_id], include_null=True))
    assert spark_sql(lists) == (
        "SELECT `t0`.`user_id`, TRANSFORM(ARRAY_SORT(COLLECT_LIST(NAMED_STRUCT('key_0', `t0`.`at`, 'key_1', `t0`.`item_id`, "
        "'value', `t0`.`item_id`))), entry -> entry.value) AS `items` FROM `taken` AS `t0` GROUP BY 1"
    )


@requires_pyspark
def test_missing_entries_are_left_out_unless_they_are_asked_for() -> None:
    lists = TAKEN.group_by("user_id").agg(items=TAKEN.item_id.collect(where=TAKEN.at > 5, order_by=TAKEN.at))
    assert "FILTER(WHERE `t0`.`at` > 5 AND `t0`.`item_id` IS NOT NULL)" in spark_sql(lists)


@requires_pyspark
@pytest.mark.parametrize("how", [{"order_by": ibis.desc("at")}, {"distinct": True}], ids=["descending", "distinct"])
def test_a_list_that_no_expression_needs_is_refused(how: dict[str, object]) -> None:
    lists = TAKEN.group_by("user_id").agg(items=TAKEN.item_id.collect(**how))
    with pytest.raises(NotImplementedError, match="collect takes ascending keys and keeps every entry"):
        spark_sql(lists)


@requires_pyspark
def test_a_float_as_text_is_left_to_the_registered_function() -> None:
    texts = TAKEN.select(price=TAKEN.price.cast("string"), at=TAKEN.at.cast("string"))
    assert spark_sql(texts) == (
        "SELECT DSSM_FLOAT_TEXT(`t0`.`price`, FALSE) AS `price`, CAST(`t0`.`at` AS STRING) AS `at` FROM `taken` AS `t0`"
    )
