"""Features become embedding indices; a feature's weights are checked before they reach a model."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.embedding_index import IndexedFeatures
from dssm_assets_tests.core.samples.worlds import bucketize


def test_to_indices_of_single_and_multi_valued_columns() -> None:
    table = pa.table({"a": [4, None], "b": pa.array([[1, None], None], pa.list_(pa.int64()))})
    found = IndexedFeatures(bucketize, ["b", "a"]).to_indices(table, "table t")
    assert list(found) == ["b", "a"]
    assert (found["a"].type, found["a"].to_pylist()) == (pa.int32(), [5, 0])
    assert (found["b"].type, found["b"].to_pylist()) == (pa.list_(pa.int32()), [[2, 0], []])


def test_a_table_without_features_keeps_its_rows() -> None:
    (batch,) = pa.table({"a": [4, None]}).to_batches()
    assert IndexedFeatures(bucketize, ["a"]).to_table(batch, "table t").to_pydict() == {"a": [5, 0]}
    assert IndexedFeatures(bucketize, []).to_table(batch, "table t").shape == (2, 0)


def test_types_are_those_of_to_indices() -> None:
    features = IndexedFeatures(bucketize, ["b", "a"], {"b"})
    schema = pa.schema({"a": pa.int64(), "b": pa.list_(pa.int64()), "b__weights": pa.list_(pa.float32()), "more": pa.string()})
    assert features.types(schema, "table t") == {
        "b": pa.list_(pa.int32()),
        "b__weights": pa.list_(pa.float32()),
        "a": pa.int32(),
    }
    with pytest.raises(SchemaError, match="table t, column a: expected the column to exist"):
        features.types(schema.remove(0), "table t")


LISTS, WEIGHTS = pa.list_(pa.int64()), pa.list_(pa.float32())
WEIGHTED = IndexedFeatures(bucketize, ["b", "a"], {"b"})
FITTING = [[0.5, 2], None, [-3]]


def weighted(weights: object, kind: pa.DataType = WEIGHTS) -> pa.Table:
    return pa.table({"a": [4, 4, 4], "b": pa.array([[1, None], None, [7]], LISTS), "b__weights": pa.array(weights, kind)})


@pytest.mark.parametrize("first", [0, 1])
def test_weights_follow_their_feature_and_null_lists_become_empty(first: int) -> None:
    assert WEIGHTED.columns == ["b", "b__weights", "a"]
    table = weighted(FITTING).slice(first)
    found = WEIGHTED.to_indices(pa.concat_tables([table, table]), "table t")
    assert list(found) == WEIGHTED.columns
    assert found["b"].to_pylist() == [[2, 0], [], [8]][first:] * 2
    assert (found["b__weights"].type, found["b__weights"].to_pylist()) == (WEIGHTS, [[0.5, 2.0], [], [-3.0]][first:] * 2)
    large = WEIGHTED.to_indices(weighted(FITTING, pa.large_list(pa.float32())), "table t")
    assert large["b__weights"].equals(WEIGHTED.to_indices(weighted(FITTING), "table t")["b__weights"])
