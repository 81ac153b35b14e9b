"""Names in the configuration: scopes and populations, baselines, entries of registries, time formats.

The configuration imports this module, so this module imports nothing of core and no heavy library. Other modules implement
the names: `evaluation/hits.py`, `evaluation/baselines/`, `models/`, `sources/time_format.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Scope(StrEnum):
    """A scope has the items of a user that are to be found, and the candidates: items that may be in the list. Events are positive."""

    ALL = "all"
    """To find: all items of the day. Candidates: all items."""
    DISCOVERY = "discovery"
    """To find: items of the day that the user had no event with in the window. Candidates: all but the user's window items."""
    REPEAT = "repeat"
    """To find: items of the day that the user had an event with in the window. Candidates: all items."""
    NEW = "new"
    """To find: items of the day that the user had no event with on any earlier stored day. Candidates: all items."""
    UNSEEN = "unseen"
    """To find: the same items as in `new`. Candidates: all but the items of the user's whole history."""
    COLD = "cold"
    """To find: items of the day that nobody had an event with on any earlier stored day. Candidates: only such items."""


class Population(StrEnum):
    """A population says which (user, item) pairs count in a rate."""

    WARM = "warm"
    """The user and the item both had a positive event in the window, so the model can know them."""
    NOT_WARM = "not_warm"
    """The user, the item or both had no positive event in the window."""
    ALL = "all"
    """Every pair."""


def counted_population(scope: Scope) -> Population:
    """Returns the population that a scope is reported for: all pairs for scope `cold`, warm pairs for the others."""
    return Population.ALL if scope is Scope.COLD else Population.WARM


@dataclass(frozen=True)
class Baseline:
    """A baseline that is scored next to every model.

    Attributes:
        label: its name in the terminal, the charts and the report.
        module: module with its code; `module:name` if the module has several baselines.
        is_extra: whether it is fitted only if `evaluation.extra_baselines` names it.
        needs_library: whether it needs a further library.
    """

    label: str
    module: str
    is_extra: bool = True
    needs_library: bool = False


_HERE: Final = "dssm_assets.core.evaluation.baselines"
BASELINES: Final[dict[str, Baseline]] = {
    "popularity": Baseline("popularity", f"{_HERE}.popularity", is_extra=False),
    "recent_popularity": Baseline("recent popularity", f"{_HERE}.popularity:Recent", is_extra=False),
    "trend": Baseline("trend, week over week", f"{_HERE}.trend", is_extra=False),
    "item_cooccurrence": Baseline("item co-occurrence", f"{_HERE}.item_cooccurrence", is_extra=False),
    "neighbors_recent": Baseline("neighbors x popularity", f"{_HERE}.neighbors_recent", is_extra=False),
    "ease": Baseline("EASE", f"{_HERE}.ease", is_extra=False),
    "als": Baseline("implicit ALS", "dssm_assets.extras.als.als", needs_library=True),
    "own_history_window": Baseline("own history, window", f"{_HERE}.own_history:WINDOW", is_extra=False),
    "own_history_all": Baseline("own history, all days", f"{_HERE}.own_history:ALL_DAYS", is_extra=False),
}
"""Name in column `scorer` and in `gate.baselines` -> baseline, in the order of display, after the model."""


def extra_baselines() -> tuple[str, ...]:
    """Returns the baselines that are fitted only if `evaluation.extra_baselines` names them."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.is_extra)


REGISTRIES: Final[dict[str, Mapping[str, Any]]] = {}
"""`loss`, `sampler` or `pooling` -> its registry. A registry's module adds it when imported; plug-ins do so before the configuration."""

DIRECTIVES: Final = ("%Y", "%y", "%m", "%b", "%B", "%a", "%A", "%d", "%H", "%I", "%p", "%M", "%S", "%f", "%z")
TOKEN: Final = re.compile(r"%.|[^%]+|%$", re.DOTALL)
_MONTH_DIRECTIVES: Final = {"%m", "%b", "%B"}


def check_time_format(time_format: str) -> str:
    """Returns the format unchanged.

    Raises:
        ValueError: it has an unknown or repeated directive, no whole date, or a 12-hour clock without %p.
    """
    used = [token for token in TOKEN.findall(time_format) if token.startswith("%")]
    unknown = [token for token in used if token not in DIRECTIVES]
    has_date = "%d" in used and len(_MONTH_DIRECTIVES & set(used)) == 1 and ("%Y" in used) != ("%y" in used)
    has_clock = ("%I" in used) == ("%p" in used) and not {"%H", "%I"} <= set(used)
    if unknown or len(set(used)) < len(used) or not has_date or not has_clock:
        known = " ".join(DIRECTIVES)
        raise ValueError(
            f"expected a day, a month and a year, each once, of the directives {known}, %I with %p, such as '%d.%m.%Y %H:%M', "
            f"got {time_format!r}"
        )
    return time_format
