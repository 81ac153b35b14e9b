"""Vocabularies: the values of categorical features by frequency, from the window's counts.

Belongs here: looking counts up by feature, summing those of features that share an embedding, the order of a
vocabulary. Does not belong here: counting (`value_counts.py`) and what bucket a value gets (`bucketizer.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dssm_assets.core.arrays.ragged import combine_chunks, null_mask
from dssm_assets.core.columns import COUNT, FEATURE, VALUE_HASH
from dssm_assets.core.statistics.value_counts import CATEGORY_COUNTS, cast_counts

Int64s = np.ndarray[Any, np.dtype[np.int64]]


class FeatureCounts:
    """The window's category counts, grouped by feature once."""

    def __init__(self, counts: pa.Table) -> None:
        """Groups a table feature, value_hash, count.

        Raises:
            SchemaError: if the table is no table of category counts.
        """
        counts = cast_counts(counts, [CATEGORY_COUNTS])
        names = combine_chunks(counts.column(FEATURE)).dictionary_encode()
        hashes = combine_chunks(counts.column(VALUE_HASH))
        codes = names.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        self._hashes = hashes.fill_null(0).to_numpy()[order]
        self._is_missing = null_mask(hashes)[order]
        self._counts = combine_chunks(counts.column(COUNT)).to_numpy()[order]
        bounds = np.searchsorted(codes[order], np.arange(len(names.dictionary) + 1))
        self._slices = {name: slice(bounds[i], bounds[i + 1]) for i, name in enumerate(names.dictionary.to_pylist())}

    def __contains__(self, feature: str) -> bool:
        """Tells whether the feature was counted."""
        return feature in self._slices

    def totals(self, features: Sequence[str]) -> tuple[int, int]:
        """Returns how often the features had a value or none, and how often none."""
        total = sum(int(self._counts[self._slices[name]].sum()) for name in features)
        missing = sum(int(self._counts[self._slices[name]][self._is_missing[self._slices[name]]].sum()) for name in features)
        return total, missing

    def by_frequency(self, features: Sequence[str]) -> tuple[Int64s, Int64s]:
        """Returns the distinct hashes of the features together and their counts: most frequent first, then smaller hash."""
        present = [(self._slices[name], ~self._is_missing[self._slices[name]]) for name in features]
        hashes = np.concatenate([np.zeros(0, np.int64), *(self._hashes[rows][mask] for rows, mask in present)])
        counts = np.concatenate([np.zeros(0, np.int64), *(self._counts[rows][mask] for rows, mask in present)])
        distinct, position = np.unique(hashes, return_inverse=True)
        summed = np.zeros(len(distinct), dtype=np.int64)
        np.add.at(summed, position, counts)
        order = np.lexsort((distinct, -summed))
        return distinct[order], summed[order]

    def vocabulary(self, features: Sequence[str], min_count: int) -> Int64s:
        """Returns the hashes that the features had at least min_count times together, in the order of by_frequency."""
        hashes, counts = self.by_frequency(features)
        return hashes[counts >= min_count]
