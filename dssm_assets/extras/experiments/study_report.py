"""The trials of a study as a table, and the configuration of its winner."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import yaml

from dssm_assets.extras.experiments.experiment import describe_changes


class TrialState(StrEnum):
    """How a trial ended."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    FAILED = "failed"


@dataclass(frozen=True)
class Trial:
    """One finished trial.

    Attributes:
        name: of its experiment.
        changes: settings that differ from the configuration.
        state: how it ended.
        hit_rate: of its best epoch on the validation days; None: none was scored.
        epoch: its best epoch, from 1; None: none was scored.
        seconds: it took.
        fault: why it failed; empty otherwise.
    """

    name: str
    changes: Mapping[str, Any]
    state: TrialState
    hit_rate: float | None
    epoch: int | None
    seconds: float
    fault: str = ""


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """Returns the complete trial with the highest hit rate, of equal ones the first; None without a complete trial."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.hit_rate is not None]
    return max(complete, key=lambda trial: trial.hit_rate or 0.0, default=None)


def trials_markdown(trials: Sequence[Trial], k: int) -> str:
    """Returns the trials as a Markdown table in the order of their hit rates, those without one last."""
    lines = [f"| trial | hit_rate@{k} | best epoch | state | changed |", "|---|---|---|---|---|"]
    for trial in sorted(trials, key=lambda one: (one.hit_rate is None, -(one.hit_rate or 0.0), one.name)):
        rate = "" if trial.hit_rate is None else f"{trial.hit_rate:.4f}"
        epoch = "" if trial.epoch is None else str(trial.epoch)
        changed = describe_changes(trial.changes) or "nothing"
        lines.append(
            f"| {trial.name} | {rate} | {epoch} | {trial.state} | {changed}{f'; {trial.fault}' if trial.fault else ''} |"
        )
    return "\n".join(lines) + "\n"


def tuned_yaml(raw: Mapping[str, Any], changes: Mapping[str, Any], table: str, head: Sequence[str]) -> str:
    """Returns a configuration file with some values replaced, with the table of trials as a comment.

    Args:
        changes: key `section.name` -> value.
    """
    sections = {key: dict(value) if isinstance(value, Mapping) else value for key, value in raw.items()}
    for key, value in changes.items():
        section, _, name = key.partition(".")
        sections.setdefault(section, {})[name] = value
    comment = "".join(f"# {line}".rstrip() + "\n" for line in [*head, "", *table.splitlines()])
    return comment + "\n" + yaml.safe_dump(sections, sort_keys=False, allow_unicode=True)
