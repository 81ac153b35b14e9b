"""The bundle that is served right now, and its replacement by the next one while requests go on.

Belongs here: watching the pointer, opening the new bundle beside the old, refusing a broken one, the swap. Does not
belong here: answering (`engine.py`) and HTTP (`http.py`).

The swap replaces one reference. Who took the engine before it finishes on the old bundle, which is freed when the last
of them is done; so every answer comes from one whole bundle.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from dssm_assets.serving.bundle import BundleRoot
from dssm_assets.serving.metrics import Counter
from dssm_assets.serving.recall_engine import Engine

DEFAULT_CHECK_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 60.0
"""A refused bundle is looked at again after this time: its store may have been at fault, not its files."""

_log = logging.getLogger(__name__)


class LiveEngine:
    """Holds the engine of the current bundle and keeps it current from a thread of its own."""

    def __init__(
        self,
        root: str,
        options: Mapping[str, Any] | None = None,
        *,
        check_seconds: float = DEFAULT_CHECK_SECONDS,
        is_verified: bool = True,
    ) -> None:
        """Opens the current bundle.

        Args:
            root: `<storage.root>/serving`.
            options: of the fsspec filesystem.
            check_seconds: pause between looks at the pointer.
            is_verified: compare the sha256 of every file of each bundle.

        Raises:
            PartitionMissingError, StorageError: if there is no bundle to start with; see `Bundle.open`.
        """
        self._root, self._check_seconds, self._is_verified = BundleRoot(root, options), check_seconds, is_verified
        self.swaps = Counter("dssm_bundle_swaps_total", "Times a new bundle took the place of the one before.")
        self.refusals = Counter("dssm_bundle_refused_total", "Times a new bundle was broken and the old one kept serving.")
        self.check_errors = Counter("dssm_bundle_check_errors_total", "Times the pointer to the bundle could not be read.")
        self._refused: tuple[str, float] | None = None
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._engine = self._opened()
        self.loaded_at = time.time()

    @property
    def engine(self) -> Engine:
        """The engine to answer a whole request with: take it once."""
        return self._engine

    @property
    def bundle_id(self) -> str:
        """The bundle that is served."""
        return self._engine.bundle.bundle_id

    @property
    def refused_bundle_id(self) -> str | None:
        """The published bundle that could not be opened, None while all is well."""
        return self._refused[0] if self._refused else None

    def start(self) -> None:
        """Starts the watch."""
        self._thread = threading.Thread(target=self._watch, name="bundle-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; the engine stays."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()

    def refresh(self) -> bool:
        """Looks at the pointer once; returns whether a new bundle took over. A broken one is logged and counted."""
        try:
            wanted = self._root.current()
        except Exception as error:  # A store that is away for a moment must not end the watch.
            self.check_errors.add()
            _log.error("the pointer in %s cannot be read, %s keeps serving: %s", self._root.path, self.bundle_id, error)
            return False
        if wanted == self.bundle_id:
            self._refused = None
            return False
        if self._refused and self._refused[0] == wanted and time.monotonic() < self._refused[1]:
            return False
        try:
            fresh = self._opened()
        except Exception as error:  # Whatever is wrong with a new bundle, the old one keeps serving.
            self._refused = (wanted, time.monotonic() + RETRY_SECONDS)
            self.refusals.add()
            _log.error("bundle %s is refused, %s keeps serving: %s", wanted, self.bundle_id, error)
            return False
        before = self.bundle_id
        self._engine, self._refused, self.loaded_at = fresh, None, time.time()
        self.swaps.add()
        _log.info("bundle %s serves in place of %s", fresh.bundle.bundle_id, before)
        return True

    def _opened(self) -> Engine:
        return Engine.open(self._root, is_verified=self._is_verified)

    def _watch(self) -> None:
        while not self._stopped.wait(self._check_seconds):
            self.refresh()
