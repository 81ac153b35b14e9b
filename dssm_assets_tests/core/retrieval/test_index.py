"""The kind by the size, the recall by hand, and searching deeper until the recall is there."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from dssm_assets.core.config.evaluation import IndexKind, Serving
from dssm_assets.core.retrieval.index import choose_kind, choose_probes, kth_best, recall_at, ship_index


def unit(count: int, seed: int, dims: int = 16) -> Any:
    rows = np.random.default_rng(seed).standard_normal((count, dims)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Fixed:
    """An index that always answers the same rows."""

    def __init__(self, rows: list[list[int]]) -> None:
        self._rows = np.array(rows, np.int64)

    def search(self, users: Any, k: int, params: Any = None) -> tuple[Any, Any]:
        return None, self._rows[: len(users), :k]


@pytest.mark.parametrize(
    ("count", "changes", "kind"),
    [
        (10, {}, IndexKind.FLAT),
        (50_000, {}, IndexKind.FLAT),
        (50_001, {}, IndexKind.IVF),
        (11, {"index": "ivf"}, IndexKind.IVF),
        (10**9, {"index": "flat"}, IndexKind.FLAT),
    ],
)
def test_index_kind_follows_corpus_size_unless_configured(count: int, changes: dict[str, Any], kind: IndexKind) -> None:
    assert choose_kind(count, Serving(**changes)) is kind


def test_recall_by_hand() -> None:
    # Scores of the one user: items 0..4 have 1, .8, .8, .5, 0. The second best score is .8, the third too.
    items = np.array([[1, 0], [0.8, 0.6], [0.8, -0.6], [0.5, 0.1], [0, 1]], np.float32)
    user = np.array([[1, 0]], np.float32)
    bars = kth_best(items, user, [2, 3])
    assert [bars[k].tolist() for k in (2, 3)] == [[pytest.approx(0.8)]] * 2
    # Item 2 ties with item 1, so [0, 2] is a right list of two.
    assert recall_at(Fixed([[0, 2, 1]]), items, user, bars) == {2: 1.0, 3: 1.0}
    assert recall_at(Fixed([[0, 3, 1]]), items, user, bars) == {2: 0.5, 3: pytest.approx(2 / 3)}
    assert recall_at(Fixed([[0, -1, -1]]), items, user, bars) == {2: 0.5, 3: pytest.approx(1 / 3)}
    assert recall_at(Fixed([[4, 3, -1]]), items, user, bars) == {2: 0.0, 3: 0.0}


def test_flat_index_finds_everything_also_after_reading_back() -> None:
    items, users = unit(500, 1), unit(40, 2)
    shipped = ship_index(items, users, [5, 50, 900], Serving(), seed=3)
    assert (shipped.kind, dict(shipped.parameters)) == ("Flat", {})
    # A list of 900 is longer than the corpus: recall is measured over the whole corpus.
    assert shipped.recall_at == {5: 1.0, 50: 1.0, 900: 1.0}
    again = faiss.deserialize_index(faiss.serialize_index(shipped.index))
    _, rows = again.search(users, 5)
    assert rows.tolist() == np.argsort(-(users @ items.T), axis=1)[:, :5].tolist()


@pytest.mark.parametrize(("kind", "name", "depth"), [("hnsw", "HNSW", "ef_search"), ("ivf", "IVF", "probes")])
def test_index_searches_deeper_until_recall_is_reached(kind: str, name: str, depth: str) -> None:
    items, users = unit(4000, 1, 32), unit(60, 2, 32)
    low, high = (ship_index(items, users, [10, 100], Serving(index=kind, min_index_recall=r), seed=3) for r in (0.0, 0.999))
    assert low.kind == high.kind == name
    assert low.parameters[depth] < high.parameters[depth]
    assert low.lowest_recall < high.lowest_recall
    assert high.lowest_recall >= 0.999
    assert high.recall_at == recall_at(high.index, items, users, kth_best(items, users, [10, 100]))


def test_more_cells_are_searched_where_that_spares_rescoring() -> None:
    def least(fewest: dict[int, int]) -> tuple[int, int]:
        """Returns the choice where each factor needs so many cells; those that are not named are never enough."""
        return choose_probes(1_000_000, 2048, [200], lambda depth: depth[0] >= fewest.get(depth[1], 4096))

    # 2048 cells of 488 items. 91 cells are the first of 64, 91, 128 that are enough with most rescoring:
    # 91 * (400 + 488) + 145 * 8 * 220 = 336,000; 108 with a factor of 4: 223,500; 129 with 5: 274,000; 108 with 5: 255,400.
    assert least({8: 80, 6: 85, 5: 90, 4: 100}) == (108, 4)
    assert least({8: 80, 6: 85, 5: 100}) == (108, 5)
    assert least({8: 80}) == (91, 8)
    # Up to twice the cells: 182 with 3: 257,300; more of them are not tried.
    assert least({8: 80, 3: 180}) == (182, 3)
    assert least({8: 80, 3: 190}) == (91, 8)
    # Where 8 is never enough, twice as many are rescored, and the cells are still as few as suffice.
    assert least({16: 100}) == (108, 16)
    # Up to all cells; then more are rescored.
    assert least({8: 1000}) == (1024, 8)
    assert least({16: 2048, 32: 2048}) == (2048, 16)


def test_ivf_over_all_cells_finds_everything_and_seed_sets_its_cells() -> None:
    items, users = unit(3000, 1), unit(20, 2)
    whole = ship_index(items, users, [10], Serving(index="ivf", min_index_recall=1.0), seed=3)
    assert whole.recall_at == {10: 1.0}
    assert whole.parameters["cells"] == 64  # 4 sqrt(3000) = 219, but 3000 / 39 = 76 items feed no more than 64
    settings = Serving(index="ivf")
    first, same, other = (faiss.serialize_index(ship_index(items, users, [10], settings, seed).index) for seed in (3, 3, 4))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_tiny_corpus_works_with_every_kind() -> None:
    items, users = unit(3, 1), unit(2, 2)
    for kind in IndexKind:
        assert ship_index(items, users, [10, 200], Serving(index=kind), seed=1).recall_at == {10: 1.0, 200: 1.0}, kind
