"""A shipped index with some vectors replaced and others appended, without building it again.

Flat and IVF are as if built from the new vectors, IVF with its former cells and codebooks. HNSW has no removal, so it is built again.

Shapes: I items, D vector dimension.
"""

from __future__ import annotations

from typing import Any

import faiss as typed_faiss

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.retrieval.vectors import Vectors

faiss: Any = typed_faiss  # its stubs lack classes and keyword arguments


def update_index(index: Any, vectors: Vectors, changed: IntArray) -> bool:
    """Makes an index one of these vectors; returns False, with the index as it was, if it must be built again.

    Args:
        index: of the first `index.ntotal` rows, with other vectors at `changed`.
        vectors: [I, D], float32; the rows from `index.ntotal` on are appended.
        changed: rows below `index.ntotal` with another vector than the index has.
    """
    count, cells, stored = index.ntotal, None, index
    if isinstance(index, faiss.IndexRefine):
        cells, stored = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
        if not isinstance(cells, faiss.IndexIVF):
            return False
    if not isinstance(stored, faiss.IndexFlat):
        return False
    if len(changed) and cells is not None:
        cells.remove_ids(faiss.IDSelectorBatch(changed))
        cells.add_with_ids(vectors[changed], changed)
    faiss.rev_swig_ptr(stored.get_xb(), count * index.d).reshape(count, index.d)[changed] = vectors[changed]
    if len(vectors) > count:
        index.add(vectors[count:])
    return True
