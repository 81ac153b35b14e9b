"""Users who are to be forgotten, kept as salted hashes: whose rows are dropped, wherever rows are read from a source or answered.

A hash is SipHash-2-4 of the id as text, keyed by the salt (16 hexadecimal characters, made once per store): 64 bits, so that among a
billion users and a thousand forgotten ones another user is dropped with a chance of 1 in 18 million.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Forgotten:
    """The list of a store.

    Attributes:
        salt: key of the hashes.
        hashes: of the users, hexadecimal, ascending.
        first_day: earlier days are forgotten as well; "" for none.
        request: the request that is being carried out, "" if the last one has ended.
        state: another text after each change of this list, and when a request ends; "" before the first.
        tried_at: when the request was last tried in vain, in unix seconds; 0 before.
        ids: users of the list, as text, who are looked for alone: they are found faster than by their hashes.
    """

    salt: str = ""
    hashes: tuple[str, ...] = ()
    first_day: str = ""
    request: str = ""
    state: str = ""
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
        """Returns for each id, an integer or text, whether it is that of a forgotten user; null is nobody's."""
        is_theirs = np.zeros(len(ids), np.bool_)
        if not self.hashes:
            return is_theirs
        if self.ids is not None:
            return np.asarray(pc.is_in(ids.cast(pa.string()), value_set=self.ids), np.bool_)
        wanted = np.array([int(value, 16) for value in self.hashes], np.uint64)
        start = 0
        for chunk in ids.chunks if isinstance(ids, pa.ChunkedArray) else [ids]:
            encoded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
            values = np.append(np.isin(self._hash(encoded.dictionary), wanted), False)  # the last one is that of null
            is_theirs[start : start + len(chunk)] = values[pc.fill_null(encoded.indices, -1).to_numpy()]
            start += len(chunk)
        return is_theirs

    def drop_rows(self, table: pa.Table, column: str) -> pa.Table:
        """Returns the rows of all other users."""
        is_theirs = self.find(table.column(column))
        return table.filter(pa.array(~is_theirs)) if is_theirs.any() else table

    def _hash(self, ids: pa.Array) -> npt.NDArray[np.uint64]:
        import pandas as pd  # takes a second, and most stores have no such list

        texts = ids.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False).astype(object)
        return pd.util.hash_array(texts, hash_key=self.salt, categorize=False)

    def adding(self, ids: pa.Array) -> tuple[str, ...]:
        """Returns the hashes with those of further users."""
        return tuple(sorted({*self.hashes, *self.hash_ids(ids)}))


NOBODY: Final = Forgotten()
