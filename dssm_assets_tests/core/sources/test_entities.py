"""Users and items made some rows at a time are the table sorted by id, whatever the pieces."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.sources import entities
from dssm_assets.core.sources.normalise import normalise_users


@pytest.mark.parametrize("is_sorted", [True, False])
@pytest.mark.parametrize("rows", [1, 3, 100])
def test_rows_are_those_of_the_sorted_table(monkeypatch: pytest.MonkeyPatch, rows: int, is_sorted: bool) -> None:
    monkeypatch.setattr(entities, "ROWS", rows)
    ids = np.arange(10, 27)
    if not is_sorted:
        ids = np.random.Generator(np.random.PCG64(1)).permutation(ids)
    whole = pa.table(
        {
            "town": pa.array([f"t{number}" for number in ids]).dictionary_encode(),
            "user_id": pa.array(ids, pa.int32()),
            "tags": pa.array([[int(number)] * (number % 3) for number in ids]),
            "nothing": pa.nulls(len(ids)),
        }
    )
    pieces = pa.concat_tables([whole.slice(start, 5).combine_chunks() for start in range(0, len(ids), 5)])
    found = normalise_users(pieces)
    assert [batch.num_rows for batch in found.batches()] == [min(rows, 17 - at) for at in range(0, 17, rows)]
    assert found.table.to_pylist() == [
        {"user_id": number, "town": f"t{number}", "tags": [number] * (number % 3), "nothing": None} for number in range(10, 27)
    ]
    assert found.table.schema.types == [pa.int64(), pa.string(), pa.list_(pa.int64()), pa.string()]
    assert found.counts == {"rows": 17}
