"""Encoding rows of few different inputs: each combination of inputs once, and its features wherever it comes again.

What is known of a request (the page, the hour) is such: millions of samples, some hundred combinations. Every row is
computed from itself alone, so the result is that of encoding all rows.

Belongs here: finding the combinations. Does not belong here: encoding (`generator.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.types as pat

from dssm_assets.core.features import lists
from dssm_assets.core.features.expressions import Side
from dssm_assets.core.features.generator import FeatureGenerator

_MOST_FRAC: Final = 0.25
"""Combinations per row up to which it pays to look for them."""

Places = np.ndarray[Any, np.dtype[np.int64]]


def encode_distinct(generator: FeatureGenerator, table: pa.Table, side: str) -> pa.Table:
    """Returns what `generator.encode(table, side)` returns, at the cost of the different rows where they are few.

    Args:
        generator: what encodes.
        table: the input columns.
        side: "user", "item" or "context".

    Raises:
        SchemaError: as `FeatureGenerator.encode`.
    """
    features = generator.spec.of_side(Side(side))
    inputs = sorted({name for feature in features for name in feature.inputs})
    is_plain = bool(inputs) and set(inputs) <= set(table.column_names) and all(f.sequence is None for f in features)
    columns = [lists.one_array(table.column(name)) for name in inputs] if is_plain else []
    codes = _combinations(columns)
    if codes is None:
        return generator.encode(table, side=side)
    rows = np.zeros(int(codes.max(initial=-1)) + 1, np.int64)
    rows[codes] = np.arange(len(codes))
    different = pa.table(columns, names=inputs).take(pa.array(rows))
    return generator.encode(different, side=side).take(pa.array(codes))


def _combinations(columns: Sequence[pa.Array]) -> Places | None:
    """Returns the number of each row's combination of values, 0 upwards; None: too many, or not worth looking for."""
    codes: Places | None = None
    for column in columns:
        kind = column.type.value_type if pat.is_dictionary(column.type) else column.type
        # Of floats equal numbers may be different inputs: 0.0 and -0.0.
        if not (pat.is_integer(kind) or pat.is_string(kind)):
            return None
        encoded = column if pat.is_dictionary(column.type) else column.dictionary_encode()
        size = len(encoded.dictionary) + 1  # the last one is null
        own = encoded.indices.cast(pa.int64()).fill_null(size - 1).to_numpy()
        both = pa.array(own if codes is None else codes * size + own).dictionary_encode()
        if len(both.dictionary) > _MOST_FRAC * len(column):
            return None
        codes = both.indices.cast(pa.int64()).to_numpy()
    return codes
