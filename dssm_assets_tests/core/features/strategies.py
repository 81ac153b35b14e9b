"""Hostile input columns for the property tests of operators."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import strategies as st

from dssm_assets.testing import HOSTILE_TEXTS

texts = st.one_of(st.none(), st.sampled_from(HOSTILE_TEXTS), st.text(max_size=6))
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
