"""`dssm-assets init`: writes a commented starter configuration for your own tables.

Belongs here: arguments and printing. Does not belong here: surveying the tables and choosing (`steps/starter.py`).
"""

from __future__ import annotations

import argparse
import datetime as dt
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dssm_assets.core.sources.recipe import Recipe

if TYPE_CHECKING:
    from dssm_assets.core.sources.starter_inputs import StarterInputs

SHOWN_DAYS: Final = 4
"""Last days that the printed commands evaluate at most; each is a fit."""
_ROLES = {
    "user_id": "the log's column of user ids",
    "item_id": "the log's column of item ids",
    "event_time": "the log's column of timestamps",
    "event": "the log's column of event names",
}


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "init",
        help="survey your own tables and write a commented starter configuration for them",
        epilog="Tables are files or folders of parquet, csv or JSON lines, with or without folders ds=YYYY-MM-DD, at any fsspec URL. A log alone is "
        "enough. The command writes config.yaml, fg.json and dagster.yaml, and checks them against the tables as `dssm-assets "
        "validate` does.",
    )
    parser.add_argument("--behavior", required=True, metavar="PATH", help="the behaviour log")
    for side in ("user", "item"):
        parser.add_argument(f"--{side}", metavar="PATH", help=f"the table of {side}s (default: none, their ids are in the log)")
    recipes = ", ".join(recipe.value for recipe in Recipe)
    parser.add_argument(
        "--recipe", type=Recipe, metavar="NAME", help=f"the starting point: {recipes} (default: by the habits of the log)"
    )
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write to (default: here)")
    parser.add_argument("--name", default="dssm", help="the scene's name: lower-case letters, digits and _ (default: dssm)")
    parser.add_argument("--timezone", default="UTC", help="time zone of days, e.g. Europe/Berlin (default: UTC)")
    parser.add_argument("--force", action="store_true", help="replace existing files")
    columns = parser.add_argument_group("columns that the survey cannot identify")
    for role, what in _ROLES.items():
        columns.add_argument(f"--{role.replace('_', '-')}", metavar="COLUMN", help=what)
    columns.add_argument(
        "--time-format",
        metavar="FORMAT",
        help="format of the log's timestamps, by the directives of strptime, e.g. '%%d.%%m.%%Y %%H:%%M' (default: by their values)",
    )
    parser.set_defaults(command=_init)


def _init(parsed: argparse.Namespace) -> int:
    from dssm_assets.commands.validate import print_validation
    from dssm_assets.steps.config_checks import validate
    from dssm_assets.steps.starter import StarterRequest, write_starter
    from dssm_assets.storage.config_choice import CONFIG_FILE
    from dssm_assets.storage.config_file import load_config
    from dssm_assets.storage.instance_file import write_instance_file

    given = {role: getattr(parsed, role) for role in _ROLES if getattr(parsed, role) is not None}
    folder = parsed.out.absolute()
    print(f"configuration {folder / CONFIG_FILE} (to be written), home {folder} (--out)", flush=True)
    request = StarterRequest(
        parsed.user,
        parsed.item,
        parsed.behavior,
        folder,
        parsed.name,
        parsed.timezone,
        given,
        parsed.recipe,
        parsed.time_format,
    )
    starter = write_starter(request, is_replacing=parsed.force)
    write_instance_file(folder)
    path, settings = starter.path, starter.inputs.settings
    print(f"Wrote {path} and fg.json next to it. Read config.yaml once: a comment explains each choice.")
    print(f"Recipe {settings.recipe}: {settings.recipe_reason}.")
    for note in starter.inputs.notes:
        print(f"Note: {note}.")
    found = validate(load_config(path, folder, checks_features=False), dt.date.today())
    print_validation(found, str(path))
    if not found.faults:
        print(_next_commands(path, folder, starter.inputs))
    return 1 if found.faults else 0


def _next_commands(path: Path, home: Path, inputs: StarterInputs) -> str:
    """Returns the commands that lead to the first hit rates and lists, ready to be pasted in any folder."""
    from dssm_assets.core.sources.warm_pairs import to_date
    from dssm_assets.storage.config_choice import UI_COMMAND

    settings = inputs.settings
    days = settings.evaluation_days
    last = days.last or dt.date.fromisoformat(settings.start.value) + dt.timedelta(days=days.window)
    first = last
    if settings.span_days == 1:  # else each day is a span of several, which is a fit for each
        first = min((day for day in map(to_date, days.days) if day > last - dt.timedelta(days=SHOWN_DAYS)), default=last)
    return "\n".join(
        [
            "",
            "Next:",
            f"  export DSSM_CONFIG={shlex.quote(str(path))} DAGSTER_HOME={shlex.quote(str(home))}",
            f"  dssm-assets materialize train_and_evaluate --from {first} --to {last} --with-upstream",
            "  dssm-assets hit-rates",
            f"  dssm-assets materialize publish --from {last} --with-upstream  # what recall and serve answer from",
            f"  dssm-assets recall --user-id {shlex.quote(inputs.example_user)} -k 20",
            "  dssm-assets serve --port 8000  # lists over HTTP: http://127.0.0.1:8000/docs",
            f"  {UI_COMMAND}  # the UI: http://127.0.0.1:3000",
        ]
    )
