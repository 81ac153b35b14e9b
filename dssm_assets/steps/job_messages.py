"""What a job, a step that runs in a process elsewhere, is told, and what it tells: JSON values.

Belongs here: both directions. Does not belong here: how messages travel (`deployment/spark_job.py`, `defs/spark_runs.py`).
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from dssm_assets.steps.workspace import Check, StepResult, Workspace
from dssm_assets.storage.config_file import LoadedConfig, described, restored
from dssm_assets.storage.manifest import Manifest

FAULT: Final = "fault"
"""Key of the message that says why a job failed."""


@dataclass(frozen=True)
class Job:
    """The step `step` of `dssm_assets/steps/<module>.py`, over days, in a scene."""

    module: str
    step: str
    days: tuple[str, ...]
    loaded: LoadedConfig

    def to_message(self) -> dict[str, Any]:
        """Returns the job as JSON values."""
        return {"module": self.module, "step": self.step, "days": list(self.days), "scene": described(self.loaded)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> Job:
        """Returns the job that a message tells."""
        return cls(message["module"], message["step"], tuple(message["days"]), restored(message["scene"]))

    def run(self, workspace: Workspace) -> Iterator[StepResult]:
        """Runs the step in a workspace."""
        module = importlib.import_module(f"dssm_assets.steps.{self.module}")
        step: Callable[[Workspace, Sequence[str]], Iterator[StepResult]] = getattr(module, self.step)
        return step(workspace, self.days)


def message_of(result: StepResult, seconds: float) -> dict[str, Any]:
    """Returns what a step made in how many seconds, as JSON values. Reports and images do not travel.

    Raises:
        TypeError: a fact is no JSON value.
    """
    body = {
        "manifest": json.loads(result.manifest.to_json()),
        "facts": dict(result.facts),
        "checks": [asdict(check) for check in result.checks],
        "seconds": seconds,
    }
    return dict(json.loads(json.dumps(body)))


def result_of(message: Mapping[str, Any]) -> tuple[StepResult, float]:
    """Returns the result and the seconds that a message tells."""
    checks = tuple(Check(**check) for check in message["checks"])
    manifest = Manifest.from_json(json.dumps(message["manifest"]))
    return StepResult(manifest, message["facts"], checks), float(message["seconds"])
