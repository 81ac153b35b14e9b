"""Which baselines exist, how they are fitted, and their scorers.

A new baseline is a file of this folder and one line here. The file defines `fit` and `scorer`, as of `BaselineModule`. From outside
the package, in a plug-in (docs/platform.md): `BASELINES["newest"] = Baseline("newest items", module="my_project.newest")`.

The configuration names baselines, so this module imports neither numpy nor these files before they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final, Protocol

from dssm_assets.core.errors import ConfigError, Fault

if TYPE_CHECKING:
    from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
    from dssm_assets.core.evaluation.interactions import Interactions
    from dssm_assets.core.evaluation.scorer import Scorer


class BaselineModule(Protocol):
    """What the file of a baseline defines. One that needs a library also defines `check_library()`, which raises a ConfigError."""

    def fit(self, data: FitData) -> Arrays:
        """Returns what all users have in common. Runs once per evaluation day."""

    def scorer(self, arrays: Arrays, window: Interactions, history: Interactions) -> Scorer:
        """Returns the scorer of the users of these interactions, which is a range of the evaluated users.

        Args:
            history: all their positive events before the evaluation day, those of the window included.
        """


@dataclass(frozen=True)
class Baseline:
    """A baseline that is scored next to every model.

    Attributes:
        label: what the terminal, the charts and the report call it.
        module: where its code is; `module:name` for several baselines in one file.
        is_extra: fitted only if `evaluation.extra_baselines` names it: what is installed does not decide what is evaluated.
        needs_library: of its own.
    """

    label: str
    module: str
    is_extra: bool = True
    needs_library: bool = False

    @property
    def code(self) -> Any:
        """Returns the `BaselineModule`."""
        module, _, name = self.module.partition(":")
        code = import_module(module)
        return getattr(code, name) if name else code


_HERE: Final = "dssm_assets.core.evaluation.baselines"
BASELINES: Final[dict[str, Baseline]] = {
    "popularity": Baseline("popularity", f"{_HERE}.popularity", is_extra=False),
    "recent_popularity": Baseline("recent popularity", f"{_HERE}.popularity:Recent", is_extra=False),
    "item_cooccurrence": Baseline("item co-occurrence", f"{_HERE}.item_cooccurrence", is_extra=False),
    "neighbors_recent": Baseline("neighbors x popularity", f"{_HERE}.neighbors_recent", is_extra=False),
    "ease": Baseline("EASE", f"{_HERE}.ease", is_extra=False),
    "als": Baseline("implicit ALS", "dssm_assets.extras.als.als", needs_library=True),
    "own_history_window": Baseline("own history, window", f"{_HERE}.own_history:WINDOW", is_extra=False),
    "own_history_all": Baseline("own history, all days", f"{_HERE}.own_history:ALL_DAYS", is_extra=False),
}
"""Name in column `scorer` and in `gate.baselines` -> baseline, in the order in which they are shown, after the model."""


def extra_baselines() -> tuple[str, ...]:
    """Returns those that are fitted only if `evaluation.extra_baselines` names them."""
    return tuple(name for name, baseline in BASELINES.items() if baseline.is_extra)


def check_extras(names: Sequence[str]) -> None:
    """Raises a ConfigError if the code of an extra baseline, or a library that it needs, cannot be imported."""
    for name in names:
        baseline = BASELINES[name]
        try:
            code = baseline.code
        except (ImportError, AttributeError) as error:
            expected = f"fit and scorer in {baseline.module}"
            raise ConfigError(Fault(f"BASELINES, {name}", expected, str(error), "correct its module")) from error
        if baseline.needs_library:
            code.check_library()


def fit_baselines(data: FitData, log: Callable[[str], None] = lambda line: None) -> dict[str, Arrays]:
    """Returns name -> arrays of every baseline, of the extra ones those that are configured; says which one is fitted."""
    extras = data.settings.extra_baselines
    check_extras(extras)
    fitted: dict[str, Arrays] = {}
    for name, one in BASELINES.items():
        if not one.is_extra or name in extras:
            log(f"fitting {one.label}")
            fitted[name] = one.code.fit(data)
    return fitted


def baseline_scorers(fitted: Mapping[str, Arrays], window: Interactions, history: Interactions) -> list[Scorer]:
    """Returns the scorers of the fitted baselines for some users; see `BaselineModule.scorer`."""
    return [BASELINES[name].code.scorer(arrays, window, history) for name, arrays in fitted.items()]
