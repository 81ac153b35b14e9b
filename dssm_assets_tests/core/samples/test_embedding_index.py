"""A bucketizer that breaks its contract is caught before its numbers reach a model."""

from __future__ import annotations

import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.embedding_index import embedding_index, embedding_indices
from dssm_assets_tests.core.samples.worlds import bucketize


def test_single_and_multi_valued_columns() -> None:
    table = pa.table({"a": [4, None], "b": pa.array([[1, None], None], pa.list_(pa.int64()))})
    found = embedding_indices(bucketize, ["b", "a"], table)
    assert list(found) == ["b", "a"]
    assert (found["a"].type, found["a"].to_pylist()) == (pa.int32(), [5, 0])
    assert (found["b"].type, found["b"].to_pylist()) == (pa.list_(pa.int32()), [[2, 0], []])


def test_large_lists_become_lists() -> None:
    found = embedding_index(lambda _, __: pa.array([[1]], pa.large_list(pa.int32())), "f", pa.chunked_array([[9]]))
    assert found.type == pa.list_(pa.int32())


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (pa.array([1, 2], pa.int64()), "expected int32 or list"),
        (pa.array([1], pa.int32()), "expected 2 rows, got 1 rows"),
        (pa.array([1, None], pa.int32()), "expected 0 for a missing value, got 1 nulls"),
        (pa.array([[None], None], pa.list_(pa.int32())), "got 2 nulls"),
    ],
)
def test_broken_bucketizers(returned: pa.Array, message: str) -> None:
    with pytest.raises(SchemaError, match=f"feature f, embedding indices: .*{message}"):
        embedding_index(lambda _, __: returned, "f", pa.array([7, 8]))
