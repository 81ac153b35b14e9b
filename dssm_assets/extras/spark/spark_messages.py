"""The JSON messages between a run and the Spark job that does its work: which step to run, and the results of each day."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from dssm_assets.steps.workspace import Check, StepResult, Workspace
from dssm_assets.storage.config_file import LoadedConfig, config_from_json, config_to_json
from dssm_assets.storage.manifest import Manifest

FAULT: Final = "fault"
"""Key of the message that says why a job failed."""


@dataclass(frozen=True)
class SparkJob:
    """The step `step` of the module `dssm_assets.<module>`, over some days, in a scene."""

    module: str
    step: str
    days: tuple[str, ...]
    loaded: LoadedConfig

    def to_message(self) -> dict[str, Any]:
        return {"module": self.module, "step": self.step, "days": list(self.days), "scene": config_to_json(self.loaded)}

    @classmethod
    def from_message(cls, message: Mapping[str, Any]) -> SparkJob:
        return cls(message["module"], message["step"], tuple(message["days"]), config_from_json(message["scene"]))

    def run(self, workspace: Workspace) -> Iterator[StepResult]:
        """Runs the step in a workspace."""
        step = getattr(importlib.import_module(f"dssm_assets.{self.module}"), self.step)
        yield from step(workspace, self.days)


def result_to_message(result: StepResult, seconds: float) -> dict[str, Any]:
    """Returns the result of a day and its duration as JSON values, without report and images.

    Raises:
        TypeError: if a fact is not a JSON value.
    """
    checks = [asdict(check) for check in result.checks]
    body = {"manifest": result.manifest.to_json(), "facts": dict(result.facts), "checks": checks, "seconds": seconds}
    return dict(json.loads(json.dumps(body)))


def result_from_message(message: Mapping[str, Any]) -> tuple[StepResult, float]:
    """Returns the result and the seconds of a message."""
    checks = tuple(Check(**check) for check in message["checks"])
    return StepResult(Manifest.from_json(message["manifest"]), message["facts"], checks), float(message["seconds"])
