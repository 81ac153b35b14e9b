"""Where a store is, for a process elsewhere that has to open it anew.

Belongs here: the address. Does not belong here: what is done with the store (`spark_tasks.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dssm_assets.storage.partitions import PartitionStore


@dataclass(frozen=True)
class StoreAddress:
    """What a store is opened with; it can be pickled."""

    url: str
    options: Mapping[str, Any]

    @classmethod
    def of(cls, partitions: PartitionStore) -> StoreAddress:
        """Returns the address of an open store."""
        return cls(partitions.fs.unstrip_protocol(partitions.root), partitions.options)

    def open(self) -> PartitionStore:
        """Returns the store."""
        return PartitionStore(self.url, self.options)
