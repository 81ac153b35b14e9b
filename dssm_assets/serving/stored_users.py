"""What a bundle stores of its users, to which a request adds: encoded features, the latest events, and which events are new.

Two events are the same if item and time are the same. Letters: B users.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ragged import IntArray, combine_chunks, flatten
from dssm_assets.core.errors import Fault, InputError, StorageError
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.models.tower_input import feature_columns
from dssm_assets.core.models.tower_spec import TowerSide, TowerSpec
from dssm_assets.core.serving.user_inputs import EVENT_TIMES_MS, ITEM_ROWS, history_column
from dssm_assets.serving.bundle import Bundle
from dssm_assets.serving.id_rows import Id, IdRows

Event = tuple[int, int]
"""Row of an item, and time in unix milliseconds."""
_INT64: Final = range(-(2**63), 2**63)


class StoredUsers:
    """The stored inputs of a bundle's users; look-ups read the memory-mapped file."""

    def __init__(self, bundle: Bundle, spec: TowerSpec) -> None:
        """Maps the file of a bundle that has one.

        Raises:
            StorageError: it has other rows or columns than the bundle's users and user tower.
        """
        self._table = bundle.read_arrow(BundleFile.USER_INPUTS)
        self._features = list(feature_columns(spec.features_of(TowerSide.USER)))
        self._history = [history_column(feature.name) for feature in spec.sequences]
        lacking = {*self._features, *self._history, ITEM_ROWS, EVENT_TIMES_MS} - set(self._table.column_names)
        if lacking or self._table.num_rows != len(bundle.users):
            got = (
                f"{self._table.num_rows} rows for {len(bundle.users)} users, without {', '.join(sorted(lacking)) or 'nothing'}"
            )
            raise StorageError(f"bundle {bundle.bundle_id}: user_inputs.arrow has {got}. To fix: publish the bundle again")

    def features(self, rows: Sequence[int]) -> dict[str, pa.Array]:
        """Returns the user features' columns of embedding indices and weights [B]."""
        table = self._rows(rows, self._features)
        return {name: table.column(name).chunk(0) for name in self._features}

    def history(self, rows: Sequence[int]) -> tuple[IntArray, list[pa.Array], IntArray]:
        """Returns the times of all events, the sub-features' embedding indices of each, and where each user's begin [B + 1]."""
        table = self._rows(rows, [EVENT_TIMES_MS, *self._history])
        (times, offsets), *features = (flatten(combine_chunks(column)) for column in table.columns)
        return times.to_numpy(), [values for values, _ in features], offsets

    def events(self, row: int) -> set[Event]:
        """Returns the latest events of a user, without those on items that the bundle lacks."""
        table = self._rows([row], [ITEM_ROWS, EVENT_TIMES_MS])
        items, times = (column[0].values.to_pylist() for column in table.columns)
        return {(item, time_ms) for item, time_ms in zip(items, times, strict=True) if item >= 0}

    def _rows(self, rows: Sequence[int], names: list[str]) -> pa.Table:
        # Slices, because `take` would copy all chunks of the file.
        table = self._table.select(names)
        return pa.concat_tables([table.slice(row, 1) for row in rows]).combine_chunks()


class ItemEvents(NamedTuple):
    """Events in a request: each item's id and row, -1 of an unknown one, and its time; None if it has no times."""

    ids: list[Id]
    rows: list[int]
    times_ms: list[int] | None


NO_EVENTS: Final = ItemEvents([], [], None)


def read_item_events(lists: Mapping[str, Any], items: IdRows, where: str) -> ItemEvents:
    """Returns the events of `item_ids` and `event_times_ms` in the history or the events of a request.

    Raises:
        InputError: a value is no list, an id no id, a time no integer, or the lists have different lengths.
    """
    ids = items.parse_ids(_read_list(lists, "item_ids", where), f"{where}, item_ids")
    times = _read_list(lists, col.EVENT_TIMES_MS, where)
    if not all(type(time_ms) is int and time_ms in _INT64 for time_ms in times):
        expected = f"{col.EVENT_TIMES_MS} of integers"
        raise InputError(Fault(f"request, {where}", expected, "other values", "send unix milliseconds"))
    if times and len(times) != len(ids):
        expected, got = f"as many {col.EVENT_TIMES_MS} as item_ids", f"{len(ids)} and {len(times)}"
        raise InputError(Fault(f"request, {where}", expected, got, "send one time per item"))
    return ItemEvents(ids, [items.find_row(item) for item in ids], list(times) if times else None)


def keep_new(lists: Mapping[str, Any], events: ItemEvents, known: Collection[Event]) -> dict[str, Any]:
    """Returns the lists of a request without the events that are known or were sent before; without times all are new.

    Raises:
        InputError: a value is no list, or has another length than item_ids.
    """
    if events.times_ms is None:
        return dict(lists)
    sent: set[tuple[Id, int]] = set()
    kept = []
    for place, (item, row, time_ms) in enumerate(zip(events.ids, events.rows, events.times_ms, strict=True)):
        if (row, time_ms) not in known and (item, time_ms) not in sent:
            kept.append(place)
        sent.add((item, time_ms))
    wrong = [name for name, values in lists.items() if len(_read_list(lists, name, "events")) != len(events.ids) and values]
    InputError.raise_if(
        Fault(f"request, events, {name}", f"{len(events.ids)} values", f"{len(lists[name])}", "send one value per item")
        for name in wrong
    )
    return {name: [values[place] for place in kept] for name, values in lists.items() if values}


def _read_list(lists: Mapping[str, Any], name: str, where: str) -> list[Any] | tuple[Any, ...]:
    """Returns a list of the request; empty without it.

    Raises:
        InputError: the value is no list.
    """
    values = lists.get(name)
    if values is None:
        return []
    if not isinstance(values, list | tuple):
        raise InputError(Fault(f"request, {where}, {name}", "a list", type(values).__name__, "send one value per item"))
    return values
