"""Filters of a request as conditions for stores. `core/retrieval/item_filter.py` defines and checks the filters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.retrieval.item_filter import convert_value


class UnsupportedConditionError(Exception):
    """The store cannot make such a comparison."""


@dataclass(frozen=True)
class ColumnCondition:
    """A condition on a column; all parts must hold. In a column of lists, each entry is one of the item's values.

    Attributes:
        type: type of a value.
        any_of: passes items with one of these values; with `or_missing` also items without a value. None: passes all.
        none_of: passes items without any of these values; unless `not_missing`, also items without a value.
        low, high: bounds of one value, both included (None: no such bound); items without a value do not pass.
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
"""Groups of conditions: all of one group must hold. Without groups every item passes."""


def parse_filters(filters: Any, columns: Mapping[str, pa.DataType]) -> Condition:
    """Parses filters accepted by `mask_items` to a condition; values become Python's, in their column's type.

    Args:
        columns: columns of the store, with their types.
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
