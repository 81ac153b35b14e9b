"""Reading a side, and operations on rows of inputs."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.tower_input import SideReader, concatenate_rows, hide_rows, merge_sides
from dssm_assets.core.models.tower_spec import TowerSide
from dssm_assets_tests.core.models.features import tower_feature

FEATURES = [tower_feature("a"), tower_feature("tags", is_multi=True), tower_feature("b")]
TABLE = pa.table(
    {
        "b": pa.array([0, 1, 2], pa.int32()),
        "tags": pa.array([[1, 2], [], [0, 4]], pa.list_(pa.int32())),
        "a": pa.array([4, 3, 2], pa.int32()),
    }
)


@pytest.mark.parametrize("cuts", [(0, 3), (0, 1, 3), (0, 1, 2, 3)])
def test_columns_have_the_order_of_the_specification(cuts: tuple[int, ...]) -> None:
    table = pa.concat_tables([TABLE.slice(low, high - low) for low, high in pairwise(cuts)])
    inputs = SideReader(table, "items", FEATURES).read(np.array([2, 0]))
    assert inputs.singles.dtype == np.int64
    assert inputs.singles.tolist() == [[2, 2], [4, 0]]
    assert inputs.bags[0].values.tolist() == [4, 1, 2]
    assert inputs.bags[0].offsets.tolist() == [0, 1, 3]


def test_hidden_rows_lose_their_features() -> None:
    inputs = SideReader(TABLE, "items", FEATURES).read(np.arange(3))
    hidden = hide_rows(inputs, np.array([True, False, False]))
    assert hidden.singles.tolist() == [[0, 0], *inputs.singles.tolist()[1:]]
    assert np.diff(hidden.bags[0].offsets).tolist() == [0, *np.diff(inputs.bags[0].offsets).tolist()[1:]]
    assert inputs.singles.tolist() == [[4, 0], [3, 1], [2, 2]]


def test_concatenated_inputs_are_the_rows_of_both() -> None:
    reader = SideReader(TABLE, "items", FEATURES)
    both, whole = concatenate_rows(reader.read(np.array([0])), reader.read(np.array([1, 2]))), reader.read(np.arange(3))
    assert both.singles.tolist() == whole.singles.tolist()
    assert both.bags[0].values.tolist() == whole.bags[0].values.tolist()
    assert both.bags[0].offsets.tolist() == whole.bags[0].offsets.tolist()
    assert both.bags[0].weights.tolist() == whole.bags[0].weights.tolist()


def test_merged_sides_have_the_order_of_the_specification() -> None:
    user, context = {"side": TowerSide.USER}, {"side": TowerSide.CONTEXT}
    tags, pages = tower_feature("tags", is_multi=True, **user), tower_feature("pages", is_multi=True, **context)
    mixed = [tower_feature("hour", **context), pages, tower_feature("age", **user), tower_feature("day", **context), tags]
    first = pa.table({"age": pa.array([4, 3], pa.int32()), "tags": pa.array([[1], []], pa.list_(pa.int32()))})
    second = pa.table(
        {
            "hour": pa.array([0, 1, 2], pa.int32()),
            "day": pa.array([2, 2, 3], pa.int32()),
            "pages": pa.array([[3], [4, 4], []], pa.list_(pa.int32())),
        }
    )
    sides = {
        TowerSide.USER: SideReader(first, "users", [f for f in mixed if f.side is TowerSide.USER]).read(np.array([1, 0, 0])),
        TowerSide.CONTEXT: SideReader(second, "samples", [f for f in mixed if f.side is TowerSide.CONTEXT]).read(np.arange(3)),
    }
    merged = merge_sides(mixed, sides)
    assert merged.singles.tolist() == [[0, 3, 2], [1, 4, 2], [2, 4, 3]]
    assert [bag.values.tolist() for bag in merged.bags] == [[3, 4, 4], [1, 1]]
    assert [bag.offsets.tolist() for bag in merged.bags] == [[0, 1, 3, 3], [0, 0, 1, 2]]


def test_every_index_outside_its_table_is_reported() -> None:
    table = pa.table(
        {"a": pa.array([5], pa.int32()), "tags": pa.array([[-1, 2]], pa.list_(pa.int32())), "b": pa.array([4], pa.int32())}
    )
    with pytest.raises(SchemaError) as caught:
        SideReader(table, "items", FEATURES)
    assert [(f.where, f.expected, f.got) for f in caught.value.faults] == [
        ("table items, column a", "0 .. 4", "5 .. 5"),
        ("table items, column tags", "0 .. 4", "-1 .. 2"),
    ]


WEIGHTED = [tower_feature("a"), tower_feature("tags", is_multi=True, is_weighted=True), tower_feature("b")]


def _with_weights(rows: list[list[float | None]], kind: pa.DataType | None = None) -> pa.Table:
    return TABLE.append_column("tags__weights", pa.array(rows, kind or pa.list_(pa.float32())))


@pytest.mark.parametrize("chunks", [1, 2])
def test_weights_are_read_with_their_rows(chunks: int) -> None:
    table = _with_weights([[3, 1], [], [7, 5]])
    table = table if chunks == 1 else pa.concat_tables([table.slice(0, 1), table.slice(1)])
    (bag,) = SideReader(table, "items", WEIGHTED).read(np.array([2, 0, 1])).bags
    # Row 2 is [missing, 4]: what is left weighs 1. Row 0 is [1, 2] by 3, 1.
    assert (bag.values.tolist(), bag.offsets.tolist()) == ([4, 1, 2], [0, 1, 3, 3])
    assert bag.weights.tolist() == [1.0, 0.75, 0.25]


def test_weights_must_be_lists_of_float32() -> None:
    with pytest.raises(SchemaError, match="column tags__weights: expected the column to exist"):
        SideReader(TABLE, "items", WEIGHTED)
    with pytest.raises(SchemaError, match=r"column tags__weights: expected list<.*float>, got list<.*double>"):
        SideReader(_with_weights([[1, 1], [], [1, 1]], pa.list_(pa.float64())), "items", WEIGHTED)
