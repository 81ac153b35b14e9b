"""The user of a request, and the user as a bundle stores it: history or events, which events are new, the user's items.

Two events are the same if item and time are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, NamedTuple

from dssm_assets.core import columns as col
from dssm_assets.core.channels.channel import OwnItems
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets.service.engine.channels import NO_ITEMS, BundleChannels
from dssm_assets.service.engine.event_times import EventTimes
from dssm_assets.service.engine.id_rows import INT64, Id, IdRows
from dssm_assets.service.engine.request_encoder import NO_INPUTS, UserInputs, UserTower


class ItemEvents(NamedTuple):
    """Events in a request: each item's id and row, -1 of an unknown one, and its time; None if it has no times."""

    ids: list[Id]
    rows: list[int]
    times_ms: list[int] | None


NO_EVENTS: Final = ItemEvents([], [], None)


class SeenUser(NamedTuple):
    """The user of a request.

    Attributes:
        inputs: with the row of the stored user, and the new ones of its events.
        read_own: returns the user's items.
        needs_tower: whether the vector is another one than the stored one.
        ignored: names of the request that neither a feature nor the user's items read.
        replaced: which of `features` and `history` are not the stored ones, of a stored user.
    """

    inputs: UserInputs
    read_own: Callable[[], OwnItems]
    needs_tower: bool = False
    ignored: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()


