"""Rows that nobody may read: dropped wherever rows are read from a source or answered. Who is meant, `extras/retention` says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.columns import USER_ID


@dataclass(frozen=True)
class HiddenRows:
    """No hidden rows. Subclasses name the users.

    Attributes:
        first_day: earlier days are hidden as well; "" for none.
        state: another text after each change; "" before the first.
    """

    first_day: str = ""
    state: str = ""

    def find(self, ids: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
        """Returns for each user id, an integer or text, whether its rows are hidden; null is nobody's."""
        return np.zeros(len(ids), np.bool_)

    def hides(self, user_id: int | str) -> bool:
        """Returns whether the rows of a single user are hidden, in less time than `find`."""
        return False

    def drop_rows(self, table: pa.Table) -> pa.Table:
        """Returns a table without the rows of hidden users."""
        is_hidden = self.find(table.column(USER_ID))
        return table.filter(pa.array(~is_hidden)) if is_hidden.any() else table


NOBODY: Final = HiddenRows()
