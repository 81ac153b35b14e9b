"""The search for a bundle's items in a vector store, in place of the bundle's own index."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.config.pipeline import VectorTable
from dssm_assets.core.errors import ConfigError, Fault, PartitionMissingError, StorageError
from dssm_assets.core.retrieval.vectors import Vectors
from dssm_assets.extras.vector_stores.conditions import UnsupportedConditionError, parse_filters
from dssm_assets.extras.vector_stores.store import VectorStore, find_uri, missing_version, open_store
from dssm_assets.serving.bundle import Bundle
from dssm_assets.serving.recall_engine import OpenSearch
from dssm_assets.storage.bundles import base_of
from dssm_assets.storage.config_file import LoadedConfig


def choose_search(uri: str, loaded: LoadedConfig | None) -> OpenSearch:
    """Returns what opens the search in the store at a URI; "": in that of the configuration.

    Raises:
        ConfigError: neither is given; see also `open_store`.
    """
    if not uri and loaded is None:
        raise ConfigError(Fault("--store", "the URI of a vector store", "none, and no configuration", "write --store URI"))
    chosen = uri if uri or loaded is None else find_uri(loaded)
    options = {} if loaded is None else loaded.config.storage.options

    def open_search(bundle: Bundle) -> StoreSearch:
        return StoreSearch(open_store(chosen, bundle.name, options), bundle)

    return open_search


class StoreSearch:
    """Searches the version of a store that has the items of a bundle. Safe for any number of threads."""

    def __init__(self, store: VectorStore, bundle: Bundle, *, is_exact: bool = False) -> None:
        """Opens the version.

        Args:
            is_exact: compare every item, without the store's index.

        Raises:
            PartitionMissingError: the store does not have the vectors of this bundle, or not yet.
        """
        self._items, self._is_exact, version = bundle.items, is_exact, base_of(bundle.manifest) or bundle.bundle_id
        types = ((field.name, field.type) for field in bundle.item_columns.schema)
        self._columns = {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in types}
        revisions = store.find_versions()
        if revisions.get(version) != bundle.bundle_id:
            raise missing_version(store.where, VectorTable.ITEM, bundle.bundle_id, set(revisions.values()))
        self._vectors = store.open(VectorTable.ITEM, version)

    def find_rows(self, vectors: Vectors, k: int, filters: Any) -> list[IntArray] | None:
        """Returns the rows of items in the bundle, see `ItemSearch`; items that the bundle lacks are left out.

        Raises:
            StorageError: the store does not answer, or has lost the version.
        """
        try:
            found = self._vectors.search(vectors, k, parse_filters(filters, self._columns), is_exact=self._is_exact)
        except UnsupportedConditionError:
            return None
        except PartitionMissingError as error:  # not the fault of who asks
            raise StorageError(str(error)) from error
        rows = (self._items.rows_of(pa.chunked_array([ids])) for ids, _ in found)
        return [one[one >= 0] for one in rows]
