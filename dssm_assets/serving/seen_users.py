"""What a request says of its user, next to what a bundle stores: history or events, which events are new, the user's items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from dssm_assets.core.channels.sources import OwnItems
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.serving.bundle import Bundle
from dssm_assets.serving.channels import NO_ITEMS, BundleChannels
from dssm_assets.serving.request_encoder import NO_INPUTS, UserInputs
from dssm_assets.serving.stored_users import NO_EVENTS, ItemEvents, keep_new, read_item_events
from dssm_assets.serving.user_tower import UserTower


class SeenUser(NamedTuple):
    """The user of a request."""

    inputs: UserInputs
    """With the row of the stored user, and the new ones of its events."""
    read_own: Callable[[], OwnItems]
    """Returns the user's items."""
    needs_tower: bool
    """Whether the vector is another one than the stored one."""


class SeenUsers:
    """Looks up the users of requests to one bundle. Safe for any number of threads."""

    def __init__(self, bundle: Bundle, tower: UserTower, channels: BundleChannels | None) -> None:
        self._bundle, self._tower, self._channels = bundle, tower, channels

    def look_up(self, user_id: Any, inputs: UserInputs) -> SeenUser:
        """Returns the user of a request that sends something.

        Raises:
            InputError: the id or the events are invalid, both history and events are sent, or the bundle stores no histories.
        """
        users, items, stored = self._bundle.users, self._bundle.items, self._tower.stored
        if inputs.history and inputs.events:
            remedy = "send events to add to what is stored, or history in place of it"
            raise InputError(Fault("history, events", "one of them", "both", remedy))
        row = -1 if user_id is None else users.find_row(users.parse_id(user_id, "user_id"))
        if not inputs.events:
            return SeenUser(replace(inputs, row=row), partial(self.read_own, row, inputs.history), needs_tower=True)
        if row >= 0 and stored is None and self._tower.reads_history:
            expected, remedy = "a bundle with users' histories", "publish a bundle, or send the whole history as history"
            raise InputError(Fault("events", expected, f"bundle {self._bundle.bundle_id} without", remedy))
        own = self.read_own(row)
        known = set(zip(own.items.tolist(), own.last_time_ms.tolist(), strict=True))
        if row >= 0 and stored is not None:
            known |= stored.events(row)
        events = keep_new(inputs.events, read_item_events(inputs.events, items, "events"), known)
        read_own = partial(self.read_own, row, more=read_item_events(events, items, "events"))
        needs_tower = bool(row < 0 or inputs.features or self._tower.reads_history)
        return SeenUser(replace(inputs, events=events, row=row), read_own, needs_tower)

    def read_own(self, row: int, history: Mapping[str, Any] = NO_INPUTS.history, more: ItemEvents = NO_EVENTS) -> OwnItems:
        """Returns a user's items: of the history that was sent, else the stored ones, and of some more events.

        There are none where the bundle has no channels.
        """
        if self._channels is None:
            return NO_ITEMS
        if history:
            return self._channels.add_events(NO_ITEMS, read_item_events(history, self._bundle.items, "history"))
        own = NO_ITEMS if row < 0 else self._channels.own_items(row)
        return self._channels.add_events(own, more) if more.ids else own
