"""`dssm-assets import-config` reads a configuration of EasyRec or TorchEasyRec. `export-config` writes a day's fit as such."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene
from dssm_assets.commands.day_argument import add_day_argument

SYSTEMS: Final = ("TorchEasyRec", "EasyRec")
"""Repeated from `import_settings.py`, because importing that module would slow down every command."""


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "import-config",
        group=Group.EXCHANGE,
        help="bring in a configuration of EasyRec or TorchEasyRec (DSSM, MIND)",
        epilog="Writes config.yaml, fg.json and import_report.md. The report names every field without counterpart, and every difference "
        "in behavior.",
    )
    parser.add_argument("pipeline", type=Path, metavar="pipeline.config", help="the configuration, in text format")
    parser.add_argument("fg", type=Path, nargs="?", metavar="fg.json", help="the feature generator's definitions, if any")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--base",
        type=Path,
        metavar="CONFIG",
        help="keep calendar, tables, events and other sections of this config.yaml, for example of `init` (default: write examples)",
    )
    parser.add_argument(
        "--sequence-column",
        action="append",
        default=[],
        type=_pair,
        metavar="FEATURE=COLUMN",
        help="the item column with the values of a sequence, if the configuration does not tell (repeatable)",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(command=_import)
    export = commands.add_parser(
        "export-config", group=Group.EXCHANGE, help="write a day's training run for EasyRec or TorchEasyRec"
    )
    add_day_argument(export, "the days with feature_config")
    export.add_argument(
        "--system", choices=SYSTEMS, default=SYSTEMS[0], help=f"the system to write for (default: {SYSTEMS[0]})"
    )
    export.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: print it)")
    add_config_arguments(export)
    export.set_defaults(command=_export)


def _pair(text: str) -> tuple[str, str]:
    feature, equals, column = text.partition("=")
    if not (feature and equals and column):
        raise argparse.ArgumentTypeError(f"FEATURE=COLUMN is expected, got {text!r}")
    return feature, column


def _import(parsed: argparse.Namespace) -> int:
    from dssm_assets.extras.easyrec.import_pipeline import REPORT_FILE, import_files

    columns = dict(parsed.sequence_column)
    found = import_files(
        parsed.pipeline, parsed.fg, parsed.out, base=parsed.base, sequence_columns=columns, is_replacing=parsed.force
    )
    print(found.report)
    print(f"Wrote config.yaml, fg.json and {REPORT_FILE} into {parsed.out}.")
    print(f"Next: dssm-assets validate --config {parsed.out / 'config.yaml'}")
    return 0


def _export(parsed: argparse.Namespace) -> int:
    scene = load_announced_scene(parsed, is_data=parsed.out is None)
    from dssm_assets.extras.easyrec.export_pipeline import export_text
    from dssm_assets.steps.workspace import open_workspace
    from dssm_assets.storage.local_files import write_atomic

    workspace = open_workspace(scene.loaded)
    text = export_text(workspace, workspace.tables.partitions.choose_day("feature_config", parsed.day), parsed.system)
    if parsed.out is None:
        print(text, end="")
    else:
        write_atomic(parsed.out, [text.encode()])
        print(f"Wrote {parsed.out}; the comments at its end name everything that it cannot express.")
    return 0
