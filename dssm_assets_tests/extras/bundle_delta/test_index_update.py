"""An index after an update finds what an index of the new vectors finds."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from dssm_assets.core.config.evaluation import Serving
from dssm_assets.core.retrieval.index import kth_best, recall_at, ship_index
from dssm_assets.extras.bundle_delta.index_update import update_index

USERS = np.random.default_rng(5).normal(size=(20, 8)).astype(np.float32)


@pytest.mark.parametrize(("kind", "least"), [("flat", 1.0), ("ivf", 0.95)])
def test_replaced_and_appended_vectors_are_found(kind: str, least: float) -> None:
    rng = np.random.default_rng(6)
    items = rng.normal(size=(2000, 8)).astype(np.float32)
    index = ship_index(items, USERS, [10], Serving(index=kind, min_index_recall=1), seed=1).index
    changed = np.array([3, 700, 1999])
    after = np.concatenate([items, rng.normal(size=(50, 8)).astype(np.float32)])
    after[changed] = 4 * USERS[:3]
    assert update_index(index, after, changed)
    assert index.ntotal == 2050
    assert index.search(USERS[:3], 1)[1][:, 0].tolist() == changed.tolist()
    assert recall_at(index, after, USERS, kth_best(after, USERS, [10]))[10] >= least
    appended = 6 * USERS[4:5]
    assert update_index(index, np.concatenate([after, appended]), np.zeros(0, np.int64))
    assert index.search(USERS[4:5], 1)[1][0, 0] == 2050


def test_an_index_of_another_kind_stays_as_it_was() -> None:
    items = np.random.default_rng(7).normal(size=(100, 8)).astype(np.float32)
    index = faiss.index_factory(8, "SQ8", faiss.METRIC_INNER_PRODUCT)
    index.train(items)
    index.add(items)
    assert not update_index(index, np.concatenate([items, items]), np.zeros(0, np.int64))
    assert index.ntotal == 100
