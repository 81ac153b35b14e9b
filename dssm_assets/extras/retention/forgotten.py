"""The list of forgotten users, as salted hashes. Readers of the store hide their rows (`core/hidden_rows.py`).

A hash is SipHash-2-4 of the id as text. Its key is the salt (16 hexadecimal characters, made once per store). It has 64 bits:
with a billion users and a thousand forgotten, another user is dropped with a chance of 1 in 18 million.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, StorageError
from dssm_assets.core.hidden_rows import HiddenRows
from dssm_assets.storage.hidden_list import HiddenList
from dssm_assets.storage.local_files import folder_lock, is_local
from dssm_assets.storage.locations import put_if, unchanged_condition

_TRIES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Forgotten(HiddenRows):
    """The list of forgotten users of a store.

    Attributes:
        salt: key of the hashes.
        hashes: hashes of the users, hexadecimal, ascending.
        request: the running request, "" if the last one has ended.
        tried_at: when the request last failed, in unix seconds. 0: it has not failed.
        ids: some users of the list, as text. If given, only these are searched for, which is faster than by hashes.
    """

    salt: str = ""
    hashes: tuple[str, ...] = ()
    request: str = ""
    tried_at: float = 0.0
    ids: pa.Array | None = field(default=None, compare=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Forgotten:
        found = json.loads(text)
        return cls(**{**found, "hashes": tuple(found["hashes"])})

    def to_json(self) -> str:
        known = {name: value for name, value in asdict(replace(self, ids=None)).items() if value or name == "hashes"}
        return json.dumps(known, indent=1) + "\n"

    def hash_ids(self, ids: pa.Array) -> list[str]:
        """Returns the hash of each id, hexadecimal."""
        return [f"{value:016x}" for value in self._hash(ids).tolist()]

    def find(self, ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        if self.ids is not None:
            return np.asarray(pc.is_in(ids.cast(pa.string()), value_set=self.ids), np.bool_)
        is_theirs = np.zeros(len(ids), np.bool_)
        start = 0
        for chunk in (ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]) if self.hashes else ():
            encoded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
            values = np.append(self._has(self._hash(encoded.dictionary)), False)  # the last entry stands for null
            is_theirs[start : start + len(chunk)] = values[pc.fill_null(encoded.indices, -1).to_numpy()]
            start += len(chunk)
        return is_theirs

    def hides(self, user_id: int | str) -> bool:
        return bool(self.hashes) and bool(self._has(self._hash_texts(np.array([str(user_id)], object)))[0])

    def _has(self, hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
        """Returns a mask of the hashes that are on the list. Uses binary search, because a recall request has one hash."""
        positions = np.searchsorted(self._numbers, hashes)
        return np.asarray(self._numbers[np.minimum(positions, len(self._numbers) - 1)] == hashes)

    @cached_property
    def _numbers(self) -> npt.NDArray[np.uint64]:
        return np.sort(np.array([int(value, 16) for value in self.hashes], np.uint64))

    def _hash(self, ids: pa.Array) -> npt.NDArray[np.uint64]:
        return self._hash_texts(ids.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False).astype(object))

    def _hash_texts(self, texts: npt.NDArray[np.object_]) -> npt.NDArray[np.uint64]:
        import pandas as pd  # takes a second, and most stores have no such list

        return pd.util.hash_array(texts, hash_key=self.salt, categorize=False)

    def adding(self, ids: pa.Array) -> tuple[str, ...]:
        """Returns the hashes of the list and of further users, ascending."""
        return tuple(sorted({*self.hashes, *self.hash_ids(ids)}))


def read_list(stored: HiddenList) -> Forgotten:
    """Returns the list of a store; it is empty if none is stored."""
    hidden = stored.read()
    return hidden if isinstance(hidden, Forgotten) else Forgotten()


def change_list(stored: HiddenList, update: Callable[[Forgotten], Forgotten]) -> Forgotten:
    """Replaces the list of a store by the result of `update` and returns it.

    If the list's state changes, work that began before the change can no longer be published.
    """
    with folder_lock(stored.serving) if is_local(stored.fs) else nullcontext():
        for _ in range(_TRIES):
            condition = unchanged_condition(stored.fs, stored.path)
            before = read_list(stored)
            after = update(replace(before, salt=before.salt or secrets.token_hex(8)))
            if put_if(stored.fs, stored.path, after.to_json().encode(), condition):
                return after
    raise StorageError(str(Fault(stored.path, "one command that changes the list", "another change", "run it again")))
