"""Embedding codes for items without events. A group is all items with equal attributes; a new item gets its group's code.

Codes in closed form (`core/training/closed_form/svd_init.py`) are computed from an item's events, so a new item has no code.

Letters: I items, G groups, F features of a group, D vector width, d width of the codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.arrays.ragged import FloatArray, IntArray

CODE: Final = "code"
"""The stored table has the codes in this column; its other columns are the features."""


@dataclass(frozen=True)
class GroupCodes:
    """The codes of groups of items.

    Attributes:
        features: names of single-valued item features [F].
        keys: int32 [G, F], the embedding indices shared by each group's items; distinct rows, ascending.
        codes: float32 [G, d].
    """

    features: tuple[str, ...]
    keys: npt.NDArray[np.int32]
    codes: FloatArray

    def find_groups(self, keys: npt.NDArray[Any]) -> IntArray:
        """Returns the group of each item [I] from its keys (`read_keys`, [I, F]); -1 if no group has these keys."""
        number = np.unique(np.concatenate([self.keys, keys]), axis=0, return_inverse=True)[1].reshape(-1)
        group = np.full(len(number), -1, np.int64)
        group[number[: len(self.keys)]] = np.arange(len(self.keys))
        return group[number[len(self.keys) :]]

    def fill_in(self, vectors: FloatArray, keys: npt.NDArray[Any]) -> FloatArray:
        """Writes the group's code into the last d columns of each item, if these are all 0. Returns the vectors [I, D].

        By hand: a group has the code (7), and its items have the vectors (1, 0) and (2, 3). These become (1, 7) and (2, 3).
        """
        width = self.codes.shape[1]
        groups = self.find_groups(keys)
        rows = np.flatnonzero((groups >= 0) & ~vectors[:, -width:].any(axis=1))
        filled = vectors.copy()
        filled[rows, -width:] = self.codes[groups[rows]]
        return filled

    def to_bytes(self) -> bytes:
        """Returns the codes as an Arrow file: a column per feature, then the codes."""
        code = pa.FixedSizeListArray.from_arrays(pa.array(self.codes.reshape(-1), pa.float32()), self.codes.shape[1])
        columns = {name: pa.array(self.keys[:, k], pa.int32()) for k, name in enumerate(self.features)}
        table = pa.table({**columns, CODE: code})
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    @classmethod
    def from_bytes(cls, data: bytes) -> GroupCodes:
        table = pa.ipc.open_file(pa.BufferReader(data)).read_all()
        features = tuple(name for name in table.column_names if name != CODE)
        width = table.schema.field(CODE).type.list_size
        codes = table.column(CODE).combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return cls(features, read_keys(table, features), np.asarray(codes, np.float32).reshape(table.num_rows, width))


def read_keys(items: pa.Table, features: Sequence[str]) -> npt.NDArray[np.int32]:
    """Returns the embedding indices of these features, int32 [I, F]."""
    return np.stack([items.column(name).to_numpy().astype(np.int32) for name in features], axis=1)
