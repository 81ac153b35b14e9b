"""`has_repeated` finds repeated ids."""

import pyarrow as pa
import pytest

from dssm_assets.core import schema
from dssm_assets.core.schema import has_repeated


@pytest.mark.parametrize("block_rows", [1, 2, 1000])
@pytest.mark.parametrize("kind", [pa.int64(), pa.string()])
def test_has_repeated_finds_a_repeated_id_at_any_position(monkeypatch, kind, block_rows):
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
