"""Pieces of markdown that all parts of the report are made of: tables, cells, hit rates with their interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

CELL_CHARS: Final = 60


def table(title: str, head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Returns a markdown table below its title, its first column aligned left, the others right."""
    lines = [head, ["---", *("---:" for _ in head[1:])], *body]
    return "\n".join([f"**{title}**", "", *("| " + " | ".join(line) + " |" for line in lines)])


def cell(text: str) -> str:
    """Returns a text of the data as one cell: on one line, at most 60 characters, markdown marks escaped."""
    line = " ".join(text.split())
    short = line if len(line) <= CELL_CHARS else line[: CELL_CHARS - 1] + "…"
    return "".join("\\" + letter if letter in "\\`*_{}[]<>#|~$" else letter for letter in short)


def with_interval(row: Mapping[str, Any]) -> str:
    """Returns the hit rate of a row with its 95% interval, to three decimals: the interval is wider than the fourth."""
    return f"{row['hit_rate']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
