"""Steps by name: the code location lists them without importing what they compute with.

`steps_of("evaluation").ground_truth` is the function `ground_truth` of `dssm_assets/steps/evaluation.py`, imported when it
is first called. A process that only shows the graph then loads neither torch, faiss, pandas nor an engine.

Belongs here: finding a step by its name, and where it stands. Does not belong here: what steps do.
"""

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult, Workspace

_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class LazyStep:
    """A step, callable as the function that it names."""

    module: str
    name: str

    def __call__(self, workspace: "Workspace", days: Sequence[str]) -> "Iterator[StepResult]":
        """Imports the step's module and runs the step."""
        return getattr(importlib.import_module(f"dssm_assets.steps.{self.module}"), self.name)(workspace, days)

    @property
    def file(self) -> Path:
        """Returns the file in which the step stands."""
        return _PACKAGE / "steps" / f"{self.module}.py"

    @property
    def line(self) -> int | None:
        """Returns the line of its definition, counted from 1; None where the file has none."""
        match = re.search(rf"^def {self.name}\(", _text(self.file), flags=re.MULTILINE)
        return None if match is None else _text(self.file).count("\n", 0, match.start()) + 1


@dataclass(frozen=True)
class StepModule:
    """A module of steps, none of them imported."""

    module: str

    def __getattr__(self, name: str) -> LazyStep:
        if name.startswith("_"):
            raise AttributeError(name)
        return LazyStep(self.module, name)


def steps_of(module: str) -> StepModule:
    """Returns the steps of `dssm_assets/steps/<module>.py`."""
    return StepModule(module)


@lru_cache(maxsize=64)
def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""
