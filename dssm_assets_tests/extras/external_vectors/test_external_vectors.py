"""Vectors and pairs are read from any usable column; every fault is reported with its ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.extras.external_vectors.external_evaluation import VectorSet, read_pairs, read_vectors

LIST, NESTED = pa.list_(pa.float32()), pa.list_(pa.list_(pa.float32()))


def read(rows: list[Any], kind: pa.DataType = LIST, ids: Any = None, column: str = "user_id") -> VectorSet:
    ids = pa.array([f"u{i}" for i in range(len(rows))]) if ids is None else ids
    return read_vectors(pa.table({column: ids, f"{column[:4]}_tower_emb": pa.array(rows, kind)}), column, "user vectors")


def faults_of(*arguments: Any, **named: Any) -> str:
    with pytest.raises(InputError) as error:
        read(*arguments, **named)
    return str(error.value)


@pytest.mark.parametrize(
    "kind",
    [
        LIST,
        pa.list_(pa.float64()),
        pa.list_(pa.int64()),
        pa.list_(pa.float16()),
        pa.large_list(pa.float32()),
        pa.list_(pa.float32(), 2),
        pa.list_(pa.decimal128(5, 2)),
    ],
    ids=str,
)
def test_any_list_of_numbers_is_a_vector(kind: pa.DataType) -> None:
    rows: Any = [[1, 2], [3, 4], [5, 6]]
    found = read(pa.array(rows, LIST).cast(kind) if pa.types.is_float16(kind.value_type) else rows, kind)
    assert found.vectors.dtype == "float32"
    assert found.vectors.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert found.bounds.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "kind", [NESTED, pa.large_list(pa.list_(pa.float64(), 2)), pa.list_(pa.large_list(pa.int32()))], ids=str
)
def test_a_list_of_lists_is_several_vectors_in_slices_and_chunks_too(kind: pa.DataType) -> None:
    rows = pa.array([[[9, 9]], [[1, 2], [3, 4]], [[5, 6]], [[7, 8], [1, 1], [2, 2]]], kind)
    chunked = pa.chunked_array([rows.slice(1, 1), rows.slice(2, 2)])
    table = pa.table({"user_id": pa.array([3, 1, 2]), "user_tower_emb": chunked})
    found = read_vectors(table, "user_id", "user vectors")
    assert found.bounds.tolist() == [0, 2, 3, 6]
    assert found.vectors.tolist() == [[1, 2], [3, 4], [5, 6], [7, 8], [1, 1], [2, 2]]
    vectors, bounds = found.select(np.array([2, 0]))
    assert (vectors.tolist(), bounds.tolist()) == ([[7, 8], [1, 1], [2, 2], [1, 2], [3, 4]], [0, 3, 5])


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([1, 2], pa.uint16()), pa.int64()),
        (pa.array(["a", "b"], pa.large_string()), pa.string()),
        (pa.array(["a", "b"]).dictionary_encode(), pa.string()),
    ],
    ids=str,
)
def test_ids_are_read_as_int64_or_string(ids: pa.Array, expected: pa.DataType) -> None:
    assert read([[1], [2]], ids=ids).ids.type == expected


def test_every_kind_of_unusable_vector_is_reported_by_id() -> None:
    assert "1 of 3 without: u1" in faults_of([[1.0], None, [2.0]])
    assert "1 of 3 rows with nulls: u2" in faults_of([[1.0, 1.0], [1.0, 1.0], [None, 1.0]])
    assert "vectors of one width, mostly 2, got 1 of 3 of other widths: u0" in faults_of([[1.0], [1.0, 1.0], [2.0, 1.0]])
    assert "at least one number" in faults_of([[], []])
    text = faults_of([[float("nan")], [0.0], [float("inf")], [1.0]])
    assert "2 of 4 not finite (NaN or infinity): u0, u2" in text
    assert "1 of 4 all zeros: u1" in text
    assert "1 of 2 not finite" in faults_of([[1e300], [1.0]], pa.list_(pa.float64()))  # too large for float32
    nested = faults_of([[[1.0, 2.0], None], [[0.0, 0.0]], [], None], NESTED)
    assert "2 of 4 without: u2, u3" in nested
    assert "1 of 4 rows with nulls: u0" in nested
    assert "1 of 3 all zeros: u1" in faults_of([[[1.0], [2.0]], [[0.0]]], NESTED)


def test_columns_that_are_not_vectors_are_refused() -> None:
    assert "got string" in faults_of(["1,2"], pa.string())
    assert "got list<element: bool>" in faults_of([[True]], pa.list_(pa.bool_())).replace("item:", "element:")
    of_item = faults_of([[[1.0]]], NESTED, column="item_id")
    assert "expected list, large_list or fixed_size_list of numbers, got" in of_item


def test_ids_and_columns_are_checked() -> None:
    assert "1 ids more than once. To fix" in faults_of([[1.0], [2.0], [2.0]], ids=pa.array(["a", "a", "b"]))
    assert "an integer or a string, got double" in faults_of([[1.0], [1.0]], ids=pa.array([0.5, 1.5]))
    assert "1 nulls in 2 rows" in faults_of([[1.0], [1.0]], ids=pa.array(["a", None]))
    assert "ids that fit int64" in faults_of([[1.0]], ids=pa.array([2**64 - 1], pa.uint64()))
    with pytest.raises(InputError) as error:
        read_vectors(pa.table({"uid": [1]}), "user_id", "user vectors")
    assert str(error.value).startswith("2 faults:\nuser vectors, column user_id: expected the column to exist, got columns uid")
    with pytest.raises(InputError, match="at least one row"):
        read([])


def test_pairs_are_distinct_and_checked() -> None:
    table = pa.table({"x": [0] * 4, "item_id": pa.array([7, 7, 8, 7], pa.int32()), "user_id": ["a", "a", "a", "b"]})
    found = read_pairs(table, "truth")
    assert found.to_pydict() == {"user_id": ["a", "a", "b"], "item_id": [7, 8, 7]}
    with pytest.raises(InputError, match="column item_id: expected the column to exist"):
        read_pairs(pa.table({"user_id": ["a"]}), "truth")
    with pytest.raises(InputError, match="1 nulls in 2 rows"):
        read_pairs(pa.table({"user_id": pa.array(["a", None]), "item_id": [1, 2]}), "truth")
