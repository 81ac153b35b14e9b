"""Registers asset checks of plug-ins: `CHECKS["my_check"] = AssetCheck(...)` (docs/platform.md#plug-ins).

Does not belong here: the checks of our own steps. These return their checks with their results.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from dssm_assets.core.errors import ConfigError, Fault

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import Check, StepResult, Workspace


@dataclass(frozen=True)
class AssetCheck:
    """A check of each partition of an asset, made when the partition is stored.

    Attributes:
        asset: name of the asset, without a prefix.
        function: called with the workspace and the step's result; `result.manifest` is the partition, `result.facts` its figures.
        description: states the rule that a partition must satisfy.
        is_blocking: True: a failure stops all downstream assets.
    """

    asset: str
    function: Callable[[Workspace, StepResult], Check]
    description: str
    is_blocking: bool = False


CHECKS: Final[dict[str, AssetCheck]] = {}
"""Name -> check of a plug-in."""


def add_checks(asset: str, workspace: Workspace, result: StepResult) -> StepResult:
    """Returns the step's result with the outcomes of all registered checks of its asset.

    Raises:
        ConfigError: a registered function does not return a `Check` under its own name.
    """
    found = tuple(_run(name, one, workspace, result) for name, one in CHECKS.items() if one.asset == asset)
    return replace(result, checks=(*result.checks, *found)) if found else result


def _run(name: str, check: AssetCheck, workspace: Workspace, result: StepResult) -> Check:
    from dssm_assets.steps.workspace import Check

    outcome = check.function(workspace, result)
    if not isinstance(outcome, Check) or outcome.name != name:
        expected, remedy = f"a Check named {name!r}", "return Check(name, is_passed, ...) of dssm_assets.steps.workspace"
        raise ConfigError(Fault(f"CHECKS, {name}, its function", expected, repr(outcome), remedy))
    return outcome


def check_names(ours: Mapping[str, Collection[str]]) -> None:
    """Refuses registered checks of unknown assets, and checks with an invalid or taken name.

    Args:
        ours: asset -> names of the checks that its step makes.

    Raises:
        ConfigError: names every registered check with a fault.
    """
    ConfigError.raise_if(_find_faults(ours))


def _find_faults(ours: Mapping[str, Collection[str]]) -> Iterator[Fault]:
    for name, check in CHECKS.items():
        where = f"CHECKS, {name}"
        if check.asset not in ours:
            yield Fault(where, f"an asset: {', '.join(ours)}", repr(check.asset), "correct the asset that the check names")
        if name in ours.get(check.asset, ()) or re.fullmatch(r"\w+", name, re.ASCII) is None:
            expected = "a name of letters, digits and _ which no check of the asset has"
            yield Fault(where, expected, repr(name), "give the check another name")
