"""Keeps the engine of the current bundle: swaps it while requests go on, when a new bundle or a changed list of the shop appears.

A swap replaces one reference. Running requests finish on the old bundle, which is freed after the last one. So every answer comes
from one whole bundle.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from dssm_assets.core.errors import PartitionMissingError, StorageError
from dssm_assets.service.bundle.bundle_store import BundleKeys, BundleStore
from dssm_assets.service.engine.recall_engine import AnswerHook, HookState, OpenSearch, RecallEngine
from dssm_assets.service.engine.shop_lists import ShopLists
from dssm_assets.service.engine.watches import Watches

RETRY_SECONDS: Final = 60.0
"""A refused bundle is opened again after so many seconds: the store may have been at fault, not the files."""

OPEN_SECONDS: Final = 900.0
"""Time to copy, verify and open a large bundle. After it, the watch of bundles counts as hanging."""

FORGET_SECONDS: Final = 0.5
"""Interval at which the list of forgotten users is read."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineState:
    """The serving bundle, and counts since the start.

    `bundle_fault` says why `refused_bundle_id` cannot be opened. `list_fault` says why a list of the shop cannot be used, or
    that no item is shown. `watch_fault` names a location that can no longer be read. `shown` is the state of a hook.
    """

    bundle_id: str
    name: str
    ds: str
    users: int
    items: int
    dims: int
    index: str
    loaded_at: float
    refused_bundle_id: str | None = None
    bundle_fault: str | None = None
    swaps: int = 0
    refusals: int = 0
    check_errors: int = 0
    list_errors: int = 0
    list_fault: str | None = None
    watch_fault: str | None = None
    shown: HookState | None = None

    @property
    def is_stale(self) -> bool:
        """Returns whether something newer exists but cannot be used, or may exist unseen, or answers cannot be kept."""
        shown_fault = self.shown and self.shown.fault
        return (self.refused_bundle_id, self.list_fault, self.watch_fault, shown_fault) != (None,) * 4


