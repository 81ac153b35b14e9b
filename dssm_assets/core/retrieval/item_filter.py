"""Conditions on item columns decide which items may be in a list.

A filter maps columns to conditions. An item passes a filter if all conditions hold, and a list of filters if it passes one.

    {"department": "GROCERY", "price": {"min": 1, "max": 5}}      both
    [{"brand": ["a", "b"]}, {"brand": {"not": "c"}, "size": 3}]   either

| condition | passes |
|---|---|
| a value | items with this value; null: items without a value |
| a list | items with any of these values |
| {"in": list} | items with any of these values |
| {"not": value or list} | items with none of these values, also items without a value |
| {"min": a, "max": b} | a <= value <= b, either bound may be left out; items without a value do not pass |

In a column of lists, an item has several values, the entries. With an empty or missing list it has no value.

Shapes: I items.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import IntArray, Mask, combine_chunks, is_list, list_lengths
from dssm_assets.core.errors import Fault, InputError

_WORDS: Final = ("in", "not", "min", "max")
MAX_CONDITIONS: Final = 64
"""Most conditions of a filter, because each is compared with every item."""
MAX_VALUES: Final = 10_000
"""Most values in the lists of a filter, because each is converted singly."""
_SHOWN: Final = 80
_INT64_END: Final = 2**63


class AllowedItems:
    """The items of a bundle that a list may contain."""

    def __init__(self, mask: Mask) -> None:
        """Takes `mask`, bool [I], true for allowed items."""
        self.mask = mask
        self.count = int(np.count_nonzero(mask))

    @cached_property
    def rows(self) -> IntArray:
        """Returns the rows of the allowed items, ascending."""
        return np.flatnonzero(self.mask)

    @cached_property
    def bits(self) -> npt.NDArray[np.uint8]:
        """Returns the mask as a bitmap for FAISS: bit n of byte m stands for row 8 m + n."""
        return np.packbits(self.mask, bitorder="little")


def mask_items(table: pa.Table, wanted: Any, remedy: str = "name an existing column") -> Mask:
    """Returns whether each item passes a filter, bool [I].

    Args:
        table: the columns that a filter may name, one row per item; text may be dictionary-encoded.
        wanted: the filter, as parsed from JSON.

    Raises:
        InputError: a condition names an unknown column, or has a value that does not fit the column's type. It lists every such condition.
    """
    count_conditions(wanted)
    groups = wanted if isinstance(wanted, list) else [wanted]
    reader = _Reader(table, remedy)
    passes = np.zeros(table.num_rows, bool)
    for number, group in enumerate(groups):
        place = f"filters[{number}]" if isinstance(wanted, list) else "filters"
        if not isinstance(group, Mapping) or not group:
            reader.faults.append(Fault(place, "an object of column and condition", _shown(group), "write {column: condition}"))
            continue
        passes |= reader.mask_all(group, place)
    if not groups:
        reader.faults.append(Fault("filters", "at least one object of conditions", "none", "leave the filter out"))
    InputError.raise_if(reader.faults)
    return passes


def count_conditions(wanted: Any) -> int:
    """Counts the conditions of a filter. Raises an InputError if there are too many conditions or values."""
    groups = wanted if isinstance(wanted, list) else [wanted]
    count = sum(len(group) for group in groups if isinstance(group, Mapping))
    if max(count, len(groups)) > MAX_CONDITIONS:
        got, remedy = f"{count} in {len(groups)} objects", "write one list of values in place of several"
        raise InputError(Fault("filters", f"at most {MAX_CONDITIONS} conditions", got, remedy))
    conditions = (one for group in groups if isinstance(group, Mapping) for one in group.values())
    lists = (
        one for condition in conditions for one in (condition.values() if isinstance(condition, Mapping) else (condition,))
    )
    if (values := sum(len(one) for one in lists if isinstance(one, list))) > MAX_VALUES:
        remedy = "filter by a coarser column instead of listing values"
        raise InputError(Fault("filters", f"at most {MAX_VALUES} values in lists", str(values), remedy))
    return count


def comparable_column(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Prepares a column for comparisons: decimals and half floats become float64, other types stay.

    Raises:
        InputError: the column holds neither numbers, text, booleans, dates, timestamps, nor lists of these.
    """
    kind = column.type
    inner = kind.value_type if is_list(kind) or pa.types.is_dictionary(kind) else kind
    if pa.types.is_decimal(inner) or pa.types.is_float16(inner):
        return column.cast(pa.list_(pa.float64()) if is_list(kind) else pa.float64())
    tests = (pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating, pa.types.is_string, pa.types.is_large_string)
    if not any(is_type(inner) for is_type in (*tests, pa.types.is_date, pa.types.is_timestamp)):
        expected, remedy = "numbers, text, booleans, dates, timestamps or lists of these", "name another column"
        raise InputError(Fault(where, expected, str(kind), remedy))
    return column


class _Column:
    """A column for comparisons: `values` has each item's value. For lists it has all entries, and `parents` their items."""

    def __init__(self, column: pa.ChunkedArray, where: str) -> None:
        values = combine_chunks(comparable_column(column, where))
        self.count, self.parents = len(values), None
        self.is_missing: Mask = pc.is_null(values).to_numpy(zero_copy_only=False)
        if is_list(values.type):
            self.is_missing |= list_lengths(values) == 0
            self.parents, values = pc.list_parent_indices(values).to_numpy(), pc.list_flatten(values)
        self.values = values
        self.type = values.type.value_type if pa.types.is_dictionary(values.type) else values.type

    def mask_where(self, is_passing: pa.Array) -> Mask:
        """Marks items with a value that passes, bool [I]."""
        flags: Mask = pc.fill_null(is_passing, False).to_numpy(zero_copy_only=False)
        return flags if self.parents is None else np.bincount(self.parents[flags], minlength=self.count) > 0

    def mask_any(self, wanted: Sequence[pa.Scalar]) -> Mask:
        """Marks items with one of the wanted values, bool [I]."""
        options = pc.SetLookupOptions(pa.array(wanted, self.type))
        if not pa.types.is_dictionary(self.values.type):
            return self.mask_where(pc.is_in(self.values, options=options))
        return self.mask_where(pc.is_in(self.values.dictionary, options=options).take(self.values.indices))


