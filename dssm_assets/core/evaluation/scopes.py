"""Scopes and populations: which of a user's items are to be found, in which lists, and which pairs count.

The configuration names scopes, so this module imports neither numpy nor pyarrow. Does not belong here: cutting the truth by
them (`truth.py`), the lists of each scope (`hits.py`), their headings (`labels.py`).
"""

from __future__ import annotations

from enum import StrEnum


class Scope(StrEnum):
    """Which of a user's items are to be found, and which items are offered."""

    ALL = "all"
    """Everything that the user interacted with on the day; every item is a candidate."""
    DISCOVERY = "discovery"
    """What the user had not interacted with in the window. The user's window items are not candidates."""
    REPEAT = "repeat"
    """What the user had interacted with in the window already; every item is a candidate."""
    NEW = "new"
    """What the user had never interacted with before, in all stored days; every item is a candidate."""
    UNSEEN = "unseen"
    """The same items as in `new`. What the user ever interacted with before is not a candidate."""
    COLD = "cold"
    """What nobody had interacted with before, in all stored days; only such items are candidates."""


class Population(StrEnum):
    """Which pairs count."""

    WARM = "warm"
    """User and item both had a positive event in the window, so the model can know them."""
    NOT_WARM = "not_warm"
    """The user or the item had none."""
    ALL = "all"
    """Every pair."""


def counted_population(scope: Scope) -> Population:
    """Returns the population that a scope is reported in: warm, but all in scope `cold`, which has no warm item."""
    return Population.ALL if scope is Scope.COLD else Population.WARM
