"""What a column of an unknown table holds: its kind, how many values, how often none, what they look like.

Belongs here: looking at values, block by block. Does not belong here: what a column is then taken for (`column_roles.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.sources.convert import flat, is_text

DISTINCT_CAP: Final = 200_000
"""Distinct values that are told apart at most; a column with more has "many"."""
_EXAMPLES: Final = 3


class ValueKind(StrEnum):
    """What the values of a column are."""

    INTEGER = "integer"
    NUMBER = "number"
    TEXT = "text"
    BOOLEAN = "boolean"
    MOMENT = "moment"
    OTHER = "other"
    """Lists, structs, bytes."""


@dataclass(frozen=True)
class ColumnProfile:
    """One column of a table.

    Attributes:
        name: in the source.
        kind: what its values are.
        rows: rows of the table.
        missing: rows without a value.
        values: its distinct values, None where there are more than DISTINCT_CAP.
        low: its smallest number, None for other kinds and without values.
        high: its largest number.
    """

    name: str
    kind: ValueKind
    rows: int
    missing: int
    values: pa.Array | None
    low: float | None = None
    high: float | None = None

    @property
    def distinct(self) -> int:
        """Returns the number of distinct values, DISTINCT_CAP + 1 for more than that."""
        return DISTINCT_CAP + 1 if self.values is None else len(self.values)

    @property
    def is_key(self) -> bool:
        """Tells whether every row has a value and, as far as they were told apart, one of its own."""
        unique = self.values is None or len(self.values) == self.rows
        return bool(self.rows) and not self.missing and unique and self.kind in (ValueKind.INTEGER, ValueKind.TEXT)

    @property
    def told(self) -> str:
        """Returns the column in a few words, for a comment."""
        many = f"more than {DISTINCT_CAP:,}" if self.values is None else f"{len(self.values):,}"
        parts = [str(self.kind), f"{many} distinct"]
        if self.rows and self.missing:
            parts.append(f"{100 * self.missing / self.rows:.0f}% missing")
        if self.values is not None and len(self.values):
            shown = (str(value).replace("\n", " ")[:24] for value in self.values.slice(0, _EXAMPLES).to_pylist())
            parts.append("e.g. " + ", ".join(shown))
        return ", ".join(parts)


class ProfileBuilder:
    """Builds the profile of one column from its blocks, all of one type."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._kind = ValueKind.OTHER
        self._rows = 0
        self._missing = 0
        self._values: pa.Array | None = None
        self._is_capped = False
        self._low: float | None = None
        self._high: float | None = None

    def see(self, column: Any) -> None:
        """Takes a block of the column into account."""
        values = flat(column)
        self._kind = kind_of(values.type)
        self._rows += len(values)
        if self._kind is ValueKind.OTHER:
            self._is_capped = True
            self._missing += values.null_count
            return
        present = values.drop_null()
        if pat.is_floating(present.type):
            present = present.filter(pc.invert(pc.is_nan(present)))
        elif is_text(present.type):
            present = present.filter(pc.not_equal(present, ""))
        self._missing += len(values) - len(present)
        self._see_range(present)
        if not self._is_capped:
            fresh = pc.unique(present)
            self._values = fresh if self._values is None else pc.unique(pa.concat_arrays([self._values, fresh]))
            self._is_capped = len(self._values) > DISTINCT_CAP

    def _see_range(self, present: pa.Array) -> None:
        if self._kind not in (ValueKind.INTEGER, ValueKind.NUMBER) or not len(present):
            return
        ends = pc.min_max(present).as_py()
        self._low = float(ends["min"]) if self._low is None else min(self._low, float(ends["min"]))
        self._high = float(ends["max"]) if self._high is None else max(self._high, float(ends["max"]))

    def profile(self) -> ColumnProfile:
        """Returns what was seen."""
        values = None if self._is_capped else self._values
        return ColumnProfile(self._name, self._kind, self._rows, self._missing, values, self._low, self._high)


def kind_of(kind: pa.DataType) -> ValueKind:
    """Returns the kind of a type's values."""
    if pat.is_boolean(kind):
        return ValueKind.BOOLEAN
    if pat.is_integer(kind):
        return ValueKind.INTEGER
    if pat.is_floating(kind) or pat.is_decimal(kind):
        return ValueKind.NUMBER
    if pat.is_timestamp(kind) or pat.is_date(kind):
        return ValueKind.MOMENT
    return ValueKind.TEXT if is_text(kind) or pat.is_null(kind) else ValueKind.OTHER
