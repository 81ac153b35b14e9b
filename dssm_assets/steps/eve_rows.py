"""Where the features of users and items stand on an eve, in whichever process places samples among them.

Belongs here: reading ids and dates of a feature table where they are needed, and holding the last one of each side. Does not
belong here: which partition it is (`feature_tables.py`), what is done with the rows (`core/samples/sample_fg.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.samples.sample_fg import FeatureRows
from dssm_assets.steps.feature_tables import KEYS
from dssm_assets.storage.manifest import Manifest
from dssm_assets.storage.store_address import StoreAddress
from dssm_assets.storage.table_store import TableStore


class EveRows:
    """The feature rows of one table of each side at a time: days that share a table by content read it once.

    Pickled, it becomes that of the process that it comes to: a worker that maps many pieces reads a table once, from the
    store, and no rows travel.
    """

    def __init__(self, tables: TableStore) -> None:
        self._tables = tables
        self._held: dict[str, tuple[str, FeatureRows]] = {}

    def of(self, side: str, eve: Manifest | None) -> FeatureRows:
        """Returns where the features of a side stand in a partition; None: nowhere."""
        key, where = KEYS[side], f"table {side}_features_fg"
        if eve is None:
            nothing = pa.schema([(key, pa.int64()), (col.FEATURE_DATE, pa.string())]).empty_table()
            return FeatureRows(nothing, key, where)
        digest, held = self._held.get(side, ("", None))
        if held is None or digest != eve.digest:
            self._held.pop(side, None)  # two tables at once may be too much for a worker
            table = self._tables.read(eve, [key, col.FEATURE_DATE], as_dictionaries=[col.FEATURE_DATE])
            held = FeatureRows(table, key, where)
            self._held[side] = (eve.digest, held)
        return held

    def __reduce__(self) -> tuple[Callable[[StoreAddress], EveRows], tuple[StoreAddress]]:
        """Returns what makes it anew in another process."""
        return _of_this_process, (StoreAddress.of(self._tables.partitions),)


_OF_THIS_PROCESS: Final[dict[str, EveRows]] = {}
"""By address; a process that is started for the tasks of a job knows one."""


def _of_this_process(address: StoreAddress) -> EveRows:
    if (name := repr(address)) not in _OF_THIS_PROCESS:
        _OF_THIS_PROCESS[name] = EveRows(TableStore(address.open()))
    return _OF_THIS_PROCESS[name]
