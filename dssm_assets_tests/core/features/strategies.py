"""Hostile input columns for the property tests of operators."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

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

_booleans = st.one_of(st.none(), st.booleans())
_maps = st.one_of(st.none(), st.lists(st.tuples(texts.filter(lambda text: text is not None), floats), max_size=4))


def _lists_of(values: SearchStrategy[object]) -> SearchStrategy[object]:
    return st.one_of(st.none(), st.lists(values, max_size=4))


COLUMNS: dict[pa.DataType, SearchStrategy[object]] = {
    pa.string(): texts,
    pa.float64(): floats,
    pa.int64(): integers,
    pa.bool_(): _booleans,
    pa.null(): st.none(),
    pa.list_(pa.string()): _lists_of(texts),
    pa.large_list(pa.float64()): _lists_of(floats),
    pa.list_(pa.bool_()): _lists_of(_booleans),
}
MAPS: dict[pa.DataType, SearchStrategy[object]] = {pa.map_(pa.string(), pa.float64()): _maps}


@st.composite
def columns_of(
    draw: st.DrawFn, count: int, values: dict[pa.DataType, SearchStrategy[object]] = COLUMNS
) -> tuple[pa.Array, ...]:
    """Draws columns of as many rows each; a text column may be a dictionary."""
    types = [draw(st.sampled_from(list(values))) for _ in range(count)]
    rows = draw(st.lists(st.tuples(*(values[arrow_type] for arrow_type in types)), max_size=8))
    arrays = [pa.array([row[i] for row in rows], arrow_type) for i, arrow_type in enumerate(types)]
    return tuple(
        array.dictionary_encode() if pa.types.is_string(array.type) and draw(st.booleans()) else array for array in arrays
    )
