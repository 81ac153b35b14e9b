"""A shipped index with some vectors replaced and others appended, without building it again.

Flat and IVF are as if built from the new vectors (IVF with its former cells and codebooks). HNSW has no removal: a replaced vector gets new
neighbours in the lowest layer of the graph and becomes one of theirs, so that it is found where it is now. What a search misses
then has to be measured again, as for any graph.

Shapes: I items, D vector dimension.
"""

from __future__ import annotations

from typing import Any, Final

import faiss as typed_faiss
import numpy as np

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.retrieval.vectors import Vectors

faiss: Any = typed_faiss  # its stubs lack classes and keyword arguments

MAX_RELINKED_FRAC: Final = 0.05
"""A graph of which more is replaced is built again instead."""


def update_index(index: Any, vectors: Vectors, changed: IntArray) -> bool:
    """Makes an index one of these vectors; returns False, with the index as it was, if it should be built again.

    Args:
        index: of the first `index.ntotal` rows, with other vectors at `changed`.
        vectors: [I, D], float32; the rows from `index.ntotal` on are appended.
        changed: rows below `index.ntotal` with another vector than the index has.
    """
    count, cells, stored, is_graph = index.ntotal, None, index, False
    if isinstance(index, faiss.IndexRefine):
        cells, stored = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
        if not isinstance(cells, faiss.IndexIVF):
            return False
    elif isinstance(index, faiss.IndexHNSWFlat):
        is_graph = True
        stored = faiss.downcast_index(index.storage)
    if not isinstance(stored, faiss.IndexFlat) or (is_graph and len(changed) > MAX_RELINKED_FRAC * count):
        return False
    if len(changed) and cells is not None:
        cells.remove_ids(faiss.IDSelectorBatch(changed))
        cells.add_with_ids(vectors[changed], changed)
    faiss.rev_swig_ptr(stored.get_xb(), count * index.d).reshape(count, index.d)[changed] = vectors[changed]
    if len(vectors) > count:
        index.add(vectors[count:])
    if is_graph and len(changed):
        _link_again(index, vectors, changed)
    return True


def _link_again(index: Any, vectors: Vectors, changed: IntArray) -> None:
    """Gives rows of a graph the neighbours of their new vectors in its lowest layer, and those neighbours the rows."""
    graph = index.hnsw
    width = graph.nb_neighbors(0)
    offsets = faiss.rev_swig_ptr(graph.offsets.data(), graph.offsets.size())
    links = faiss.rev_swig_ptr(graph.neighbors.data(), graph.neighbors.size())
    depth = faiss.SearchParametersHNSW(efSearch=max(graph.efConstruction, graph.efSearch))
    _, found = index.search(vectors[changed], width // 2 + 1, params=depth)
    for row, nearest in zip(changed.tolist(), found, strict=True):
        neighbors = nearest[(nearest >= 0) & (nearest != row)]
        own = links[offsets[row] : offsets[row] + width]
        own[:] = -1
        own[: len(neighbors)] = neighbors
        for neighbor in neighbors.tolist():
            theirs = links[offsets[neighbor] : offsets[neighbor] + width]
            if row in theirs:
                continue
            free = np.flatnonzero(theirs < 0)
            # Without a free place, the least similar of its neighbours makes room.
            place = free[0] if len(free) else int((vectors[theirs] @ vectors[neighbor]).argmin())
            theirs[place] = row