class SeenUsers:
    """Looks up the users of requests to one bundle. Safe for any number of threads."""

    def __init__(self, bundle: Bundle, tower: UserTower, channels: BundleChannels | None) -> None:
        self._bundle, self._tower, self._channels = bundle, tower, channels
        self._times = EventTimes(bundle.manifest.get("calendar_start"), bundle.ds)

    def look_up(self, user_id: Any, inputs: UserInputs) -> SeenUser | None:
        """Returns the user of a request, None for one who is not stored and of whom it sends nothing.

        Raises:
            InputError: the id, the events or their times are invalid, both a history and events are sent, nothing reads the inputs, or the
                bundle stores no histories.
        """
        encoder, items = self._tower.encoder, self._bundle.items
        if inputs.is_empty:
            row = self._find_row(user_id)
            return None if row < 0 else SeenUser(replace(inputs, row=row), partial(self.read_own, row))
        histories = [f"features.{name}" for name in inputs.features if name in encoder.history_inputs]
        histories = ["history"] if inputs.history else histories
        if histories and inputs.events:
            remedy = "send events to add to the stored history, or history in place of it"
            raise InputError(Fault(f"{', '.join(histories)}, events", "one of them", "both", remedy))
        ignored, row = self._find_ignored(inputs), self._find_row(user_id)
        among = {name: inputs.features[name] for name in encoder.history_inputs if name in inputs.features}
        InputError.raise_if(self._times.find_faults({"features": among, "history": inputs.history, "events": inputs.events}))
        inputs = replace(inputs, history=self._name_items(inputs.history), events=self._name_items(inputs.events), row=row)
        needs_tower = bool(row < 0 or inputs.features or encoder.has_history)
        replaced = encoder.find_replaced(inputs) if needs_tower else ("history",) if inputs.history else ()
        if not inputs.events:
            return SeenUser(inputs, partial(self.read_own, row, inputs.history), needs_tower, ignored, replaced)
        stored = encoder.stored
        if row >= 0 and stored is None and encoder.has_history:
            expected, remedy = "a bundle with users' histories", "publish a bundle, or send the whole history as history"
            raise InputError(Fault("events", expected, f"bundle {self._bundle.bundle_id} without", remedy))
        own = self.read_own(row)
        known = set(zip(own.items.tolist(), own.last_time_ms.tolist(), strict=True))
        if row >= 0 and stored is not None:
            known |= stored.events(row)
        events = keep_new(inputs.events, read_item_events(inputs.events, items, "events"), known)
        read_own = partial(self.read_own, row, more=read_item_events(events, items, "events"))
        return SeenUser(replace(inputs, events=events), read_own, needs_tower, ignored, replaced)

    def _find_row(self, user_id: Any) -> int:
        users = self._bundle.users
        return -1 if user_id is None else users.find_row(users.parse_id(user_id, "user_id"))

    def _find_ignored(self, inputs: UserInputs) -> tuple[str, ...]:
        """Returns the names that nothing reads; raises an InputError if there are no others, but times of events."""
        encoder = self._tower.encoder
        more = () if self._channels is None else (col.ITEM_IDS, col.EVENT_TIMES_MS)
        of_features = dict.fromkeys(encoder.inputs)
        of_lists = of_features | dict.fromkeys(more)
        parts = [
            ("features", inputs.features, of_features),
            ("history", inputs.history, of_lists),
            ("events", inputs.events, of_lists),
        ]
        unread = {part: [name for name in names if name not in known] for part, names, known in parts}
        ignored = tuple(dict.fromkeys(name for names in unread.values() for name in names))
        is_read = any(name in known and name != col.EVENT_TIMES_MS for _, names, known in parts for name in names)
        if ignored and not is_read:
            of_events = [name for name in of_lists if name in encoder.history_inputs or name in more]
            known_names = {"features": list(of_features), "history": of_events, "events": of_events}
            raise InputError([_describe_unread(part, names, known_names[part]) for part, names in unread.items() if names])
        return ignored

    def _name_items(self, lists: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns lists of events with the items' ids as item_ids: those that the vector is of."""
        sent = next((name for name in self._tower.encoder.item_names if name in lists), None)
        return lists if sent is None else {**lists, col.ITEM_IDS: lists[sent]}

    def read_own(self, row: int, history: Mapping[str, Any] = NO_INPUTS.history, more: ItemEvents = NO_EVENTS) -> OwnItems:
        """Returns a user's items: of the history that was sent, else the stored ones, and of some more events.

        Without channels in the bundle they are empty.
        """
        if self._channels is None:
            return NO_ITEMS
        if history:
            own, more = NO_ITEMS, read_item_events(history, self._bundle.items, "history")
        else:
            own = NO_ITEMS if row < 0 else self._channels.own_items(row)
        return self._channels.add_events(own, more.rows, more.times_ms) if more.ids else own


def _describe_unread(part: str, names: Sequence[Any], known: Sequence[str]) -> Fault:
    """Returns the fault of a part of a request with names that nothing reads; the nearest of the known ones is named for the first."""
    remedy = "use the names of fg.json without their side: age for user:age"
    nearest = get_close_matches(str(names[0])[:80], known, 1, 0)
    remedy = f"write {nearest[0]} if you mean it; {remedy}" if nearest else remedy
    got = f"{', '.join(map(str, names))[:200]}, which nothing reads"
    return Fault(f"request, {part}", f"at least one of: {', '.join(known)}", got, remedy)


def read_item_events(lists: Mapping[str, Any], items: IdRows, where: str) -> ItemEvents:
    """Returns the events of `item_ids` and `event_times_ms` in the history or the events of a request.

    Raises:
        InputError: a value is no list, an id no id, a time no integer, or the lists have different lengths.
    """
    ids = items.parse_ids(_read_list(lists, "item_ids", where), f"{where}, item_ids")
    times = _read_list(lists, col.EVENT_TIMES_MS, where)
    if not all(type(time_ms) is int and time_ms in INT64 for time_ms in times):
        expected = f"{col.EVENT_TIMES_MS} of integers"
        raise InputError(Fault(f"request, {where}", expected, "other values", "send unix milliseconds"))
    if times and len(times) != len(ids):
        expected, got = f"as many {col.EVENT_TIMES_MS} as item_ids", f"{len(ids)} and {len(times)}"
        raise InputError(Fault(f"request, {where}", expected, got, "send one time per item"))
    return ItemEvents(ids, [items.find_row(item) for item in ids], list(times) if times else None)


def keep_new(lists: Mapping[str, Any], events: ItemEvents, known: Collection[tuple[int, int]]) -> dict[str, Any]:
    """Returns the lists of a request without the events that are known or were sent before; without times all are new.

    Raises:
        InputError: a value is no list, or has another length than item_ids.
    """
    if events.times_ms is None:
        return dict(lists)
    lists = {name: values for name in lists if (values := _read_list(lists, name, "events"))}
    InputError.raise_if(
        Fault(f"request, events, {name}", f"{len(events.ids)} values", f"{len(values)}", "send one value per item")
        for name, values in lists.items()
        if len(values) != len(events.ids)
    )
    sent: set[tuple[Id, int]] = set()
    kept = []
    for place, (item, row, time_ms) in enumerate(zip(events.ids, events.rows, events.times_ms, strict=True)):
        if (row, time_ms) not in known and (item, time_ms) not in sent:
            kept.append(place)
        sent.add((item, time_ms))
    return {name: [values[place] for place in kept] for name, values in lists.items()}


def _read_list(lists: Mapping[str, Any], name: str, where: str) -> list[Any] | tuple[Any, ...]:
    """Returns a list of the request; empty without it."""
    values = lists.get(name)
    if values is None:
        return []
    if not isinstance(values, list | tuple):
        raise InputError(Fault(f"request, {where}, {name}", "a list", type(values).__name__, "send one value per item"))
    return values
