"""Vectors so long that float32 products overflow are searched by the definition alone."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.retrieval import candidates
from dssm_assets.core.retrieval.exact import top_k
from dssm_assets.core.retrieval.metrics import Metric


def test_a_product_that_is_infinity_minus_infinity_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    # 3e19 * 3e19 - 3e19 * 2.97e19 = 9e36 is a float32; both products are not. The sample does not see the item.
    monkeypatch.setattr(candidates, "SAMPLED", 300)
    unseen = int(np.setdiff1d(np.arange(700), candidates.Sample(700, 1).rows)[0])
    items = np.full((700, 2), 1e-3, np.float32) * np.arange(1, 701)[:, None].astype(np.float32)
    items[unseen] = 3e19, -2.97e19
    index, scores = top_k(np.array([[3e19, 3e19]]), items, 1, similarity=Metric.IP)
    assert index.tolist() == [[unseen]]
    np.testing.assert_allclose(scores, [[9e36]], rtol=1e-3)
