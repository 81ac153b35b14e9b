"""Whether an id stands twice."""

import pyarrow as pa
import pytest

from dssm_assets.core import schema
from dssm_assets.core.schema import has_repeated


@pytest.mark.parametrize("block_rows", [1, 2, 1000])
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_it_is_seen_wherever_the_two_stand(monkeypatch, kind, block_rows):
    monkeypatch.setattr(schema, "_BLOCK_ROWS", block_rows)
    for ids, expected in [
        ([], False),
        ([7], False),
        ([3, 1, 2], False),
        ([3, 1, 3], True),
        ([1, 2, 3, 4, 4], True),
        ([5, 5], True),
    ]:
        assert has_repeated(pa.array(ids, pa.int64()).cast(kind)) is expected, ids
