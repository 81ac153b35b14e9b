"""Watches of a service. Each looks at one location at intervals, in its own thread, and remembers its last successful look.

So a hanging disk or host delays only its own watch.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final

SILENT_LOOKS: Final = 3
LEAST_SILENT_SECONDS: Final = 10.0
"""A watch counts as silent only after so many seconds, because a slow disk or object store may need some."""
_SHOWN: Final = 400

_log = logging.getLogger(__name__)


class Watches:
    """The watches of one process. Any thread may call `find_fault`."""

    def __init__(self) -> None:
        self._watches: list[Watch] = []
        self._stopped = threading.Event()

    def add(self, name: str, look: Callable[[], object], seconds: float) -> Watch:
        """Adds a watch. After `start`, `look` is called at this interval in seconds. `look` must raise an error if it fails."""
        watch = Watch(name, look, seconds)
        self._watches.append(watch)
        return watch

    def start(self) -> None:
        for watch in self._watches:
            threading.Thread(target=watch.run, args=(self._stopped,), name=f"watch {watch.name}", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def find_fault(self) -> str | None:
        """Names the watches without a successful look for three intervals, and says since when and why. None if there are none."""
        return "; ".join(fault for watch in self._watches if (fault := watch.find_fault())) or None


class Watch:
    """Looks at one location at intervals. Logs an error, unless the previous look had the same error."""

    def __init__(self, name: str, look: Callable[[], object], seconds: float) -> None:
        self.name, self._look, self._seconds = name, look, seconds
        self._looked_at, self._late_at = (0.0, 0.0), float("inf")
        """End of the last successful look, by time.monotonic and by time.time; then the time (monotonic) when the next one is late."""
        self._error = ""

    def run(self, stopped: threading.Event) -> None:
        self._note_look()
        while not stopped.wait(self._seconds):
            self.look()

    def look(self) -> None:
        try:
            self._look()
        except Exception as error:  # a location that is damaged, or away for a moment, must not end the watch
            said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:_SHOWN]
            if said != self._error:
                _log.error("%s cannot be read and stay as they were: %s", self.name, said)
            self._error = said
        else:
            self._error = ""
            self._note_look()

    def allow(self, seconds: float) -> None:
        """Gives the current look more seconds, for example to open a bundle after reading the pointer."""
        self._late_at = time.monotonic() + seconds

    def find_fault(self) -> str | None:
        now, (looked_at, moment), error = time.monotonic(), self._looked_at, self._error
        if now <= self._late_at:
            return None
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))
        said = f"{self.name} were read last at {since}, {now - looked_at:.0f} seconds ago, not every {self._seconds:g}"
        remedy = "see why their location is slow or silent; if it is not, restart the service"
        return f"{said}: {error}" if error else f"{said}. To fix: {remedy}"

    def _note_look(self) -> None:
        self._looked_at = time.monotonic(), time.time()
        self._late_at = self._looked_at[0] + max(SILENT_LOOKS * self._seconds, LEAST_SILENT_SECONDS)
