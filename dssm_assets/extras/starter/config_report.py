"""What people read of a configuration: how it matches its data; of a new one the survey that it comes from, and the next commands."""

from __future__ import annotations

import datetime as dt
import re
import shlex
from pathlib import Path
from typing import Final

from dssm_assets.core.errors import Fault
from dssm_assets.extras.starter.config_checks import Validation, validate
from dssm_assets.extras.starter.log_table import to_date
from dssm_assets.extras.starter.starter_inputs import StarterInputs
from dssm_assets.storage.config_choice import UI_COMMAND
from dssm_assets.storage.config_file import load_config

SHOWN_DAYS: Final = 4
"""Last days that the printed commands evaluate at most; each is a fit."""
_PATH: Final = re.compile(r"\S*/[^,]*")
"""The path of a file, up to the next comma."""


def describe_validation(found: Validation, name: str) -> str:
    """Returns the figures of a validation and its numbered faults; faults that differ in the file are grouped."""
    lines = [f"  {what}: {figure}" for what, figure in found.figures.items()]
    if not found.faults:
        return "\n".join([*lines, f"{name} matches its data."])
    count = len(found.faults)
    lines.append(f"{name}: {count} fault{'s' if count > 1 else ''}")
    groups: dict[str, list[Fault]] = {}
    for fault in sorted(found.faults, key=lambda fault: fault.where):
        plain = Fault(_PATH.sub("", fault.where), fault.expected, fault.got, fault.remedy)
        groups.setdefault(str(plain), []).append(fault)
    for number, (fault, *others) in enumerate(groups.values(), start=1):
        more = f". The same in {len(others)} more files, the last one: {others[-1].where}." if others else ""
        lines.append(f"  {number}. {fault}{more}")
    return "\n".join(lines)


def describe_starter(inputs: StarterInputs, home: Path, today: dt.date) -> tuple[str, bool]:
    """Returns what was written and why, and how it matches the tables as of a day; and whether it does."""
    settings = inputs.settings
    found = validate(load_config(inputs.path, home, checks_features=False), today)
    lines = [
        f"Wrote {inputs.path} and fg.json next to it. Read config.yaml once: a comment explains each choice.",
        f"Recipe {settings.recipe}: {settings.recipe_reason}.",
        *(f"Note: {note}." for note in inputs.notes),
        describe_validation(found, str(inputs.path)),
    ]
    return "\n".join(lines), not found.faults


def next_commands(inputs: StarterInputs, home: Path, project: Path | None = None, *, has_instance: bool = False) -> str:
    """Returns the commands that lead to the first hit rates and lists, ready to be pasted in any folder.

    Args:
        project: of a component, in which folder `dg` works: Dagster makes the runs, under the names that the project's UI has.
        has_instance: the project has a Dagster instance already, DAGSTER_HOME.
    """
    days, settings, name = inputs.settings.evaluation_days, inputs.settings, inputs.name
    last = days.last or settings.start + dt.timedelta(days=days.window)
    first = last
    if settings.values["span_days"] is None:  # else each day is a span of several, which is a fit for each
        first = min((day for day in map(to_date, days.days) if day > last - dt.timedelta(days=SHOWN_DAYS)), default=last)
    config, folder = shlex.quote(str(inputs.path)), shlex.quote(str(home))
    if project is None:
        commands = [f"export DSSM_CONFIG={config} DAGSTER_HOME={folder}"]
        fit = f"dssm-assets materialize train_and_evaluate --from {first} --to {last} --with-upstream"
        publish, ui = f"dssm-assets materialize publish --from {last} --with-upstream", UI_COMMAND
    else:
        instance = shlex.quote(str(home.parent / "instance"))
        commands = [f"cd {shlex.quote(str(project))}", f"export DSSM_CONFIG={config} DSSM_HOME={folder}"]
        if not has_instance:
            commands.append(f"mkdir -p {instance} && export DAGSTER_HOME={instance}  # where Dagster records runs")
        fit = f"dg launch --job {name}_train_and_evaluate --partition {last}"
        publish, ui = f"dg launch --job {name}_publish --partition {last}", "dg dev"
    commands += [
        fit,
        "dssm-assets hit-rates",
        f"{publish}  # what recall and serve answer from",
        f"dssm-assets recall --user-id {shlex.quote(inputs.example_user)} -k 20",
        "dssm-assets serve --port 8000  # lists over HTTP: http://127.0.0.1:8000/docs",
        f"{ui}  # the UI: http://127.0.0.1:3000",
    ]
    return "\n".join(["", "Next:", *(f"  {command}" for command in commands)])
