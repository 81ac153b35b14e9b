"""Searches items in a vector store instead of the bundle's own index."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import ConfigError, Fault, PartitionMissingError, StorageError
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.extras.vector_stores.store import VectorStore, find_uri, missing_version, open_store
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets.storage.config_file import LoadedConfig

_LATE_SECONDS: Final = 1.0
_PAUSE_SECONDS: Final = 5.0


def choose_search(uri: str, loaded: LoadedConfig | None) -> Callable[..., StoreSearch]:
    """Returns a function that opens a search in the store at a URI. "": the store of the configuration.

    The function takes the bundle and the time limit of a search in seconds.

    Raises:
        ConfigError: there is neither a URI nor a configuration, or as in `open_store`.
    """
    if not uri and loaded is None:
        raise ConfigError(Fault("--store", "the URI of a vector store", "none, and no configuration", "write --store URI"))
    chosen = uri if uri or loaded is None else find_uri(loaded)
    options = {} if loaded is None else loaded.config.storage.options

    def open_search(bundle: Bundle, seconds: float = ServiceLimits().request_seconds) -> StoreSearch:
        return StoreSearch(open_store(chosen, bundle.name, options, seconds / 2), bundle)

    return open_search


class StoreSearch:
    """Searches the version of a store that has a bundle's items. Safe for any number of threads.

    After a search has timed out, all searches fail at once for some seconds. Otherwise a hanging store would hold all threads of
    the service, also for lists without the store. Then one search tries again.
    """

    def __init__(self, store: VectorStore, bundle: Bundle, *, is_exact: bool = False) -> None:
        """Opens the bundle's version in the store.

        Args:
            is_exact: compares every item instead of searching by the store's index.

        Raises:
            PartitionMissingError: the store does not have the vectors of this bundle, or not yet.
        """
        self._items, self._is_exact = bundle.items, is_exact
        revisions = store.find_versions()
        # If users were forgotten, the bundle has a new id but the same items, so its former ids also match.
        names = {bundle.bundle_id, *bundle.manifest.get("was", ())}
        version = next((name for name, revision in revisions.items() if revision in names), None)
        if version is None:
            raise missing_version(store.where, VectorTable.ITEM, bundle.bundle_id, set(revisions.values()))
        self._vectors = store.open(VectorTable.ITEM, version)
        self._changing, self._fault, self._asks_at = threading.Lock(), "", 0.0
        """The error of a search that timed out, "" after a search in time. The time before which the store is not asked again."""

    def find_rows(self, vectors: Vectors, k: int) -> list[IntArray]:
        """Returns row numbers of the bundle's items, see `ItemSearch`. Leaves out items that the bundle does not know.

        Raises:
            StorageError: the store does not answer, did not answer a moment ago, or has lost the version.
        """
        begun = time.monotonic()
        with self._changing:
            if self._fault and begun < self._asks_at:
                raise StorageError(self._fault)
            self._asks_at = begun + _PAUSE_SECONDS  # after a search that timed out, only this one asks the store
        try:
            found = self._vectors.search(vectors, k, is_exact=self._is_exact)
        except (PartitionMissingError, StorageError) as error:  # a missing version is not the caller's fault
            now = time.monotonic()
            if now - begun > _LATE_SECONDS:
                self._fault, self._asks_at = str(error), now + _PAUSE_SECONDS
            raise StorageError(str(error)) from error
        self._fault = ""
        rows = (self._items.rows_of(pa.chunked_array([ids])) for ids, _ in found)
        return [one[one >= 0] for one in rows]
