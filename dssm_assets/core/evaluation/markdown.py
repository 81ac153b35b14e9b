"""Pieces of markdown that every report uses.

Belongs here: tables, cells, a rate with its interval. Does not belong here: what a report says.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

CELL_CHARS = 60


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a table, its first column to the left, the others to the right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(text: str) -> str:
    """Returns a text of the data as one cell: on one line, at most 60 characters, its marks taken literally."""
    line = " ".join(text.split())
    short = line if len(line) <= CELL_CHARS else line[: CELL_CHARS - 1] + "…"
    return "".join("\\" + letter if letter in "\\`*_{}[]<>#|~$" else letter for letter in short)


def with_interval(row: dict[str, Any]) -> str:
    """Returns the hit rate of a row with its 95% interval, which leaves nothing to say behind the third place."""
    return f"{row['hit_rate']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
