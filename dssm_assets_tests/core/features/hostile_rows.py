"""Several hostile columns of one length, for the property tests of operators with several inputs."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from dssm_assets_tests.core.features import strategies as cases

_booleans = st.one_of(st.none(), st.booleans())
_maps = st.one_of(st.none(), st.lists(st.tuples(cases.texts.filter(lambda text: text is not None), cases.floats), max_size=4))


def _lists_of(values: SearchStrategy[object]) -> SearchStrategy[object]:
    return st.one_of(st.none(), st.lists(values, max_size=4))


COLUMNS: dict[pa.DataType, SearchStrategy[object]] = {
    pa.string(): cases.texts,
    pa.float64(): cases.floats,
    pa.int64(): cases.integers,
    pa.bool_(): _booleans,
    pa.null(): st.none(),
    pa.list_(pa.string()): _lists_of(cases.texts),
    pa.large_list(pa.float64()): _lists_of(cases.floats),
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
