"""Finds the partitions made from rows of a request's users, by the input digests in manifests.

It is needed for partitions without rows of users, such as models. Rows of users are removed from all others.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from graphlib import TopologicalSorter
from typing import Final

from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.partitions import PartitionStore

_LOOKED_UP: Final = frozenset({"user_table", "user_features_fg", "user_vectors"})
"""Tables whose rows are looked up for the events of their users, or copied: without events nothing is made from them."""


class Trace(IntEnum):
    """Whether something was made from rows of the users. UNKNOWN: it was made from a content that is no longer stored."""

    NONE = 0
    UNKNOWN = 1
    CERTAIN = 2


class Lineage:
    """The partitions of some stores, as they are after the erasures of a request."""

    def __init__(
        self, stores: Mapping[str, PartitionStore], erased: Mapping[str, Manifest], request: str, first_day: str
    ) -> None:
        """Reads all manifests.

        Args:
            stores: prefix of the keys of a store -> the store; "" is the regular one's.
            erased: the rewritten partitions, done or planned.
            first_day: earlier days are forgotten; "" for none.
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
        self._traces, self._reaches_back = dict[str, Trace](), dict[str, bool]()
        inputs = {key: self._find_inputs(key) for key in self._manifests}
        for key in TopologicalSorter(inputs).static_order():
            manifest = self._manifests[key]
            prefix = key.removesuffix(manifest.key)
            self._traces[key] = self.trace_inputs(manifest.inputs, prefix)
            self._reaches_back[key] = self.reach_back(manifest.inputs, prefix)

    def list_made_from_them(self) -> dict[str, Trace]:
        """Returns key -> partitions made, or possibly made, from the users' rows."""
        nobody = {key for key, manifest in self._manifests.items() if manifest.user_column is None}
        return {key: trace for key, trace in self._traces.items() if trace and key in nobody}

    def list_reaching_back(self) -> list[str]:
        """Returns the keys of assets whose partitions were also made from forgotten days."""
        return sorted({key.rpartition("/")[0] for key, reaches in self._reaches_back.items() if reaches})

    def trace_inputs(self, inputs: Mapping[str, str], prefix: str = "") -> Trace:
        """Returns whether some inputs, "asset/ds" -> digest, had rows of the users."""
        counted = {key: digest for key, digest in inputs.items() if key.partition("/")[0] not in _LOOKED_UP}
        return max((self._trace(key, digest, prefix) for key, digest in counted.items()), default=Trace.NONE)

    def reach_back(self, inputs: Mapping[str, str], prefix: str = "") -> bool:
        """Returns whether some inputs are forgotten days, or were made from such."""
        found = ((key, self._resolve(key, digest, prefix)) for key, digest in inputs.items())
        return any(
            key.rpartition("/")[2] < self._first_day or self._reaches_back.get(place or "", False) for key, place in found
        )

    def _trace(self, key: str, digest: str, prefix: str) -> Trace:
        asset, place = key.rpartition("/")[0], self._resolve(key, digest, prefix)
        if place is None:
            return Trace.NONE if asset in self._sources else Trace.UNKNOWN
        manifest = self._manifests[place]
        if manifest.user_column is None:
            return self._traces[place] if digest == manifest.digest else min(self._traces[place], Trace.UNKNOWN)
        later = [manifest.erasures[number:] for number, one in enumerate(manifest.erasures) if one.digest == digest]
        if not later:
            is_unknown = digest != manifest.digest and any(one.request == self._request for one in manifest.erasures)
            return Trace.UNKNOWN if is_unknown else Trace.NONE
        return Trace.CERTAIN if any(one.request == self._request for one in later[0]) else Trace.NONE

    def _resolve(self, key: str, digest: str, prefix: str) -> str | None:
        """Returns where an input is stored: an experiment reads the regular partitions where it has none of its own."""
        found = [place for place in dict.fromkeys((f"{prefix}{key}", key)) if place in self._manifests]
        return next((place for place in found if self._manifests[place].has_had(digest)), found[0] if found else None)

    def _find_inputs(self, key: str) -> list[str]:
        manifest = self._manifests[key]
        prefix = key.removesuffix(manifest.key)
        found = (self._resolve(name, digest, prefix) for name, digest in manifest.inputs.items())
        return [place for place in found if place is not None]
