"""Looks up the user of a request: checks the sent inputs, and reads the stored inputs and items.

Two events with the same item and time count as the same event. Times must lie between two years before the start of the bundle's
calendar and the end of tomorrow in UTC (or of the day after the bundle's day, if later). So seconds are not taken for
milliseconds. Bundles of earlier versions do not have their calendar's start; they accept any earlier time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np

from dssm_assets.core import columns as col
from dssm_assets.core.channels.channel import OwnItems
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets.service.engine.channels import NO_ITEMS, BundleChannels
from dssm_assets.service.engine.id_rows import INT64, Id, IdRows
from dssm_assets.service.engine.request_encoder import NO_INPUTS, RequestEncoder, RequestUser, UserInputs

_DAYS_BEFORE: Final = dt.timedelta(days=731)
_DAY_MS: Final = 86_400_000
_EPOCH: Final = dt.datetime(1970, 1, 1)


class ItemEvents(NamedTuple):
    """Events of a request: item ids, the items' rows (-1 if unknown), and times (None if not sent)."""

    ids: list[Id]
    rows: list[int]
    times_ms: list[int] | None


NO_EVENTS: Final = ItemEvents([], [], None)


class RequestUsers:
    """Looks up the users of requests to one bundle. Safe for any number of threads."""

    def __init__(self, bundle: Bundle, encoder: RequestEncoder, channels: BundleChannels | None) -> None:
        self._bundle, self._encoder, self._channels = bundle, encoder, channels
        start = bundle.manifest.get("calendar_start")
        self._first = None if start is None else dt.date.fromisoformat(start) - _DAYS_BEFORE

    def look_up(self, user_id: Any, inputs: UserInputs) -> RequestUser | None:
        """Returns the user of a request. None for an unknown user without inputs.

        Raises:
            InputError: the id, the events or their times are invalid; or both a history and events are sent; or nothing reads the
                sent inputs; or the bundle stores no histories.
        """
        encoder, row = self._encoder, -1
        if user_id is not None:
            row = self._bundle.users.find_row(self._bundle.users.parse_id(user_id, "user_id"))
        if inputs.is_empty:
            return None if row < 0 else RequestUser(row, partial(self._read_own, row))
        among = {name: values for name, values in inputs.features.items() if name in encoder.history_inputs}
        if inputs.events and (inputs.history or among):
            histories = "history" if inputs.history else ", ".join(f"features.{name}" for name in among)
            remedy = "send events to add to the stored history, or history in place of it"
            raise InputError(Fault(f"{histories}, events", "one of them", "both", remedy))
        ignored = self._find_ignored(inputs)
        parts = {"features": among, "history": inputs.history, "events": inputs.events}
        InputError.raise_if(_find_wrong_times(parts, self._first, self._bundle.ds))
        needs_tower = bool(row < 0 or inputs.features or encoder.has_history)
        is_sent = {
            "features": not encoder.user_inputs.isdisjoint(inputs.features),
            "history": bool(inputs.history or among),
        }
        lacks_stored = needs_tower and encoder.stored is None
        replaced = tuple(name for name in is_sent if row >= 0 and (is_sent[name] or lacks_stored))
        lists = self._name_items(inputs.history or inputs.events)
        if inputs.events:
            lists, new = self._keep_new(row, lists)
            read_own = partial(self._read_own, row, more=new)
        else:
            read_own = partial(self._read_own, row, history=lists)
        return RequestUser(row, read_own, inputs.features, lists, replaced, ignored, needs_tower)

    def _find_ignored(self, inputs: UserInputs) -> tuple[str, ...]:
        """Returns the names that nothing reads. Raises an InputError if only times remain."""
        encoder = self._encoder
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
        """Adds item_ids to lists of events that have the ids under another name."""
        sent = next((name for name in self._encoder.item_names if name in lists), None)
        return lists if sent is None else {**lists, col.ITEM_IDS: lists[sent]}

    def _keep_new(self, row: int, lists: Mapping[str, Any]) -> tuple[Mapping[str, Any], ItemEvents]:
        """Drops events that are already stored or repeated. Without times, all events are new. Raises an InputError for wrong lists."""
        stored, items = self._encoder.stored, self._bundle.items
        if row >= 0 and stored is None and self._encoder.has_history:
            expected, remedy = "a bundle with users' histories", "publish a bundle, or send the whole history as history"
            raise InputError(Fault("events", expected, f"bundle {self._bundle.bundle_id} without", remedy))
        sent = _read_item_events(lists, items, "events")
        if sent.times_ms is None:
            return lists, sent
        lists = {name: values for name in lists if (values := _read_list(lists, name, "events"))}
        InputError.raise_if(
            Fault(f"request, events, {name}", f"{len(sent.ids)} values", f"{len(values)}", "send one value per item")
            for name, values in lists.items()
            if len(values) != len(sent.ids)
        )
        own = self._read_own(row)
        known = set(zip(own.items.tolist(), own.last_time_ms.tolist(), strict=True))
        known |= stored.events(row) if stored is not None and row >= 0 else set()
        before, kept = set[tuple[Id, int]](), list[int]()
        for position, (item, item_row, time_ms) in enumerate(zip(sent.ids, sent.rows, sent.times_ms, strict=True)):
            if (item_row, time_ms) not in known and (item, time_ms) not in before:
                kept.append(position)
            before.add((item, time_ms))
        new = ItemEvents([sent.ids[at] for at in kept], [sent.rows[at] for at in kept], [sent.times_ms[at] for at in kept])
        return {name: [values[at] for at in kept] for name, values in lists.items()}, new

    def _read_own(self, row: int, history: Mapping[str, Any] = NO_INPUTS.history, more: ItemEvents = NO_EVENTS) -> OwnItems:
        """Returns a user's items: from the sent history, or else the stored items, and from further events. Empty without channels."""
        if self._channels is None:
            return NO_ITEMS
        own = NO_ITEMS if row < 0 or history else self._channels.own_items(row)
        more = _read_item_events(history, self._bundle.items, "history") if history else more
        return self._channels.add_events(own, more.rows, more.times_ms) if more.ids else own


