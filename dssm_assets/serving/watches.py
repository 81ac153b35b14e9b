"""Watches of a service: what it looks at again and again, each in a thread of its own, and whether one has stopped to look.

A disk or a host that hangs holds up its own watch alone. A thread cannot be ended from outside, so that a watch tells when it last
finished a look.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

SILENT_LOOKS: Final = 3
LEAST_SILENT_SECONDS: Final = 10.0
"""A slow disk or object store needs some seconds for a look."""


class Watches:
    """The watches of one process; `find_fault` is safe for any thread."""

    def __init__(self) -> None:
        self._watches: list[_Watch] = []
        self._stopped = threading.Event()

    def add(self, name: str, look: Callable[[], object], seconds: float) -> None:
        """Adds a watch, which begins with `start`; `look` is called every so many seconds."""
        self._watches.append(_Watch(name, look, seconds))

    def start(self) -> None:
        for watch in self._watches:
            threading.Thread(target=watch.run, args=(self._stopped,), name=f"watch {watch.name}", daemon=True).start()

    def stop(self) -> None:
        """Ends all watches after their current look."""
        self._stopped.set()

    def find_fault(self) -> str | None:
        """Returns which watches have finished no look for three of their intervals, and since when; None: all look."""
        return "; ".join(fault for watch in self._watches if (fault := watch.find_fault())) or None


class _Watch:
    def __init__(self, name: str, look: Callable[[], object], seconds: float) -> None:
        self.name, self._look, self._seconds = name, look, seconds
        self._looked_at = (0.0, 0.0)
        """When the last look ended, by the clocks of time.monotonic and time.time; zero before the start."""

    def run(self, stopped: threading.Event) -> None:
        self._looked_at = time.monotonic(), time.time()
        while not stopped.wait(self._seconds):
            self._look()
            self._looked_at = time.monotonic(), time.time()

    def find_fault(self) -> str | None:
        looked_at, moment = self._looked_at
        silent = time.monotonic() - looked_at
        if not looked_at or silent <= max(SILENT_LOOKS * self._seconds, LEAST_SILENT_SECONDS):
            return None
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
        remedy = "To fix: see why their place is slow or silent; restart the service if it is not"
        return f"{self.name} were read last at {since}, {silent:.0f} seconds ago, not every {self._seconds:g}. {remedy}"