class _Reader:
    def __init__(self, table: pa.Table, remedy: str) -> None:
        self._table, self._remedy, self._columns = table, remedy, dict[str, _Column]()
        self.faults: list[Fault] = []

    def mask_all(self, group: Mapping[str, Any], where: str) -> Mask:
        """Marks the items for which all conditions hold."""
        passes = np.ones(self._table.num_rows, bool)
        for name, condition in group.items():
            if name not in self._table.column_names:
                known = ", ".join(self._table.column_names) or "there is none"
                self._note(f"{where}.{name}", f"a column for filters: {known}", "no such column", self._remedy)
                continue
            if name not in self._columns:
                self._columns[name] = _Column(self._table.column(name), f"column {name} of filters")
            passes &= self._mask(self._columns[name], condition, f"{where}.{name}")
        return passes

    def _note(self, where: str, expected: str, got: str, remedy: str) -> None:
        self.faults.append(Fault(where, expected, got, remedy))

    def _mask(self, column: _Column, condition: Any, where: str) -> Mask:
        if not isinstance(condition, Mapping):
            return self._mask_any(column, condition, where)
        unknown = [word for word in condition if word not in _WORDS]
        if unknown or not condition:
            got = ", ".join(map(str, unknown))[:_SHOWN] or "none"
            self._note(where, f"one or more of {', '.join(_WORDS)}", got, "write one of these conditions")
        passes = np.ones(self._table.num_rows, bool)
        if "in" in condition:
            if not isinstance(condition["in"], list):
                self._note(f"{where}.in", "a list of values", _shown(condition["in"]), "write a list")
            passes &= self._mask_any(column, condition["in"], f"{where}.in")
        if "not" in condition:
            passes &= ~self._mask_any(column, condition["not"], f"{where}.not")
        if "min" in condition or "max" in condition:
            passes &= self._mask_range(column, condition, where)
        return passes

    def _mask_any(self, column: _Column, wanted: Any, where: str) -> Mask:
        """Marks the items with one of the wanted values."""
        values = wanted if isinstance(wanted, list) else [wanted]
        given = [value for value in values if value is not None]
        scalars = [convert_value(column.type, value, is_bound=False) for value in given]
        wrong = [place for place, scalar in enumerate(scalars) if scalar is None]
        if wrong:
            self._note_value(column.type, given[wrong[0]], where, len(wrong) - 1)
        passes = column.is_missing.copy() if None in values else np.zeros(self._table.num_rows, bool)
        known = [scalar for scalar in scalars if scalar is not None]
        return passes | column.mask_any(known) if known else passes

    def _mask_range(self, column: _Column, condition: Mapping[str, Any], where: str) -> Mask:
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_temporal(kind)):
            words = " and ".join(word for word in ("min", "max") if word in condition)
            self._note(where, f"{words} of a column of numbers or times", f"a column of {kind}", "use in or not")
            return np.ones(self._table.num_rows, bool)
        is_within = pc.is_valid(column.values)
        for word, compare in (("min", pc.greater_equal), ("max", pc.less_equal)):
            if word in condition:
                bound = convert_value(kind, condition[word], is_bound=True)
                if bound is None:
                    self._note_value(kind, condition[word], f"{where}.{word}")
                else:
                    is_within = pc.and_(is_within, compare(column.values, bound))
        return column.mask_where(is_within)

    def _note_value(self, kind: pa.DataType, value: Any, where: str, others: int = 0) -> None:
        expected = "text such as 2024-01-31 or 2024-01-31T12:00:00" if pa.types.is_temporal(kind) else str(kind)
        got = f"{_shown(value)}{f' and {others} more' if others else ''}"
        self._note(where, f"{expected}, the column's type", got, "write a value of the column's type")


def convert_value(kind: pa.DataType, value: Any, is_bound: bool) -> pa.Scalar | None:
    """Converts a value to a type. None if it does not fit. A bound (`min`, `max`) on integers may be any number."""
    if pa.types.is_boolean(kind):
        is_of_kind = isinstance(value, bool)
    elif pa.types.is_floating(kind) or pa.types.is_integer(kind):
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        is_of_kind = is_whole or (isinstance(value, float) and (is_bound or pa.types.is_floating(kind)))
    else:
        is_of_kind = isinstance(value, str)
    if not is_of_kind:
        return None
    try:
        if pa.types.is_temporal(kind):
            return _time(kind, value)
        if pa.types.is_floating(kind):
            return pa.scalar(float(value), kind)
        if is_bound:
            return pa.scalar(value if abs(value) < _INT64_END else float(value))
        return pa.scalar(value, kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, OverflowError, ValueError, UnicodeEncodeError):
        return None


def _time(kind: pa.DataType, text: str) -> pa.Scalar:
    """Parses a date or a time from ISO text. If the column has a zone, a time without zone is UTC."""
    moment = dt.datetime.fromisoformat(text)
    if pa.types.is_timestamp(kind):
        return pa.scalar(moment, pa.timestamp("us")).cast(kind)  # brings a time with a zone to UTC
    return pa.scalar(moment.date(), pa.date32()).cast(kind)


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"a list of {len(value)}"
    return repr(value)[:_SHOWN]
