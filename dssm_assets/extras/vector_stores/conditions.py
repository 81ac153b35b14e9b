"""Parses the filters of a request to conditions that stores can translate. `core/retrieval/item_filter.py` defines filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.retrieval.item_filter import convert_value


class UnsupportedConditionError(Exception):
    """The store cannot compare values in the way that a condition asks for."""


@dataclass(frozen=True)
class ColumnCondition:
    """A condition on one column. An item passes if all parts hold. In a column of lists, an item's values are the entries.

    Attributes:
        type: type of a value.
        any_of: the item must have one of these values. With `or_missing`, items without a value also pass. None: no such part.
        none_of: the item must have none of these values. Items without a value pass, unless `not_missing` is set.
        low, high: one value of the item must lie between these bounds, both included. Items without a value do not pass. None: no
            such bound.
    """

    column: str
    type: pa.DataType
    is_list: bool
    any_of: tuple[Any, ...] | None = None
    or_missing: bool = False
    none_of: tuple[Any, ...] = ()
    not_missing: bool = False
    low: Any = None
    high: Any = None


Condition = tuple[tuple[ColumnCondition, ...], ...]
"""Groups of conditions. An item passes if all conditions of one group hold. Without groups every item passes."""


def parse_filters(filters: Any, columns: Mapping[str, pa.DataType]) -> Condition:
    """Parses filters that `mask_items` accepts to a condition. Values are converted to their column's type.

    Args:
        columns: name -> type of the store's columns.
    """
    if filters is None:
        return ()
    groups = filters if isinstance(filters, list) else [filters]
    return tuple(tuple(_parse(name, wanted, columns[name]) for name, wanted in group.items()) for group in groups)


def _parse(column: str, wanted: Any, kind: pa.DataType) -> ColumnCondition:
    given = wanted if isinstance(wanted, Mapping) else {"in": wanted}
    value_type = kind.value_type if is_list(kind) else kind

    def convert(value: Any, *, is_bound: bool = False) -> Any:
        scalar = None if value is None else convert_value(value_type, value, is_bound)
        return None if scalar is None else scalar.as_py()

    def convert_all(word: str) -> tuple[Any, ...]:
        values = given.get(word, ())
        return tuple(map(convert, values if isinstance(values, list | tuple) else [values]))

    options, others = convert_all("in"), convert_all("not")
    return ColumnCondition(
        column,
        value_type,
        is_list(kind),
        any_of=tuple(value for value in options if value is not None) if "in" in given else None,
        or_missing=None in options,
        none_of=tuple(value for value in others if value is not None),
        not_missing=None in others,
        low=convert(given.get("min"), is_bound=True),
        high=convert(given.get("max"), is_bound=True),
    )
