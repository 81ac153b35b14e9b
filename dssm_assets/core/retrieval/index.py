"""Builds the bundle's FAISS index: chooses its kind and search depth, and measures its recall against exact search.

Vectors are compared by inner product. The vectors of a cosine model have unit length.

One parameter of an approximate index trades time for recall: HNSW's number of kept candidates (efSearch), or IVF's number of
visited cells (nprobe). It is raised until the index reaches the required recall or searches the whole corpus. So the bundle
has the fastest sufficient setting, and its measured recall.

IVF compares codes of 4 bits for each pair of dimensions, 32 or more at a time (FAISS's fast scan; Andre, Kermarrec, Le
Scouarnec: Cache locality is not enough, VLDB 2015). A code describes an item's difference from the centre of its cell. The
best few times k items are then scored again by their vectors.

An item counts as found if its exact score reaches the score of the k-th best item, because equal scores are equally right.

Shapes: I items, U users, D vector dimension, K list length.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import faiss
import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.config.evaluation import IndexKind, Serving
from dssm_assets.core.retrieval.item_filter import AllowedItems
from dssm_assets.core.retrieval.vectors import Vectors, vector_lengths

FLAT_MAX_ITEMS: Final = 50_000
"""Up to so many items, the kind `auto` compares every item."""
HNSW_NEIGHBORS: Final = 32
HNSW_EF_CONSTRUCTION: Final = 100
IVF_ITEMS_PER_CELL: Final = 39
"""FAISS asks for at least 39 training vectors per cell."""
IVF_TRAIN_PER_CELL: Final = 64
IVF_FEWEST_CELLS_FRAC: Final = 64
"""At least 1 / 64 of the cells is searched."""
RESCORE_FACTORS: Final = (3, 4, 5, 6, 8)
"""Factors to try: factor * (k + RESCORED_MORE) items are scored again by their vectors. Worse codes need a higher factor."""
RESCORED_MORE: Final = 20
"""Short lists need relatively more: of a million items' 10 best, the 40 best by code contain .83, and the 80 best .93."""
_CELL_COST: Final = 400
"""Opening a cell takes as long as comparing about so many codes (measured: .36 us and .9 ns, 64 dimensions)."""
_RESCORED_COST: Final = 145
"""Scoring an item by its vector takes as long as comparing so many codes, because vectors are scattered in memory."""
_CODES: Final = 16
_BLOCK_USERS: Final = 2048
_ROUNDING: Final = 1e-6


@dataclass(frozen=True)
class ShippedIndex:
    """An index and its measured recall.

    Attributes:
        index: the index, ready to be searched and written.
        parameters: the parameters of building and searching it.
        recall_at: k -> fraction of the exact lists that the index finds.
    """

    index: Any
    kind: str
    parameters: Mapping[str, int]
    recall_at: Mapping[int, float]

    @property
    def lowest_recall(self) -> float:
        return min(self.recall_at.values())


def choose_kind(item_count: int, settings: Serving) -> IndexKind:
    """Returns the configured kind of index. For `auto`, the size of the corpus decides between flat and ivf."""
    if settings.index is not IndexKind.AUTO:
        return settings.index
    return IndexKind.FLAT if item_count <= FLAT_MAX_ITEMS else IndexKind.IVF


def ship_index(item_vectors: Vectors, user_vectors: Vectors, ks: Sequence[int], settings: Serving, seed: int) -> ShippedIndex:
    """Returns an index over the items, tuned and measured with the users' vectors.

    Args:
        item_vectors: float32 [I, D], in the order of the index's rows; at least one.
        user_vectors: vectors of a sample of users, float32 [U, D]; at least one.
        ks: list lengths to measure the recall at, capped at the number of items.
        seed: seed for the choice of training vectors and for k-means.
    """
    kind = choose_kind(len(item_vectors), settings)
    index, parameters = _build_index(item_vectors, kind, seed)
    reachable = sorted({min(k, len(item_vectors)) for k in ks})
    bars = kth_best(item_vectors, user_vectors, reachable)

    @cache
    def measure(depth: tuple[int, int], k: int) -> float:
        _set_depth(index, kind, parameters, depth)
        return recall_at(index, item_vectors, user_vectors, {k: bars[k]})[k]

    def is_enough(depth: tuple[int, int]) -> bool:
        return all(measure(depth, k) >= settings.min_index_recall for k in reachable)

    if kind is IndexKind.IVF:
        chosen = choose_probes(len(item_vectors), parameters["cells"], reachable, is_enough)
    else:
        depths = _depths(kind, len(item_vectors), reachable[-1])
        chosen = next((depth for depth in depths if is_enough(depth)), depths[-1])
    # A list cannot be longer than the corpus.
    recall_of_ks = {k: measure(chosen, min(k, len(item_vectors))) for k in ks}
    return ShippedIndex(index, _NAMES[kind], _set_depth(index, kind, parameters, chosen), recall_of_ks)


