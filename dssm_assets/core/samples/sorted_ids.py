"""From ids to row numbers where the ids lie in ascending order: by binary search, so that nothing of them is held.

Belongs here: the search in a column that may be a memory map. Does not belong here: ids in any order (`id_index`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.core.samples.id_index import Column, comparable_ids, one_array

_BLOCK_ROWS = 1 << 20


class SortedIds:
    """Exact index over ascending ids: id -> its row number, -1 for an id that is not among them."""

    def __init__(self, ids: Column, *, where: str = "ids") -> None:
        """Checks the order, block by block.

        Args:
            ids: integers or text, ascending, without nulls; of one chunk, or they are copied.
            where: what the ids are, for error messages.

        Raises:
            SchemaError: see `comparable_ids`; or an id is not above the one before it.
        """
        self._where = where
        comparable = comparable_ids(ids, where)
        self._ids: pa.Array = comparable.chunk(0) if comparable.num_chunks == 1 else one_array(comparable)
        for begin in range(0, len(self._ids) - 1, _BLOCK_ROWS):
            here = self._ids.slice(begin, _BLOCK_ROWS + 1)
            if not pc.all(pc.less(here.slice(0, len(here) - 1), here.slice(1))).as_py():
                got = f"an id that is not, in rows {begin} .. {begin + len(here) - 1}"
                raise SchemaError(Fault(where, "ids each above the one before it", got, "write the table again"))

    def lookup(self, ids: Column, *, where: str = "looked-up ids") -> npt.NDArray[np.int64]:
        """Returns the row number of every id, int64, -1 where it is unknown.

        Raises:
            SchemaError: the ids are null, or text is looked up among integers or integers among text.
        """
        wanted = one_array(comparable_ids(ids, where))
        if wanted.type != self._ids.type:
            expected = f"{self._ids.type}, the type of {self._where}"
            raise SchemaError(Fault(where, expected, str(wanted.type), "give the same id one type in all sources"))
        if not len(self._ids):
            return np.full(len(wanted), -1, np.int64)
        rows = np.minimum(self._first_not_below(wanted), len(self._ids) - 1)
        is_found = pc.equal(self._ids.take(pa.array(rows)), wanted).to_numpy(zero_copy_only=False)
        return np.where(is_found, rows, np.int64(-1))

    def _first_not_below(self, wanted: pa.Array) -> npt.NDArray[np.int64]:
        if pa.types.is_integer(wanted.type):
            return np.asarray(np.searchsorted(self._ids.to_numpy(), wanted.to_numpy()), np.int64)
        low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(self._ids), np.int64)
        while len(still := np.flatnonzero(low < high)):
            middle = (low[still] + high[still]) // 2
            found = pc.less(self._ids.take(pa.array(middle)), wanted.take(pa.array(still)))
            is_below = found.to_numpy(zero_copy_only=False)
            low[still[is_below]] = middle[is_below] + 1
            high[still[~is_below]] = middle[~is_below]
        return low
