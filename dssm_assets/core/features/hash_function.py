"""The choice of a hash function, as the configuration names it.

Belongs here: the names. Does not belong here: hashing (`hashing.py`), which loads what it computes with.
"""

from __future__ import annotations

from enum import StrEnum


class HashFunction(StrEnum):
    """The hash of a text that categories are told apart by."""

    MURMUR = "murmur_hash64a"
    FARM = "farm_fingerprint64"
