"""Which baselines exist. A new one is a file of this folder, named after it, and one line here.

The file defines the two functions of `suite.BaselineModule`: `fit` and `scorer`. This module imports none of these files, so
that the configuration can name baselines without loading numpy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Baseline:
    """A baseline that is scored next to every model.

    Attributes:
        name: in column `scorer` and in `gate.baselines`; its code is `baselines/{name}.py`.
        label: what the terminal, the charts and the report call it.
        is_extra: fitted only if `evaluation.extra_baselines` names it, because it needs a library of its own.
    """

    name: str
    label: str
    is_extra: bool = False


BASELINES: Final = (
    Baseline("popularity", "popularity"),
    Baseline("recent_popularity", "recent popularity"),
    Baseline("item_cooccurrence", "item co-occurrence"),
    Baseline("ease", "EASE"),
    Baseline("als", "implicit ALS", is_extra=True),
    Baseline("own_history_window", "own history, window"),
    Baseline("own_history_all", "own history, all days"),
)
"""In the order in which they are shown, after the model."""
BASELINE_NAMES: Final = tuple(baseline.name for baseline in BASELINES)
EXTRA_BASELINES: Final = tuple(baseline.name for baseline in BASELINES if baseline.is_extra)
