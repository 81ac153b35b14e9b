"""Writes conditions as SQL. A subclass of `SqlDialect` writes the parts that differ between databases."""

from __future__ import annotations

import datetime as dt
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from dssm_assets.extras.vector_stores.conditions import ColumnCondition, Condition
from dssm_assets.storage.sources.table_source import quote_name


class SqlDialect(ABC):
    """The SQL dialect of a database. Dialects differ in their literals and lists."""

    def write_value(self, value: Any) -> str:
        """Writes a value as a literal."""
        if isinstance(value, str):
            return "'" + value.replace("'", "''") + "'"
        if isinstance(value, dt.datetime):
            return f"TIMESTAMP '{value.isoformat(sep=' ')}'"
        if isinstance(value, dt.date):
            return f"DATE '{value.isoformat()}'"
        return str(value)

    @abstractmethod
    def write_overlap(self, column: str, condition: ColumnCondition, values: Sequence[Any]) -> str:
        """Writes the condition "the list has one of these values". It is null or false for an empty list."""

    @abstractmethod
    def write_any_entry(self, column: str, bounds: Sequence[str]) -> str:
        """Writes the condition "the list has an entry within these bounds". A bound is a text such as `>= 1`."""


def write_sql(condition: Condition, dialect: SqlDialect) -> str:
    """Writes a condition as SQL, "" if every row passes.

    Raises:
        UnsupportedConditionError: the dialect has no such comparison.
    """
    groups = [" AND ".join(_write(one, dialect) for one in group) for group in condition]
    return " OR ".join(f"({group})" for group in groups)


def _write(one: ColumnCondition, dialect: SqlDialect) -> str:
    column = quote_name(one.column)
    is_missing = f"({column} IS NULL OR cardinality({column}) = 0)" if one.is_list else f"{column} IS NULL"

    def write_any(values: Sequence[Any]) -> str:
        if not values:
            return "FALSE"
        if one.is_list:
            return dialect.write_overlap(column, one, values)
        return f"{column} IN ({', '.join(map(dialect.write_value, values))})"

    parts = []
    if one.any_of is not None:
        parts.append(f"({write_any(one.any_of)} OR {is_missing})" if one.or_missing else write_any(one.any_of))
    if one.none_of:
        parts.append(f"NOT COALESCE({write_any(one.none_of)}, FALSE)")
    if one.not_missing:
        parts.append(f"NOT {is_missing}")
    low, high = one.low, one.high
    if pa.types.is_floating(one.type) and (low, high) != (None, None):  # some databases sort NaN above infinity, others below
        low, high = -math.inf if low is None else low, math.inf if high is None else high
    bounds = [f"{sign} {dialect.write_value(bound)}" for sign, bound in ((">=", low), ("<=", high)) if bound is not None]
    if bounds and one.is_list:
        parts.append(dialect.write_any_entry(column, bounds))
    else:
        parts += [f"{column} {bound}" for bound in bounds]
    return " AND ".join(parts) or "TRUE"
