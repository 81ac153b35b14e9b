"""The recipes of starter settings. Apart from the rules that choose one, so that `dssm-assets --help` loads no library."""

from __future__ import annotations

from enum import StrEnum


class Recipe(StrEnum):
    """A named starting point: which kind of log the settings are for."""

    RETAIL = "retail"
    """Users interact with the same items again: shops, groceries, music."""
    VIDEO = "video"
    """No user interacts with an item twice and histories are long: films, books, videos."""
    NEWS = "news"
    """Items live for days: news, offers, short videos."""
    SPARSE = "sparse"
    """Few events: short histories, or few users a day."""
