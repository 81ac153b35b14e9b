"""Steps by name: the code location lists them without importing what they compute with.

`LazyStep("steps.evaluation", "ground_truth")` is the function `ground_truth` of `dssm_assets/steps/evaluation.py`, imported when it
is first called. A process that only shows the graph then loads neither torch, faiss nor an engine.
"""

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from dssm_assets.core.config.engines import Platform

if TYPE_CHECKING:
    from dssm_assets.steps.workspace import StepResult, Workspace

_PACKAGE = Path(__file__).parent.parent


@dataclass(frozen=True)
class LazyStep:
    """A step's name, callable like the function itself.

    Attributes:
        module: below `dssm_assets`, such as `steps.evaluation`.
    """

    module: str
    name: str

    def __call__(self, workspace: "Workspace", days: Sequence[str]) -> "Iterator[StepResult]":
        return getattr(importlib.import_module(f"dssm_assets.{self.module}"), self.name)(workspace, days)

    @property
    def file(self) -> Path:
        return _PACKAGE / f"{self.module.replace('.', '/')}.py"

    @property
    def line(self) -> int | None:
        """Returns the line of its definition, counted from 1; None if the file does not define it."""
        text = self.file.read_text(encoding="utf-8") if self.file.is_file() else ""
        match = re.search(rf"^def {self.name}\(", text, flags=re.MULTILINE)
        return None if match is None else text.count("\n", 0, match.start()) + 1


def code_references(step: LazyStep, platform: Platform) -> dict[str, Any]:
    """Returns the metadata entry that the UI shows as "code", or nothing for a step outside the package."""
    if step.line is None:
        return {}
    label = f"{step.module.replace('.', '/')}.py, {step.name}"
    reference: Any = dg.LocalFileCodeReference(file_path=str(step.file), line_number=step.line, label=label)
    if platform.git_url is not None:
        tree = "-/blob" if "gitlab" in platform.git_url else "blob"
        path = step.file.relative_to(_PACKAGE.parent).as_posix()
        url = f"{platform.git_url.rstrip('/')}/{tree}/{platform.git_branch}/{path}#L{step.line}"
        reference = dg.UrlCodeReference(url=url, label=label)
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[reference])}
