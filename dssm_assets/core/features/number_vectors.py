"""Vectors of numbers: the several numbers of each row, as flat numbers plus row bounds.

Belongs here: reading lists and joined texts of numbers. Does not belong here: what the number of one value is
(`number_values.py`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.features import lists, number_values, text_values
from dssm_assets.core.features.lists import Offsets
from dssm_assets.core.features.number_values import Numbers


def number_vectors(array: pa.Array, separator: str, where: str) -> tuple[Numbers, Offsets]:
    """Returns the numbers of every row and their row bounds; a place without a number keeps its place as NaN.

    An element of a list is one number. A text holds numbers joined by the separator; a missing or empty one holds
    none. Any other column holds one number per row, none where it is missing.

    Raises:
        SchemaError: if the elements have no number, such as dates.
    """
    if lists.is_list(array.type):
        flat, offsets = lists.flatten(array)
        return number_values.number_values(flat, where), offsets
    texts = text_values.text_values(array, where)
    present = ~lists.null_mask(texts.indices)
    texts, offsets = lists.keep(texts, np.arange(len(array) + 1, dtype=np.int64), present)
    parts, part_offsets = lists.flatten(pc.split_pattern(texts.dictionary, separator))
    numbers = number_values.number_values(parts, where)
    codes = text_values.codes_of(texts)
    lengths = np.diff(part_offsets)[codes]
    return numbers[lists.ranges(part_offsets[codes], lengths)], lists.offsets_of(lengths)[offsets]
