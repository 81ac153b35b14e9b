"""Fits the baselines of the registry and makes their scorers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.baselines.registry import BASELINES
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import Scorer


class BaselineModule(Protocol):
    """What the file of a baseline defines."""

    def fit(self, data: FitData) -> Arrays:
        """Returns what all users have in common. Runs once per evaluation day."""

    def scorer(self, arrays: Arrays, window: Interactions, history: Interactions) -> Scorer:
        """Returns the scorer of the users of these interactions, which is a range of the evaluated users.

        Args:
            history: all their positive events before the evaluation day, those of the window included.
        """


def check_extras(names: Sequence[str]) -> None:
    """Checks that the libraries of some extra baselines are installed.

    Raises:
        ConfigError: naming what to install.
    """
    for name in names:
        if BASELINES[name].needs_library:
            _import_module(name).check_library()


def fit_baselines(data: FitData) -> dict[str, Arrays]:
    """Returns name -> arrays of every baseline, of the extra ones those that are configured.

    Raises:
        ConfigError: if the library of a configured one is not installed.
    """
    check_extras(data.settings.extra_baselines)
    extras = data.settings.extra_baselines
    wanted = [name for name, baseline in BASELINES.items() if not baseline.is_extra or name in extras]
    return {name: _import_module(name).fit(data) for name in wanted}


def baseline_scorers(fitted: Mapping[str, Arrays], window: Interactions, history: Interactions) -> list[Scorer]:
    """Returns the scorers of the fitted baselines for some users; see `BaselineModule.scorer`."""
    return [_import_module(name).scorer(arrays, window, history) for name, arrays in fitted.items()]


def _import_module(name: str) -> Any:
    """Returns the file of a baseline, a `BaselineModule`; of one that needs a library, it also defines `check_library`."""
    return importlib.import_module(BASELINES[name].module or f"dssm_assets.core.evaluation.baselines.{name}")
