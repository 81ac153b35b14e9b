"""A step that a test defines."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dssm_assets.defs.asset_row import LazyStep


@dataclass(frozen=True)
class LocalStep(LazyStep):
    """Calls a function in place of one of a module."""

    function: Callable[..., Any]

    def __call__(self, workspace, days):
        return self.function(workspace, days)