class LiveEngine:
    """The engine of the current bundle, kept current by watches. Further watches must be added before the start."""

    def __init__(
        self,
        root: str,
        options: Mapping[str, Any] | None = None,
        *,
        check_seconds: float = 5.0,
        is_verified: bool = True,
        shop_lists: ShopLists | None = None,
        open_search: OpenSearch | None = None,
        keys: BundleKeys | None = None,
        hook: AnswerHook | None = None,
    ) -> None:
        """Opens the current bundle, or an older stored one if the item search does not yet have the current bundle's items.

        Args:
            check_seconds: interval of looks at the pointer and the lists.
            open_search: as in `recall_once`; a new bundle serves once its search can be opened.
            hook: as in `recall_once`.

        Raises:
            InputError: a line of a list is no id of the bundle's type.
            PartitionMissingError, StorageError: there is no usable bundle to start with; see `RecallEngine.open`.
        """
        self._store, self._is_verified = BundleStore(root, options, keys), is_verified
        self._lists, self._open_search = shop_lists or ShopLists(), open_search
        self.hook = hook
        self.list_fault: str | None = None
        self._counts = Counter[str]()
        self._refused: tuple[str, float, str] | None = None
        """The published bundle that cannot be used, the time to open it again, and the fault."""
        self._opened: RecallEngine | None = None
        """The engine of the published bundle, kept while the search for its items cannot be opened."""
        self._changing = threading.Lock()
        self.watches = Watches()
        self._bundle_watch = self.watches.add("the bundles", self.refresh, check_seconds)
        self.watches.add("the lists of the shop", self.refresh_lists, check_seconds)
        self.watches.add("the users to be forgotten", self._hide_users, FORGET_SECONDS)
        self.engine = self._open_first()
        """The engine of the bundle that serves. Read it once per request."""
        if hook is not None:
            self._variant_watch = self.watches.add("the bundles of variants", partial(self._open_variants, hook), check_seconds)
            self._open_variants(hook)
        self._serve()
        self._loaded_at = time.time()

    @property
    def bundle_id(self) -> str:
        return self.engine.bundle.bundle_id

    @property
    def state(self) -> EngineState:
        bundle, fault = self.engine.bundle, self.list_fault
        refused_id, _, bundle_fault = self._refused or (None, 0.0, None)
        if fault is None and not self.engine.shown_frac:
            fault = f"the lists of the shop leave no item of bundle {bundle.bundle_id}, so all lists are empty. To fix: correct them"
        return EngineState(
            bundle.bundle_id,
            bundle.name,
            bundle.ds,
            users=len(bundle.users),
            items=len(bundle.items),
            dims=bundle.dims,
            index=str((bundle.manifest.get("index") or {}).get("kind", "unknown")),
            loaded_at=self._loaded_at,
            refused_bundle_id=refused_id,
            bundle_fault=bundle_fault,
            list_fault=fault,
            watch_fault=self.watches.find_fault(),
            shown=None if self.hook is None else self.hook.state,
            **self._counts,
        )

    def refresh_lists(self) -> bool:
        """Reads changed lists of the shop; returns whether one has changed.

        If a list cannot be used, all lists stay as they were. The fault is counted and kept in `list_fault`.
        """
        try:
            has_changed = self._lists.refresh(self.engine.bundle.items)
            if has_changed:
                self._serve()
        except Exception as error:  # Whatever is wrong with a list, the former ones stay.
            self._counts["list_errors"] += 1
            self.list_fault = str(error)
            _log.error("lists of the shop stay as they were: %s", error)
            return False
        self.list_fault = None
        if has_changed:
            count = len(self.engine.bundle.items)
            _log.info("%d of %d items are shown", round(self.engine.shown_frac * count), count)
        return has_changed

    def refresh(self) -> bool:
        """Reads the pointer once; returns whether a new bundle took over. A broken bundle is logged and counted.

        Raises:
            DssmError: the pointer cannot be read; the present bundle goes on serving.
        """
        with self._counting_errors():
            wanted = self._store.current_id()
        if wanted == self.bundle_id:
            self._refused = self._opened = None
            return False
        if self._refused and self._refused[0] == wanted and time.monotonic() < self._refused[1]:
            return False
        self._bundle_watch.allow(OPEN_SECONDS)
        try:
            before, fresh = self.bundle_id, self._open_engine()
            self._serve(fresh)
        except Exception as error:  # Whatever is wrong with a new bundle, the old one keeps serving.
            self._refuse(wanted, str(error))
            return False
        self._refused, self._loaded_at = None, time.time()
        self._counts["swaps"] += 1
        _log.info("bundle %s replaces %s", fresh.bundle.bundle_id, before)
        return True

    def _refuse(self, bundle_id: str, fault: str) -> None:
        """Notes why a bundle cannot be used. One that only lacks its search for items is tried at every look."""
        is_known = self._refused is not None and (self._refused[0], self._refused[2]) == (bundle_id, fault)
        retry_at = 0.0 if self._opened is not None else time.monotonic() + RETRY_SECONDS
        self._refused = (bundle_id, retry_at, fault)
        if not is_known:
            self._counts["refusals"] += 1
            _log.error("refused bundle %s, %s keeps serving: %s", bundle_id, self.bundle_id, fault)

    def _hide_users(self) -> None:
        with self._counting_errors():
            hidden = self._store.hidden.read()
        for engine in filter(None, (self._opened, self.engine, *(() if self.hook is None else self.hook.engines))):
            engine.bundle.users.hide(hidden)

    @contextmanager
    def _counting_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            self._counts["check_errors"] += 1
            raise

    def _open_first(self) -> RecallEngine:
        try:
            return self._open_engine()
        except PartitionMissingError:
            pointer = self._store.pointer()
            if self._opened is None or pointer is None:
                raise
            for bundle_id in reversed(pointer.stored):
                with suppress(PartitionMissingError, StorageError):
                    return self._add_search(RecallEngine.open(self._store, bundle_id=bundle_id, is_verified=self._is_verified))
            raise

    def _open_engine(self) -> RecallEngine:
        if self._opened is None or self._opened.bundle.bundle_id != self._store.current_id():
            self._opened = None
            self._opened = RecallEngine.open(self._store, is_verified=self._is_verified)
        engine = self._add_search(self._opened)
        self._opened = None
        return engine

    def _add_search(self, engine: RecallEngine) -> RecallEngine:
        return engine if self._open_search is None else engine.searching(self._open_search(engine.bundle))

    def _serve(self, fresh: RecallEngine | None = None) -> None:
        with self._changing:
            engine = self._show(fresh or self.engine)
            if self.hook is not None:
                self.hook.show(self._show)
                engine = engine.answering(self.hook)
            self.engine = engine

    def _show(self, engine: RecallEngine) -> RecallEngine:
        return engine.showing(self._lists.find_shown(engine.bundle.items))

    def _open_variants(self, hook: AnswerHook) -> None:
        with self._counting_errors():
            pointer = self._store.pointer()
        if hook.refresh(pointer, self._open_variant):
            self._serve()  # the lists of the shop may have changed meanwhile

    def _open_variant(self, bundle_id: str) -> RecallEngine:
        self._variant_watch.allow(OPEN_SECONDS)
        return self._show(RecallEngine.open(self._store, bundle_id=bundle_id, is_verified=self._is_verified))
