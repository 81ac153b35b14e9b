"""Vectors are read, checked and prepare_vectors before any search."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import InputError
from dssm_assets.core.retrieval.vectors import Metric, check_vectors, prepare_vectors, to_matrix


def test_to_matrix_reads_fixed_size_lists_and_slices() -> None:
    values = pa.array(np.arange(8, dtype=np.float32))
    column = pa.FixedSizeListArray.from_arrays(values, 2)
    assert to_matrix(column, "v").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert to_matrix(column.slice(1, 2), "v").tolist() == [[2, 3], [4, 5]]
    assert to_matrix(pa.chunked_array([column.slice(3), column.slice(0, 1)]), "v").tolist() == [[6, 7], [0, 1]]


def test_to_matrix_refuses_missing_vectors_and_other_types() -> None:
    with pytest.raises(InputError, match="no missing vectors"):
        to_matrix(pa.array([[1.0, 2.0], None], pa.list_(pa.float32(), 2)), "item_vectors")
    with pytest.raises(InputError, match="fixed_size_list"):
        to_matrix(pa.array([[1.0, 2.0]], pa.list_(pa.float32())), "item_vectors")


def test_prepare_vectors_scales_even_tiny_vectors_to_unit_length() -> None:
    for vectors in (np.array([[3.0, 4.0]]), np.array([[3e-30, 4e-30]], np.float32)):
        np.testing.assert_allclose(prepare_vectors(vectors, Metric.COSINE), [[0.6, 0.8]], rtol=1e-6)
    for metric in (Metric.IP, Metric.L2):
        assert prepare_vectors(np.array([[3.0, 4.0]]), metric).tolist() == [[3, 4]]


def test_check_vectors_names_unusable_vectors() -> None:
    users = np.ones((8, 2), np.float32)
    users[[1, 2, 3, 4, 5, 6]] = np.nan
    with pytest.raises(InputError, match=r"6 of 8 not finite .*: u1, u2, u3, u4, u5, \.\.\."):
        check_vectors("user", users, pa.array([f"u{i}" for i in range(8)]))
    items = np.ones((3, 2), np.float32)
    items[2] = 0
    items[0, 1] = np.inf
    with pytest.raises(InputError) as error:
        check_vectors("item", items, None)
    text = str(error.value)
    assert "1 of 3 all zeros: row 2" in text
    assert "1 of 3 not finite (NaN or infinity): row 0" in text


def test_check_vectors_refuses_other_widths_and_an_empty_corpus() -> None:
    for users in (np.ones((2, 3)), np.ones(4)):
        with pytest.raises(InputError, match="against items of width 4"):
            check_vectors("user", users, None, width=4)
    with pytest.raises(InputError, match="item vectors: expected at least one"):
        check_vectors("item", np.ones((0, 3)), None)
