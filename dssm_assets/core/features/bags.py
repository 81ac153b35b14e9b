"""Bags: the several category texts of each row, as flat texts plus row bounds.

Belongs here: keeping the first n of a row, and the default of a row without any. Does not belong here: where the
texts come from (`text_values.py`, `operators/`).
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from dssm_assets.core.features import lists, text_values
from dssm_assets.core.features.lists import Mask, Offsets


def first_mask(offsets: Offsets, count: int | None) -> Mask:
    """Returns which elements are among the first `count` of their row; all of them for 0 or None."""
    if not count:
        return np.ones(int(offsets[-1]), dtype=bool)
    mask: Mask = np.arange(int(offsets[-1])) - np.repeat(offsets[:-1], np.diff(offsets)) < count
    return mask


def first(texts: pa.Array, offsets: Offsets, count: int | None) -> tuple[pa.Array, Offsets]:
    """Returns the first `count` texts of each row and their bounds; everything for 0 or None."""
    return lists.keep(texts, offsets, first_mask(offsets, count)) if count else (texts, offsets)


def with_default(texts: pa.DictionaryArray, offsets: Offsets, default: str) -> tuple[pa.DictionaryArray, Offsets]:
    """Returns the texts with the default as the one value of each empty row; an empty default leaves them empty."""
    lengths = np.diff(offsets)
    if not default or lengths.all():
        return texts, offsets
    dictionary = pa.concat_arrays([texts.dictionary, pa.array([default], pa.string())])
    codes = np.insert(text_values.codes_of(texts), offsets[:-1][lengths == 0], len(dictionary) - 1)
    filled = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), dictionary)
    return filled, lists.offsets_of(np.maximum(lengths, 1))


def first_or_default(texts: pa.DictionaryArray, offsets: Offsets, default: str) -> pa.DictionaryArray:
    """Returns the first text of each row as one category, the default (or null for "") where there is none."""
    has_value = np.diff(offsets) > 0
    codes = np.append(text_values.codes_of(texts), 0)[np.where(has_value, offsets[:-1], len(texts))]
    alone = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=~has_value), _never_empty(texts.dictionary))
    return text_values.fill_text(alone, default)


def _never_empty(dictionary: pa.Array) -> pa.Array:
    return dictionary if len(dictionary) else pa.array([""], pa.string())
