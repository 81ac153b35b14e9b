"""Vocabularies of categorical features: their values over the window in the order of frequency."""

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
    """Category counts of a window, grouped by feature; features that share an embedding are counted together."""

    def __init__(self, counts: pa.Table) -> None:
        """Groups the rows of a table feature, value_hash, count.

        Raises:
            SchemaError: the table is not a table of category counts.
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
        """True if the feature was counted."""
        return feature in self._slices

    def totals(self, features: Sequence[str]) -> tuple[int, int]:
        """Returns the number of values of the features including missing ones, and the number of missing ones."""
        total = sum(int(self._counts[self._slices[name]].sum()) for name in features)
        missing = sum(int(self._counts[self._slices[name]][self._is_missing[self._slices[name]]].sum()) for name in features)
        return total, missing

    def by_frequency(self, features: Sequence[str]) -> tuple[Int64s, Int64s]:
        """Returns the distinct hashes of all the features and their counts: most frequent first, then smaller hash."""
        present = [(self._slices[name], ~self._is_missing[self._slices[name]]) for name in features]
        hashes = np.concatenate([np.zeros(0, np.int64), *(self._hashes[rows][mask] for rows, mask in present)])
        counts = np.concatenate([np.zeros(0, np.int64), *(self._counts[rows][mask] for rows, mask in present)])
        distinct, position = np.unique(hashes, return_inverse=True)
        summed = np.zeros(len(distinct), dtype=np.int64)
        np.add.at(summed, position, counts)
        order = np.lexsort((distinct, -summed))
        return distinct[order], summed[order]

    def vocabulary(self, features: Sequence[str], min_count: int) -> Int64s:
        """Returns the hashes that occur at least min_count times in all the features, in the order of by_frequency."""
        hashes, counts = self.by_frequency(features)
        return hashes[counts >= min_count]
