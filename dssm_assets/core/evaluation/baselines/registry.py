"""Fits the baselines and makes their scorers.

To add a baseline, write a file in this folder with `fit` and `scorer` (see `BaselineModule`) and one line in `BASELINES` of
`core/names.py`. A plug-in (docs/platform.md) sets `BASELINES["newest"] = Baseline("newest items", module="my_project.newest")`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.scorer import Scorer
from dssm_assets.core.names import BASELINES, Baseline


class BaselineModule(Protocol):
    """The functions in a baseline's file. If it needs a library, `check_library()` raises a ConfigError without it."""

    def fit(self, data: FitData) -> Arrays:
        """Fits the arrays that all users share; runs once per evaluation day."""

    def scorer(self, arrays: Arrays, window: Interactions, history: Interactions) -> Scorer:
        """Returns the scorer for a range of the evaluated users.

        Args:
            history: the users' positive events before the evaluation day, including the window's.
        """


def load_code(baseline: Baseline) -> Any:
    module, _, name = baseline.module.partition(":")
    code = import_module(module)
    return getattr(code, name) if name else code


def check_extras(names: Sequence[str]) -> None:
    """Raises a ConfigError if the code or the library of an extra baseline cannot be imported."""
    for name in names:
        baseline = BASELINES[name]
        try:
            code = load_code(baseline)
        except (ImportError, AttributeError) as error:
            expected = f"fit and scorer in {baseline.module}"
            raise ConfigError(Fault(f"BASELINES, {name}", expected, str(error), "correct its module")) from error
        if baseline.needs_library:
            code.check_library()


def fit_baselines(data: FitData, log: Callable[[str], None] = lambda line: None) -> dict[str, Arrays]:
    """Fits the built-in baselines and the configured extra baselines. Returns name -> arrays."""
    extras = data.settings.extra_baselines
    check_extras(extras)
    fitted: dict[str, Arrays] = {}
    for name, one in BASELINES.items():
        if not one.is_extra or name in extras:
            log(f"fitting {one.label}")
            fitted[name] = load_code(one).fit(data)
    return fitted


def baseline_scorers(fitted: Mapping[str, Arrays], window: Interactions, history: Interactions) -> list[Scorer]:
    """Returns the scorers of the fitted baselines for some users; see `BaselineModule.scorer`."""
    return [load_code(BASELINES[name]).scorer(arrays, window, history) for name, arrays in fitted.items()]
