"""The weight of a sample by event and age, by hand."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.samples.sample_weights import SampleWeights

ROWS = pa.table({"event": ["buy", "click", "like", "buy"]})


def test_by_event() -> None:
    weights = SampleWeights({"buy": 3.0, "like": 0.5}).of(ROWS, 0)
    assert weights.dtype == np.float32
    assert weights.tolist() == [3.0, 1.0, 0.5, 3.0]
    encoded = pa.table({"event": ROWS["event"].dictionary_encode()})
    assert SampleWeights({"buy": 3.0}).of(encoded, 0).tolist() == [3.0, 1.0, 1.0, 3.0]


def test_by_age() -> None:
    # Of a window of 5 days, day 4 is the eve (age 1) and day 2 lies 3 days before the evaluation day.
    weights = SampleWeights({"buy": 3.0}, half_life_days=2.0, window_days=5)
    assert weights.of(ROWS, 2).tolist() == pytest.approx([3 * 2**-1.5, 2**-1.5, 2**-1.5, 3 * 2**-1.5])
    assert weights.of(ROWS, 4)[1] / weights.of(ROWS, 2)[1] == pytest.approx(2.0)


def test_without_either_all_count_alike_and_no_event_is_read() -> None:
    assert SampleWeights().columns == []
    assert SampleWeights().of(ROWS.drop_columns(["event"]), 3).tolist() == [1.0] * 4
    assert SampleWeights({"buy": 2.0}).columns == ["event"]
    with pytest.raises(SchemaError, match="column event"):
        SampleWeights({"buy": 2.0}).of(ROWS.rename_columns(["other"]), 0)


def test_the_oldest_sample_has_a_weight() -> None:
    assert (SampleWeights(half_life_days=0.01, window_days=400).of(ROWS, 0) > 0).all()
