"""Hostile input columns for the property tests of operators, and the distribution every operator obeys."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import strategies as st

from dssm_assets.core.features.operators.base import Operator

NASTY_TEXTS = ["", " ", "\x1d", "a\x1db", "\x1d\x1d", ":", "a:", ":1", "a:1", "a:b:2", "b:x", "nan", "inf", "-0", "1e999",
               " 7 ", "+3", "1,5", "0x1", "\0", "é", "a\x1da:1", "x" * 300]  # fmt: skip
texts = st.one_of(st.none(), st.sampled_from(NASTY_TEXTS), st.text(max_size=6))
floats = st.one_of(st.none(), st.floats(), st.sampled_from([0.0, -0.0, 1e300, -1e39, 2.0**63]))
integers = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1))

text_columns = st.lists(texts, max_size=12).map(lambda rows: pa.array(rows, pa.string()))
float_columns = st.lists(floats, max_size=12).map(lambda rows: pa.array(rows, pa.float64()))
integer_columns = st.lists(integers, max_size=12).map(lambda rows: pa.array(rows, pa.int64()))
boolean_columns = st.lists(st.one_of(st.none(), st.booleans()), max_size=12).map(lambda rows: pa.array(rows, pa.bool_()))
list_columns = st.lists(st.one_of(st.none(), st.lists(texts, max_size=5)), max_size=12).map(
    lambda rows: pa.array(rows, pa.list_(pa.string()))
)
single_columns = st.one_of(text_columns, float_columns, integer_columns, boolean_columns)


def rows_of(values: pa.Array) -> list[object]:
    """Returns the repr of each value, which distinguishes NaN from null."""
    return [repr(value) for value in values.to_pylist()]


def check_rows(operator: Operator, *columns: pa.Array) -> None:
    """Checks that a batch has the values of every row computed alone."""
    alone = [
        row for i in range(len(columns[0])) for row in rows_of(operator.compute([column[i : i + 1] for column in columns]))
    ]
    assert rows_of(operator.compute(columns)) == alone
