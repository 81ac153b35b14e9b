"""Which baselines exist. A new one is a file of this folder, named after it, and one line here.

The file defines the two functions of `suite.BaselineModule`: `fit` and `scorer`. This module imports none of these files, so
that the configuration can name baselines without loading numpy. From outside the package, in a plug-in (docs/platform.md):
`BASELINES["newest"] = Baseline("newest items", module="my_project.newest")`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Baseline:
    """A baseline that is scored next to every model.

    Attributes:
        label: what the terminal, the charts and the report call it.
        needs_library: of its own.
        module: of a plug-in, where its code is; without one it is `baselines/{name}.py`.
    """

    label: str
    needs_library: bool = False
    module: str | None = None

    @property
    def is_extra(self) -> bool:
        """Whether it is fitted only if `evaluation.extra_baselines` names it: what is installed does not decide what is evaluated."""
        return self.needs_library or self.module is not None


BASELINES: Final[dict[str, Baseline]] = {
    "popularity": Baseline("popularity"),
    "recent_popularity": Baseline("recent popularity"),
    "item_cooccurrence": Baseline("item co-occurrence"),
    "ease": Baseline("EASE"),
    "als": Baseline("implicit ALS", needs_library=True),
    "own_history_window": Baseline("own history, window"),
    "own_history_all": Baseline("own history, all days"),
}
"""Name in column `scorer` and in `gate.baselines` -> baseline, in the order in which they are shown, after the model."""


def extra_baselines() -> tuple[str, ...]:
    """Returns those that are fitted only if `evaluation.extra_baselines` names them."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.is_extra)
