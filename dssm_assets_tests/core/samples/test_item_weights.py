"""The law of negatives' weights, by hand and through a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config import NegativeItems
from dssm_assets.core.samples.item_weights import law_of, weights_of, with_law


def test_weights_by_hand() -> None:
    counts = np.array([0, 3, 8])
    assert weights_of(counts, NegativeItems(alpha=0.5, smoothing=1)).tolist() == [1.0, 2.0, 3.0]
    assert weights_of(counts, NegativeItems(alpha=1, smoothing=0)).tolist() == [0.0, 3.0, 8.0]
    assert weights_of(counts, NegativeItems(alpha=0, smoothing=2)).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("law", [NegativeItems(alpha=0.6, smoothing=0.1), NegativeItems()])
def test_a_file_keeps_the_law(tmp_path: Path, law: NegativeItems) -> None:
    schema = with_law(pa.schema({"weight": pa.float64()}), law)
    with pa.OSFile(str(tmp_path / "items.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(pa.table([[1.0, 2.0]], schema=schema))
    read = pa.ipc.open_file(pa.memory_map(str(tmp_path / "items.arrow"), "r")).read_all()
    assert law_of(read.schema) == law
    assert law_of(read.schema.remove_metadata()) is None
