"""Sequences: columns of which each row holds elements in order, as lists or as joined text.

Belongs here: cutting a sequence column into elements and keeping the most recent ones. Does not belong here: what an
element becomes (`operators/`) and which inputs of a feature are sequences (`operators/sequence_feature.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.features import lists, text_values
from dssm_assets.core.features.lists import Offsets


def as_lists(array: pa.Array, delimiter: str, where: str) -> pa.Array:
    """Returns a column of lists: itself, or its texts cut at the delimiter. An empty text has no elements.

    Raises:
        SchemaError: if the column holds neither.
    """
    if lists.is_list(array.type):
        return array
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type) or pa.types.is_string_view(array.type)
    if pa.types.is_dictionary(array.type) or is_text or pa.types.is_null(array.type):
        texts = text_values.text_values(array, where)
        parts = pc.split_pattern(texts.dictionary, delimiter)
        is_null = lists.null_mask(array)
        is_empty = lists.null_mask(texts.indices)
        flat, offsets = lists.flatten(parts)
        codes = texts.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        lengths = np.where(is_empty, 0, np.append(np.diff(offsets), 0)[codes])
        starts = np.append(offsets, 0)[codes]
        return lists.build(flat.take(pa.array(lists.ranges(starts, lengths))), lists.offsets_of(lengths), is_null)
    raise SchemaError(Fault(where, "lists or text", str(array.type), "write one list per user"))


def kept(offsets: Offsets, length: int, is_oldest_first: bool) -> tuple[Any, Offsets]:
    """Returns the positions of each row's `length` most recent elements (all for 0) and their row bounds."""
    lengths = np.diff(offsets)
    if not length or not (lengths > length).any():
        return None, offsets
    fewer = np.minimum(lengths, length)
    starts = offsets[1:] - fewer if is_oldest_first else offsets[:-1]
    return lists.ranges(starts, fewer), lists.offsets_of(fewer)
