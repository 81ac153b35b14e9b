"""The best columns of sparse rows are those of the dense selection, ties, exclusions and short rows included."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from dssm_assets.core.retrieval.exact import top_k_scores
from dssm_assets.core.retrieval.exclusions import Exclusions
from dssm_assets.core.retrieval.sparse_ranking import best_columns


def test_ties_go_to_the_lower_column_and_what_is_not_above_0_is_left_out() -> None:
    matrix = sp.csr_matrix(np.array([[0.5, 2.0, 0.5, 0.5], [0.0, -1.0, 0.0, 0.0]]))
    best = best_columns(matrix, 2)
    assert best.lengths.tolist() == [2, 0]
    assert best.columns.tolist() == [1, 0]
    assert best.values.tolist() == [2.0, 0.5]
    assert best.lists(3).tolist() == [[1, 0, -1], [-1, -1, -1]]


def test_values_that_float32_cannot_tell_apart_are_told_apart() -> None:
    above = 1.0 + 1e-12
    assert np.float32(above) == np.float32(1.0)
    matrix = sp.csr_matrix(np.array([[1.0, 1.0, above, 1.0]]))
    assert best_columns(matrix, 1).columns.tolist() == [2]
    assert best_columns(matrix, 2).columns.tolist() == [2, 0]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_it_is_the_dense_selection(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, 14))
    values = st.sampled_from([0.0, 0.0, 0.25, 0.5, 0.5 + 1e-13, 3.0])
    dense = np.array(data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=rows, max_size=rows)))
    banned = [sorted(data.draw(st.sets(st.integers(0, columns - 1)))) for _ in range(rows)]
    indptr = np.cumsum([0] + [len(row) for row in banned])
    excluded = Exclusions(indptr, np.array([item for row in banned for item in row], dtype=np.int64))
    expected, _ = top_k_scores(np.where(dense > 0, dense, -np.inf), k, excluded)
    assert best_columns(sp.csr_matrix(dense), k, excluded).lists(k).tolist() == expected.tolist()
