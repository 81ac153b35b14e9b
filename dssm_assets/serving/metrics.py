"""What the service counts, in the text format that Prometheus reads.

Belongs here: counters, gauges, histograms and their text. Does not belong here: what is counted (`http.py`, `live.py`).

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (text, 0.0.4).
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

Labels = tuple[str, ...]


class Counter:
    """Numbers that only rise, one per combination of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.name, self._text, self._labels = name, text, tuple(labels)
        self._lock = threading.Lock()
        self._values: dict[Labels, float] = {} if labels else {(): 0.0}

    def add(self, *labels: str, amount: float = 1.0) -> None:
        """Raises the number of these labels."""
        with self._lock:
            self._values[labels] = self._values.get(labels, 0.0) + amount

    def lines(self) -> list[str]:
        """Returns the text."""
        with self._lock:
            values = sorted(self._values.items())
        return [*_head(self.name, self._text, "counter"), *(_line(self.name, self._labels, *pair) for pair in values)]


class Gauge:
    """Numbers that are asked for when the text is made."""

    def __init__(self, name: str, text: str, read: Callable[[], float | Iterable[tuple[Mapping[str, str], float]]]) -> None:
        """Reads a number, or a number per combination of labels, from a function."""
        self.name, self._text, self._read = name, text, read

    def lines(self) -> list[str]:
        """Returns the text."""
        found = self._read()
        rows = [({}, found)] if isinstance(found, int | float) else found
        return [
            *_head(self.name, self._text, "gauge"),
            *(_line(self.name, tuple(labels), tuple(labels.values()), value) for labels, value in rows),
        ]


class Histogram:
    """How often a duration fell below each bound, their sum and their number, per combination of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = (), bounds: Sequence[float] = LATENCY_SECONDS) -> None:
        self.name, self._text, self._labels, self._bounds = name, text, tuple(labels), tuple(bounds)
        self._lock = threading.Lock()
        self._cells: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, *labels: str) -> None:
        """Counts a value."""
        place = bisect.bisect_left(self._bounds, value)  # a bound holds the values up to and including it
        with self._lock:
            cells = self._cells.setdefault(labels, [0] * (len(self._bounds) + 1))
            cells[place] += 1
            self._sums[labels] = self._sums.get(labels, 0.0) + value

    def lines(self) -> list[str]:
        """Returns the text: cumulative buckets, sum, count."""
        with self._lock:
            rows = sorted((labels, list(cells), self._sums[labels]) for labels, cells in self._cells.items())
        lines = _head(self.name, self._text, "histogram")
        for labels, cells, total in rows:
            count = 0
            for bound, cell in zip((*map(_number, self._bounds), "+Inf"), cells, strict=True):
                count += cell
                lines.append(_line(f"{self.name}_bucket", (*self._labels, "le"), (*labels, bound), count))
            lines.append(_line(f"{self.name}_sum", self._labels, labels, total))
            lines.append(_line(f"{self.name}_count", self._labels, labels, count))
        return lines


def text_of(metrics: Iterable[Counter | Gauge | Histogram]) -> str:
    """Returns the page that Prometheus reads."""
    return "\n".join(line for metric in metrics for line in metric.lines()) + "\n"


def _head(name: str, text: str, kind: str) -> list[str]:
    return [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]


def _line(name: str, labels: Sequence[str], values: Sequence[str], value: float) -> str:
    pairs = ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(labels, values, strict=True))
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))
