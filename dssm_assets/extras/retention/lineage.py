"""Finds partitions, such as models, that were made from the users' rows but hold no rows themselves.

It follows the digests of inputs that each manifest stores. Partitions that hold rows of users are rewritten instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from graphlib import TopologicalSorter
from typing import Final

from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore

_LOOKED_UP: Final = frozenset({"user_table", "user_features_fg", "user_vectors"})
"""Tables that are only looked up for a user's events, or copied. A user without events leaves nothing behind by them."""


class Lineage:
    """The partitions of some stores after the erasures of a request, and the data that each was made from.

    If an input is no longer stored as it was, it counts as one with the users' rows.
    """

    def __init__(
        self, stores: Mapping[str, PartitionStore], erased: Mapping[str, Manifest], request: str, first_day: str
    ) -> None:
        """Reads all manifests.

        Args:
            stores: prefix of a store's keys -> the store. "" is the prefix of the regular store.
            erased: key -> manifest of each partition that is rewritten, or would be.
            request: the id of the request.
            first_day: earlier days are forgotten. "": no day is.
        """
        self._request, self._first_day = request, first_day
        stored = {
            f"{prefix}{manifest.key}": manifest
            for prefix, store in stores.items()
            for asset in store.assets()
            for manifest in store.find_days(asset, [ds for ds in store.days(asset) if ds >= first_day]).values()
        }
        self._manifests = {**stored, **erased}
        of_users = {manifest.asset for manifest in self._manifests.values() if manifest.user_column is not None}
        self._sources = {manifest.asset for manifest in self._manifests.values() if not manifest.inputs} - of_users
        self._of_them, self._reaches_back = dict[str, bool](), dict[str, bool]()
        inputs = {key: self._find_inputs(key) for key in self._manifests}
        for key in TopologicalSorter(inputs).static_order():
            manifest = self._manifests[key]
            prefix = key.removesuffix(manifest.key)
            self._of_them[key] = self.had_rows(manifest.inputs, prefix)
            self._reaches_back[key] = self.reach_back(manifest.inputs, prefix)

    def list_made_from_them(self) -> list[str]:
        """Returns the keys of partitions without user rows that were, or may have been, made from the users' rows, sorted."""
        return sorted(key for key, is_so in self._of_them.items() if is_so and self._manifests[key].user_column is None)

    def list_reaching_back(self) -> list[str]:
        """Returns the assets (with a store's prefix) that have partitions made from forgotten days."""
        return sorted({key.rpartition("/")[0] for key, reaches in self._reaches_back.items() if reaches})

    def had_rows(self, inputs: Mapping[str, str], prefix: str = "") -> bool:
        """Returns whether any of some inputs ("asset/ds" -> digest) had, or may have had, rows of the users."""
        counted = (one for one in inputs.items() if one[0].partition("/")[0] not in _LOOKED_UP)
        return any(self._had_rows(key, digest, prefix) for key, digest in counted)

    def reach_back(self, inputs: Mapping[str, str], prefix: str = "") -> bool:
        """Returns whether an input is of a forgotten day, or was made from such a day."""
        found = ((key, self._resolve(key, digest, prefix)) for key, digest in inputs.items())
        return any(
            key.rpartition("/")[2] < self._first_day or self._reaches_back.get(place or "", False) for key, place in found
        )

    def _had_rows(self, key: str, digest: str, prefix: str) -> bool:
        asset, place = key.rpartition("/")[0], self._resolve(key, digest, prefix)
        if place is None:
            return asset not in self._sources
        manifest = self._manifests[place]
        if manifest.user_column is None:
            return self._of_them[place]
        is_of_request = [one.request == self._request for one in manifest.erasures]
        known = [one.digest for one in manifest.erasures]
        if digest in known:
            return any(is_of_request[known.index(digest) :])
        return digest != manifest.digest and any(is_of_request)

    def _resolve(self, key: str, digest: str, prefix: str) -> str | None:
        """Returns the key of a stored input. An experiment reads the regular partition if it has none of its own."""
        found = [place for place in dict.fromkeys((f"{prefix}{key}", key)) if place in self._manifests]
        return next((place for place in found if self._manifests[place].has_had(digest)), found[0] if found else None)

    def _find_inputs(self, key: str) -> list[str]:
        manifest = self._manifests[key]
        prefix = key.removesuffix(manifest.key)
        found = (self._resolve(name, digest, prefix) for name, digest in manifest.inputs.items())
        return [place for place in found if place is not None]
