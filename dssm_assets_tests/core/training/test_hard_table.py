"""Hard negatives at the border: what becomes an edge, and what is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.training.hard_table import hard_edges


def table(pairs: list[tuple[int, int]]) -> pa.Table:
    columns = {"user_index": [u for u, _ in pairs], "item_index": [i for _, i in pairs], "day": list(range(len(pairs)))}
    return pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()})


def test_edges_by_hand_in_any_chunks() -> None:
    whole = table([(1, 0), (1, 4), (3, 2)])
    cut = pa.concat_tables([whole.slice(0, 2), whole.slice(2)])
    for given in (whole, cut):
        edges = hard_edges(given, num_users=5, num_items=5)
        assert edges.offsets.tolist() == [0, 0, 2, 2, 3, 3]
        assert (edges.items.tolist(), edges.days.tolist()) == ([0, 4, 2], [0, 1, 2])
    none = hard_edges(whole.slice(0, 0), num_users=5, num_items=5).draw(np.array([1], np.int32), 3, np.random.default_rng(1))
    assert len(none.items) == 0


@pytest.mark.parametrize(
    ("pairs", "text"),
    [
        ([(5, 0)], r"table hard_negatives, column user_index: expected 0 \.\. 4, got 5"),
        ([(-1, 0)], r"table hard_negatives, column user_index"),
        ([(0, 5)], r"table hard_negatives, column item_index: expected 0 \.\. 4"),
        ([(1, 0), (0, 3)], "table hard_negatives: expected rows sorted.*got row 1"),
        ([(0, 0), (1, 3), (1, 3)], "got row 2 that"),
        ([(0, 0), (1, 3), (1, 2)], "got row 2 that"),
    ],
)
def test_bad_edges_are_refused(pairs: list[tuple[int, int]], text: str) -> None:
    with pytest.raises(SchemaError, match=text):
        hard_edges(table(pairs), num_users=5, num_items=5)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(SchemaError, match="table hard_negatives, column day"):
        hard_edges(table([(0, 0)]).drop_columns(["day"]), num_users=5, num_items=5)
