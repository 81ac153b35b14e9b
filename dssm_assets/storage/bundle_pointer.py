"""The pointer to the bundle that is served, and how it moves: by publishing, by a rollback, by clearing away.

Belongs here: `Pointer` and its transitions, which are functions of the pointer before. Does not belong here: reading and
replacing the file (`bundle_store.py`).
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Pointer:
    """What current.json says.

    Attributes:
        bundle_id: the bundle that is served.
        previous: the one that a rollback goes to, None where there is none.
        ds: evaluation day of the bundle that is served.
        trail: the bundles that were served up to now, the present one last; those that were rolled back are left out.
        stored: all bundles in the order in which they were stored.
    """

    bundle_id: str
    previous: str | None
    ds: str
    trail: tuple[str, ...]
    stored: tuple[str, ...]

    @classmethod
    def of(cls, trail: tuple[str, ...], stored: tuple[str, ...], ds: str) -> Pointer:
        """Returns the pointer to the last bundle of a trail."""
        return cls(trail[-1], trail[-2] if len(trail) > 1 else None, ds, trail, stored)

    @classmethod
    def from_json(cls, text: str | bytes) -> Pointer:
        """Returns the pointer that a stored text describes.

        Raises:
            ValueError, KeyError, TypeError: it describes none.
        """
        found = json.loads(text)
        trail, stored = (tuple(map(str, found[key])) for key in ("trail", "stored"))
        pointer = cls.of(trail or (str(found["bundle_id"]),), stored, str(found["ds"]))
        if (pointer.bundle_id, pointer.previous) != (found["bundle_id"], found["previous"]):
            raise ValueError("bundle_id and previous are not the end of trail")
        return pointer

    def to_json(self) -> str:
        """Returns the stored text."""
        return json.dumps(asdict(self), indent=1) + "\n"

    def back_to(self, bundle_id: str, ds: str) -> Pointer:
        """Returns the pointer to a stored bundle; what was served after it is left out of the trail."""
        if bundle_id in self.trail:
            return Pointer.of(self.trail[: self.trail.index(bundle_id) + 1], self.stored, ds)
        return Pointer.of((*self.trail, bundle_id), self.stored, ds)

    def without(self, gone: Collection[str]) -> Pointer:
        """Returns the pointer with some bundles forgotten, never the one that is served."""
        trail, stored = (tuple(kept for kept in ids if kept not in gone) for ids in (self.trail, self.stored))
        return Pointer.of(trail, stored, self.ds)

    def surplus(self, keep: int) -> tuple[str, ...]:
        """Returns the stored bundles, the oldest first, that go if so many stay. The one served and its previous stay."""
        needed = {self.bundle_id, self.previous}
        spare = [kept for kept in self.stored if kept not in needed]
        room = max(0, keep - (len(self.stored) - len(spare)))
        return tuple(spare[: max(0, len(spare) - room)])


def after_publish(before: Pointer | None, bundle_id: str, ds: str) -> Pointer:
    """Returns the pointer once a bundle of a day is stored: to it, unless what is served is of a later day."""
    if before is None:
        return Pointer.of((bundle_id,), (bundle_id,), ds)
    stored = (*(kept for kept in before.stored if kept != bundle_id), bundle_id)
    if ds < before.ds:
        return Pointer.of(before.trail, stored, before.ds)
    return Pointer.of((*(kept for kept in before.trail if kept != bundle_id), bundle_id), stored, ds)
