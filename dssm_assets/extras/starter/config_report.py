"""What people read of a configuration: how it matches its data; of a new one the survey that it comes from, and the next commands.

`dssm-assets init`, `dssm-assets validate` and the component's scaffolding print it.
"""

from __future__ import annotations

import datetime as dt
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from dssm_assets.core.errors import Fault
from dssm_assets.extras.starter.config_checks import Validation, validate
from dssm_assets.extras.starter.log_table import to_date
from dssm_assets.extras.starter.starter_inputs import StarterInputs
from dssm_assets.extras.starter.write_starter import Starter
from dssm_assets.storage.config_choice import UI_COMMAND
from dssm_assets.storage.config_file import load_config

SHOWN_DAYS: Final = 4
"""Last days that the printed commands evaluate at most; each is a fit."""
_PATH: Final = re.compile(r"\S*/[^,]*")
"""The path of a file, up to the next comma."""


def describe_validation(found: Validation, name: str) -> str:
    """Returns the figures of a validation, then its faults, numbered, or that there are none."""
    lines = [f"  {what}: {figure}" for what, figure in found.figures.items()]
    if not found.faults:
        return "\n".join([*lines, f"{name} matches its data."])
    count = len(found.faults)
    lines.append(f"{name}: {count} fault{'s' if count > 1 else ''}")
    for number, (fault, *others) in enumerate(_group_by_location(found.faults), start=1):
        more = f". The same in {len(others)} more files, the last one: {others[-1].where}." if others else ""
        lines.append(f"  {number}. {fault}{more}")
    return "\n".join(lines)


def _group_by_location(faults: Iterable[Fault]) -> list[list[Fault]]:
    """Returns the faults sorted by location; those that differ only in the file are grouped."""
    groups: dict[tuple[str, ...], list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: fault.where):
        location = _PATH.sub("", fault.where)
        groups.setdefault((location, fault.expected, fault.got, fault.remedy), []).append(fault)
    return list(groups.values())


def describe_starter(starter: Starter, home: Path, today: dt.date) -> tuple[str, bool]:
    """Returns what was written and why, and how it matches the tables; and whether it does.

    Args:
        today: as of `validate`.
    """
    settings = starter.inputs.settings
    found = validate(load_config(starter.path, home, checks_features=False), today)
    lines = [
        f"Wrote {starter.path} and fg.json next to it. Read config.yaml once: a comment explains each choice.",
        f"Recipe {settings.recipe}: {settings.recipe_reason}.",
        *(f"Note: {note}." for note in starter.inputs.notes),
        describe_validation(found, str(starter.path)),
    ]
    return "\n".join(lines), not found.faults


def next_commands(starter: Starter, home: Path) -> str:
    """Returns the commands that lead to the first hit rates and lists, ready to be pasted in any folder."""
    first, last = _shown_days(starter.inputs)
    return _list_commands(
        f"export DSSM_CONFIG={shlex.quote(str(starter.path))} DAGSTER_HOME={shlex.quote(str(home))}",
        f"dssm-assets materialize train_and_evaluate --from {first} --to {last} --with-upstream",
        "dssm-assets hit-rates",
        f"dssm-assets materialize publish --from {last} --with-upstream  # what recall and serve answer from",
        *_list_requests(starter.inputs),
        f"{UI_COMMAND}  # the UI: http://127.0.0.1:3000",
    )


def next_commands_of_component(starter: Starter, home: Path, project: Path, *, has_instance: bool) -> str:
    """Returns the same for a component's folder: Dagster makes the runs, under the names that the project's UI has.

    Args:
        project: in whose folder `dg` works.
        has_instance: the project has a Dagster instance already, DAGSTER_HOME.
    """
    _, last = _shown_days(starter.inputs)
    name, instance = starter.inputs.name, shlex.quote(str(home.parent / "instance"))
    return _list_commands(
        f"cd {shlex.quote(str(project))}",
        f"export DSSM_CONFIG={shlex.quote(str(starter.path))} DSSM_HOME={shlex.quote(str(home))}",
        *([] if has_instance else [f"mkdir -p {instance} && export DAGSTER_HOME={instance}  # where Dagster records runs"]),
        f"dg launch --job {name}_train_and_evaluate --partition {last}",
        "dssm-assets hit-rates",
        f"dg launch --job {name}_publish --partition {last}  # what recall and serve answer from",
        *_list_requests(starter.inputs),
        "dg dev  # the UI: http://127.0.0.1:3000",
    )


def _list_requests(inputs: StarterInputs) -> tuple[str, ...]:
    return (
        f"dssm-assets recall --user-id {shlex.quote(inputs.example_user)} -k 20",
        "dssm-assets serve --port 8000  # lists over HTTP: http://127.0.0.1:8000/docs",
    )


def _list_commands(*commands: str) -> str:
    return "\n".join(["", "Next:", *(f"  {command}" for command in commands)])


def _shown_days(inputs: StarterInputs) -> tuple[dt.date, dt.date]:
    """Returns the first and the last of the days that the commands evaluate."""
    settings = inputs.settings
    days = settings.evaluation_days
    last = days.last or settings.start + dt.timedelta(days=days.window)
    if settings.values["span_days"] is not None:  # each day is a span of several, which is a fit for each
        return last, last
    return min((day for day in map(to_date, days.days) if day > last - dt.timedelta(days=SHOWN_DAYS)), default=last), last
