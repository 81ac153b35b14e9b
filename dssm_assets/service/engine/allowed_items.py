"""Finds the items that a list may contain, by the request's filters and the shop's lists (blocked, in stock). Reads item columns.

Shapes: I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, Final

import orjson
import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray, Mask, combine_chunks, map_leaves
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.item_filter import AllowedItems, mask_items

_KEPT: Final = 16
"""So many of the latest filters' results stay in memory, about 10 MB each for a million items."""
_FILTER_KEY: Final = orjson.OPT_SORT_KEYS | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
_REMEDY: Final = "name one of these, or add the column to serving.filters and publish a bundle"


class ItemConditions:
    """Finds the allowed items for requests to one bundle. Safe for any number of threads."""

    def __init__(self, columns: pa.Table, shown: Mask | None = None) -> None:
        """Takes the filter columns, one row per item, and a mask of the items that may be shown (None: all items)."""
        self._columns = columns
        self._all_shown = None if shown is None else AllowedItems(shown)
        self._find_passing = lru_cache(_KEPT)(partial(_find_passing, columns, shown))

    def check_fields(self, fields: Sequence[Any]) -> tuple[tuple[str, ...], list[Fault]]:
        """Returns the distinct columns to answer with, and a fault for each unknown column."""
        names = tuple(dict.fromkeys(map(str, fields)))
        known = ", ".join(self._columns.column_names) or "there is none"
        unknown = [name for name in names if name not in self._columns.column_names]
        return names, [Fault("fields", f"a column for filters: {known}", repr(name)[:80], _REMEDY) for name in unknown]

    def read_fields(self, fields: Sequence[str], rows: IntArray) -> dict[str, list[Any]] | None:
        """Returns column -> JSON values of the rows, None without columns.

        Dates and times are ISO text. Numbers that are not finite, and times that ISO text cannot express, are null.
        """
        if not fields:
            return None
        found = self._columns.select(list(fields)).take(pa.array(rows))
        texts = (map_leaves(combine_chunks(column), _times_as_text) for column in found.columns)
        return {name: orjson.loads(orjson.dumps(values.to_pylist())) for name, values in zip(fields, texts, strict=True)}

    def find(self, filters: Any) -> AllowedItems | None:
        """Returns the items that pass a request's filters. None: all items. Raises an InputError with the faults of the filters."""
        if filters is None:
            return self._all_shown
        try:
            return self._find_passing(orjson.dumps(filters, default=sorted, option=_FILTER_KEY))  # sets become lists
        except TypeError as error:
            remedy = "write text, numbers, lists and objects"
            raise InputError(Fault("filters", "values that JSON can hold", str(error)[:80], remedy)) from error


def _find_passing(columns: pa.Table, shown: Mask | None, filters: bytes) -> AllowedItems:
    mask = mask_items(columns, orjson.loads(filters), remedy=_REMEDY)
    return AllowedItems(mask if shown is None else mask & shown)


def _times_as_text(values: pa.Array) -> pa.Array:
    """Writes dates and times as ISO text, to the microsecond. Outside of the years 1 to 9999 the result is null."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if not pa.types.is_temporal(values.type):
        return values
    if pa.types.is_timestamp(values.type) and values.type.unit == "ns":
        values = values.cast(pa.timestamp("us", values.type.tz), safe=False)
    texts: list[str | None] = []
    for value in values:
        try:
            texts.append(orjson.loads(orjson.dumps(value.as_py())))
        except OverflowError:
            texts.append(None)
    return pa.array(texts, pa.string())
