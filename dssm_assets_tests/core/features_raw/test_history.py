"""The day's history, by hand."""

from __future__ import annotations

import ibis
import pyarrow as pa
import pytest

from dssm_assets.core.features_raw.history import user_history
from dssm_assets_tests.core.features_raw.worlds import as_text_ids, at, log, run

DAY = log(
    [
        (2, 12, "click", at(0, 9), None, "c", None),
        (1, 11, "buy", at(0, 5), None, None, None),
        (1, 10, "click", at(0, 5), None, "a", None),
        (1, 12, "click", at(0, 1), None, "c", None),
        (1, 13, "expr", at(0, 2), None, "d", None),
        (3, 13, "expr", at(0, 2), None, "d", None),
    ]
)


@pytest.mark.parametrize("text_ids", [False, True])
def test_lists_are_aligned_and_ordered_by_time_then_item(con, text_ids: bool) -> None:
    table = as_text_ids(DAY) if text_ids else DAY
    expression = user_history(ibis.memtable(table), positive_events=["click", "buy"], history_columns=["category"])
    out = run(con, expression)
    ids = [[12, 10, 11], [12]]
    assert out.column("item_ids").to_pylist() == ([[str(i) for i in row] for row in ids] if text_ids else ids)
    assert out.column("user_id").to_pylist() == (["1", "2"] if text_ids else [1, 2])
    assert out.column("event_times_ms").to_pylist() == [[at(0, 1), at(0, 5), at(0, 5)], [at(0, 9)]]
    assert out.column("category").to_pylist() == [["c", "a", None], ["c"]]
    assert out.schema.field("event_times_ms").type == pa.list_(pa.int64())


def test_a_day_without_positives_has_no_rows(con) -> None:
    out = run(con, user_history(ibis.memtable(DAY), positive_events=["praise"], history_columns=["category"]))
    assert out.num_rows == 0
    assert out.column_names == ["user_id", "item_ids", "event_times_ms", "category"]