def _find_wrong_times(parts: Mapping[str, Mapping[str, Any]], first: dt.date | None, ds: str) -> Iterator[Fault]:
    """Yields a fault for each part of a request with times before the first day (None: no limit) or after the last day."""
    last = max(dt.date.fromisoformat(ds), dt.datetime.now(dt.UTC).date()) + dt.timedelta(days=1)
    low = float("-inf") if first is None else _to_ms(first)
    high = _to_ms(last) + _DAY_MS
    for part, lists in parts.items():
        times = lists.get(col.EVENT_TIMES_MS)
        # Values that are no integers are reported when the list is read.
        given = times if isinstance(times, list | tuple | np.ndarray) else ()
        wrong = [
            int(one)
            for one in given
            if isinstance(one, int | np.integer) and not isinstance(one, bool) and not low <= one < high
        ]
        if not wrong:
            continue
        span = f"up to {last}" if first is None else f"from {first} to {last}"
        got, remedy = f"{wrong[0]}, which is {_show(wrong[0])}", "send unix milliseconds"
        if low <= (meant := wrong[0] * 1000) < high and first is not None:
            got, remedy = f"{got}; as seconds it is {_show(meant)}", "send milliseconds, not seconds"
        got = f"{got}; and {len(wrong) - 1} more" if len(wrong) > 1 else got
        yield Fault(f"request, {part}, {col.EVENT_TIMES_MS}", f"unix milliseconds {span}", got, remedy)


def _to_ms(day: dt.date) -> int:
    return (day - _EPOCH.date()).days * _DAY_MS


def _show(time_ms: int) -> str:
    try:
        return f"{_EPOCH + dt.timedelta(milliseconds=time_ms):%Y-%m-%d %H:%M:%S}"
    except OverflowError:
        return "no date of the years 1 to 9999"


def _describe_unread(part: str, names: Sequence[Any], known: Sequence[str]) -> Fault:
    """Returns a fault with the names of a request's part that nothing reads, and the known name nearest to the first."""
    remedy = "use the names of fg.json without their side: age for user:age"
    nearest = get_close_matches(str(names[0])[:80], known, 1, 0)
    remedy = f"write {nearest[0]} if you mean it; {remedy}" if nearest else remedy
    got = f"{', '.join(map(str, names))[:200]}, which nothing reads"
    return Fault(f"request, {part}", f"at least one of: {', '.join(known)}", got, remedy)


def _read_item_events(lists: Mapping[str, Any], items: IdRows, where: str) -> ItemEvents:
    """Reads the events in a request's `history` or `events`. Raises an InputError for wrong ids, times or lengths."""
    ids = items.parse_ids(_read_list(lists, "item_ids", where), f"{where}, item_ids")
    times = _read_list(lists, col.EVENT_TIMES_MS, where)
    if not all(type(time_ms) is int and time_ms in INT64 for time_ms in times):
        expected = f"{col.EVENT_TIMES_MS} of integers"
        raise InputError(Fault(f"request, {where}", expected, "other values", "send unix milliseconds"))
    if times and len(times) != len(ids):
        expected, got = f"as many {col.EVENT_TIMES_MS} as item_ids", f"{len(ids)} and {len(times)}"
        raise InputError(Fault(f"request, {where}", expected, got, "send one time per item"))
    return ItemEvents(ids, [items.find_row(item) for item in ids], list(times) if times else None)


def _read_list(lists: Mapping[str, Any], name: str, where: str) -> list[Any] | tuple[Any, ...]:
    values = lists.get(name)
    if values is None:
        return []
    if not isinstance(values, list | tuple):
        raise InputError(Fault(f"request, {where}, {name}", "a list", type(values).__name__, "send one value per item"))
    return values