def search_index(
    index: Any, vectors: Vectors, k: int, allowed: AllowedItems | None = None
) -> tuple[Vectors, NDArray[np.int64]]:
    """Returns scores and rows [V, K] of the items nearest to vectors [V, D]; row -1 if the index found too few.

    With a filter, an approximate index searches deeper in proportion, so that it meets as many allowed items as without filter.
    """
    typed: Any = faiss  # faiss's stubs lack keyword arguments
    selector = None if allowed is None else typed.IDSelectorBitmap(allowed.bits)
    times = 1.0 if allowed is None else index.ntotal / max(allowed.count, 1)
    params = None
    if isinstance(index, faiss.IndexRefine):
        cells = typed.downcast_index(index.base_index)
        probes = cells.nprobe if allowed is None else min(int(cells.nprobe * times) + 1, cells.nlist)
        inner = typed.SearchParametersIVF(sel=selector, nprobe=probes)
        factor = index.k_factor * (k + RESCORED_MORE) / k
        params = typed.IndexRefineSearchParameters(k_factor=factor, base_index_params=inner)
    elif allowed is not None and isinstance(index, faiss.IndexHNSW):
        params = typed.SearchParametersHNSW(sel=selector, efSearch=min(int(index.hnsw.efSearch * times) + 1, index.ntotal))
    elif allowed is not None and isinstance(index, faiss.IndexIVF):  # in bundles of earlier versions
        params = typed.SearchParametersIVF(sel=selector, nprobe=min(int(index.nprobe * times) + 1, index.nlist))
    elif allowed is not None:
        params = typed.SearchParameters(sel=selector)
    scores, rows = index.search(vectors, k, params=params)
    return scores, rows


def kth_best(item_vectors: Vectors, user_vectors: Vectors, ks: Sequence[int]) -> dict[int, Vectors]:
    """Returns k -> the exact score of each user's k-th best item [U]. No k may exceed the number of items."""
    scores, _ = faiss.knn(user_vectors, item_vectors, max(ks), metric=faiss.METRIC_INNER_PRODUCT)
    return {k: scores[:, k - 1] for k in ks}


def recall_at(index: Any, item_vectors: Vectors, user_vectors: Vectors, bars: Mapping[int, Vectors]) -> dict[int, float]:
    """Returns k -> mean fraction of the k listed items that score at least as high as the user's k-th best item.

    Empty positions (-1) and repeated items count as not found.

    Args:
        index: an index that `search_index` can search.
        item_vectors: [I, D].
        user_vectors: [U, D].
        bars: k -> score of each user's k-th best item [U], from `kth_best`.
    """
    found = dict.fromkeys(bars, 0)
    longest = (float(vector_lengths(vectors).max(initial=0.0)) for vectors in (item_vectors, user_vectors))
    slack = _ROUNDING * max(1.0, math.prod(longest))
    for start in range(0, len(user_vectors), _BLOCK_USERS):
        users = user_vectors[start : start + _BLOCK_USERS]
        for k, bar in bars.items():
            rows = np.sort(search_index(index, users, k)[1], axis=1)  # [B, K], repeated items next to each other
            scores = np.einsum("bd,bkd->bk", users, item_vectors[np.maximum(rows, 0)])
            scores[(rows < 0) | (np.diff(rows, axis=1, prepend=-1) == 0)] = -np.inf
            found[k] += int((scores >= bar[start : start + len(users), None] - slack).sum())
    return {k: count / (k * len(user_vectors)) for k, count in found.items()}


_NAMES: Final = {IndexKind.FLAT: "Flat", IndexKind.HNSW: "HNSW", IndexKind.IVF: "IVF"}


