"""Small parts of a bundle: the fg.json with the files that it names, renamed by their content, and the popular items."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.columns import COUNT, ITEM_ID
from dssm_assets.core.features.fg_files import ReadFile, rename_files
from dssm_assets.core.features.spec import parse_fg

PACKED_FOLDER: Final = "fg_files"


def pack_fg(raw: Mapping[str, Any], read_file: ReadFile) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Returns the definitions with the new path of every file that they name, and path -> content of those files.

    Any path, absolute or above the fg.json too, becomes `fg_files/<digest>-<name>`.

    Raises:
        FeatureSpecError: the definitions are wrong, or a file cannot be read.
    """
    contents: dict[str, bytes] = {}

    def read_and_record(name: str) -> bytes:
        contents[name] = read_file(name)
        return contents[name]

    parse_fg(raw, read_file=read_and_record)
    paths = {name: _packed_path(name, content) for name, content in contents.items()}
    renamed = rename_files(dict(raw), lambda name: paths.get(name, name))
    return renamed, {paths[name]: content for name, content in contents.items()}


def _packed_path(name: str, content: bytes) -> str:
    return f"{PACKED_FOLDER}/{hashlib.sha256(content).hexdigest()[:12]}-{name.rpartition('/')[2]}"


def rank_popular_items(positive_counts: pa.Table, item_index: IdIndex) -> pa.Table:
    """Returns item_id, count of the corpus items with a positive event: by count, descending, then by id.

    Args:
        positive_counts: item_id, count, one row per item.
        item_index: the corpus; other items cannot be recalled and are left out.
    """
    rows = item_index.lookup(positive_counts.column(ITEM_ID), where=f"positive counts, column {ITEM_ID}")
    counts = positive_counts.column(COUNT).to_numpy()
    kept = np.flatnonzero((rows >= 0) & (counts > 0))
    table = pa.table({ITEM_ID: item_index.ids.take(pa.array(rows[kept])), COUNT: pa.array(counts[kept].astype(np.int64))})
    order = pc.sort_indices(table, [(COUNT, "descending"), (ITEM_ID, "ascending")])
    return table.take(order).combine_chunks()
