"""Names in the configuration: scopes and populations, baselines, entries of registries, time formats.

The configuration imports this module, so it imports nothing of core and no heavy library. What a name means is defined
elsewhere (`evaluation/hits.py`, `evaluation/baselines/`, `models/`, `sources/time_format.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final


class Scope(StrEnum):
    """Which items of a user are to be found, and which items may be in the list."""

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
    """Which (user, item) pairs count in a rate."""

    WARM = "warm"
    """User and item both had a positive event in the window, so the model can know them."""
    NOT_WARM = "not_warm"
    """The user or the item had none."""
    ALL = "all"
    """Every pair."""


def counted_population(scope: Scope) -> Population:
    """Returns the population in which a scope is reported: warm pairs, but all pairs in scope `cold`."""
    return Population.ALL if scope is Scope.COLD else Population.WARM


@dataclass(frozen=True)
class Baseline:
    """A baseline that is scored next to every model.

    Attributes:
        label: its name in the terminal, the charts and the report.
        module: where its code is; `module:name` for several baselines in one file.
        is_extra: fitted only if `evaluation.extra_baselines` names it, installed or not.
        needs_library: whether it needs a library of its own.
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
    """Returns the baselines that need a name in `evaluation.extra_baselines`."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.is_extra)


REGISTRIES: Final[dict[str, Mapping[str, Any]]] = {}
"""`loss`, `sampler` or `pooling` -> its registry, from when its module is imported: by a plug-in, before a configuration is read."""

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
