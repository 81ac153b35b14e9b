"""Hides rows of forgotten users: readers of sources and answers of the service drop them. `extras/retention` lists the users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import USER_ID


@dataclass(frozen=True)
class HiddenRows:
    """The hidden users and days. This base class hides nobody. A subclass has the list.

    Attributes:
        first_day: days before it are hidden as well. "": no day is hidden.
        state: a text that changes whenever the hidden users change, "" before the first change.
    """

    first_day: str = ""
    state: str = ""

    def find(self, ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Returns whether each user id (integer or text) is hidden. A null id is never hidden."""
        return np.zeros(len(ids), np.bool_)

    def hides(self, user_id: int | str) -> bool:
        """Returns whether a single user is hidden. Faster than `find`."""
        return False

    def drop_rows(self, table: pa.Table) -> pa.Table:
        """Returns a table without the rows of hidden users."""
        is_hidden = self.find(table.column(USER_ID))
        return table.filter(pa.array(~is_hidden)) if is_hidden.any() else table


NOBODY: Final = HiddenRows()
