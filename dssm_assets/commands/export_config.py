"""`dssm-assets export-config`: writes the training run of a day as a configuration of EasyRec or TorchEasyRec."""

from __future__ import annotations

import argparse
import datetime as dt
from pathlib import Path

from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene

SYSTEMS = ("TorchEasyRec", "EasyRec")
"""As `core/easyrec/export_pipeline.py` has them, whose import would slow down every command."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser(
        "export-config", help="write a day's training run as a configuration of EasyRec or TorchEasyRec"
    )
    parser.add_argument("--day", required=True, type=dt.date.fromisoformat, help="the evaluation day, YYYY-MM-DD")
    parser.add_argument("--system", choices=SYSTEMS, default=SYSTEMS[0], help=f"whose configuration (default: {SYSTEMS[0]})")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: print it)")
    add_config_arguments(parser)
    parser.set_defaults(command=_export)


def _export(parsed: argparse.Namespace) -> int:
    scene = load_announced_scene(parsed, is_data=parsed.out is None)
    from dssm_assets.steps.easyrec_files import export_text
    from dssm_assets.steps.workspace import open_workspace
    from dssm_assets.storage.local_files import write_atomic

    text = export_text(open_workspace(scene.loaded), parsed.day.isoformat(), parsed.system)
    if parsed.out is None:
        print(text, end="")
    else:
        write_atomic(parsed.out, [text.encode()])
        print(f"Wrote {parsed.out}; the comments at its end name what it cannot express.")
    return 0
