"""Every item once, whatever is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.losses.loss_terms import log_expected_counts
from dssm_assets.core.models.samplers.all_items import AllItemsSampler


@pytest.mark.parametrize("count", [0, 2, 9])
def test_every_item_once(count: int) -> None:
    items, probability = AllItemsSampler(3).draw(count, np.random.default_rng(0))
    assert items.tolist() == [0, 1, 2]
    assert probability.tolist() == [1 / 3] * 3
    # Expected once each, so nothing is to be corrected.
    assert log_expected_counts(probability, len(items), 1.0) == pytest.approx([0.0] * 3, abs=1e-7)


def test_an_empty_corpus_is_refused() -> None:
    with pytest.raises(SchemaError, match="table items: expected at least one item"):
        AllItemsSampler(0)