def _build_index(items: Vectors, kind: IndexKind, seed: int) -> tuple[Any, dict[str, int]]:
    width = items.shape[1]
    if kind is IndexKind.FLAT:
        flat = faiss.IndexFlatIP(width)
        flat.add(items)
        return flat, {}
    if kind is IndexKind.HNSW:
        graph = faiss.IndexHNSWFlat(width, HNSW_NEIGHBORS, faiss.METRIC_INNER_PRODUCT)
        graph.hnsw.efConstruction = HNSW_EF_CONSTRUCTION
        graph.add(items)
        return graph, {"neighbors": HNSW_NEIGHBORS, "ef_construction": HNSW_EF_CONSTRUCTION}
    cells = _cell_count(len(items))
    quantizers = width // 2 if width % 2 == 0 else width
    inverted = faiss.IndexIVFPQFastScan(faiss.IndexFlatIP(width), width, cells, quantizers, 4, faiss.METRIC_INNER_PRODUCT)
    inverted.by_residual = True
    inverted.cp.seed = inverted.pq.cp.seed = seed
    inverted.cp.max_points_per_centroid = IVF_TRAIN_PER_CELL
    chosen = np.random.default_rng(seed).permutation(len(items))[: cells * IVF_TRAIN_PER_CELL]
    refined = faiss.IndexRefineFlat(inverted)
    refined.train(np.resize(items[np.sort(chosen)], (max(len(chosen), _CODES), width)))
    refined.add(items)
    return refined, {"cells": cells}


def _cell_count(item_count: int) -> int:
    """Returns about 4 sqrt(I) cells, rounded to a power of two, and at most one cell per IVF_ITEMS_PER_CELL items."""
    wanted = 4 * item_count**0.5
    most = max(1, item_count // IVF_ITEMS_PER_CELL)
    return int(2 ** int(np.floor(np.log2(max(1.0, min(wanted, most))))))


def _depths(kind: IndexKind, item_count: int, longest: int) -> list[tuple[int, int]]:
    """Returns the search depths to try for HNSW; for Flat only the whole corpus. Neither rescores items."""
    found = [item_count if kind is IndexKind.FLAT else min(item_count, longest)]
    while found[-1] < item_count:
        found.append(min(2 * found[-1], item_count))
    return [(depth, 1) for depth in found]


def choose_probes(
    item_count: int, cells: int, ks: Sequence[int], is_enough: Callable[[tuple[int, int]], bool]
) -> tuple[int, int]:
    """Returns the number of cells to search in an IVF index, and its rescore factor: the fastest sufficient pair.

    Bisection finds the fewest cells that are enough with the highest factor. While not even all cells are, the factor is
    doubled. More cells may need less rescoring, so nearby pairs are tried, the fastest first.
    """
    fewest = max(1.0, cells / IVF_FEWEST_CELLS_FRAC)
    steps = [number for number in range(2 * cells.bit_length()) if round(fewest * 2 ** (number / 2)) < cells]
    grid = [*(round(fewest * 2 ** (number / 2)) for number in steps), cells]
    factors, lacking = list(RESCORE_FACTORS), list[tuple[int, int]]()
    # Fewer cells are tried before all cells, whose search takes longest.
    while (at := bisect_left(grid, True, key=lambda number: is_enough((number, factors[-1])))) == len(grid):
        lacking.append((cells, factors[-1]))
        if factors[-1] * ks[0] >= item_count:
            return cells, factors[-1]
        factors.append(2 * factors[-1])

    def cost(depth: tuple[int, int]) -> float:
        return depth[0] * (_CELL_COST + item_count / cells) + _RESCORED_COST * depth[1] * (ks[-1] + RESCORED_MORE)

    probes = sorted({min(round(grid[at] * 2 ** (number / 4)), cells) for number in range(-1, 5)})
    for depth in sorted(((probe, factor) for probe in probes for factor in factors), key=cost):
        if any(depth[0] <= probe and depth[1] <= factor for probe, factor in lacking):
            continue
        if is_enough(depth):
            return depth
        lacking.append(depth)
    return grid[at], factors[-1]


def _set_depth(index: Any, kind: IndexKind, parameters: Mapping[str, int], depth: tuple[int, int]) -> dict[str, int]:
    if kind is IndexKind.HNSW:
        index.hnsw.efSearch = depth[0]
        return {**parameters, "ef_search": depth[0]}
    if kind is IndexKind.IVF:
        typed: Any = faiss  # as above
        typed.downcast_index(index.base_index).nprobe, index.k_factor = depth
        return {**parameters, "probes": depth[0], "rescore_factor": depth[1]}
    return dict(parameters)
