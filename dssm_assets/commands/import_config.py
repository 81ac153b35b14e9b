"""`dssm-assets import-config`: writes config.yaml and fg.json for a configuration of EasyRec or TorchEasyRec."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command to a parser."""
    parser = commands.add_parser(
        "import-config",
        help="bring in a configuration of EasyRec or TorchEasyRec (DSSM, MIND)",
        epilog="Writes config.yaml, fg.json and import_report.md. The report names every field that has no counterpart, and what behaves "
        "differently.",
    )
    parser.add_argument("pipeline", type=Path, metavar="pipeline.config", help="the configuration, in text format")
    parser.add_argument(
        "fg", type=Path, nargs="?", metavar="fg.json", help="the feature generator's definitions, if there are any"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="folder to write to")
    parser.add_argument(
        "--base",
        type=Path,
        metavar="CONFIG",
        help="config.yaml, for example of `init`, whose calendar, tables, events and other sections are kept (default: examples)",
    )
    parser.add_argument(
        "--sequence-column",
        action="append",
        default=[],
        type=_pair,
        metavar="FEATURE=COLUMN",
        help="the column of an item whose values a sequence has, where the configuration does not tell (repeatable)",
    )
    parser.add_argument("--force", action="store_true", help="replace existing files")
    parser.set_defaults(command=_import)


def _pair(text: str) -> tuple[str, str]:
    feature, equals, column = text.partition("=")
    if not (feature and equals and column):
        raise argparse.ArgumentTypeError(f"FEATURE=COLUMN is expected, got {text!r}")
    return feature, column


def _import(parsed: argparse.Namespace) -> int:
    from dssm_assets.steps.easyrec_files import REPORT_FILE, import_files

    found = import_files(
        parsed.pipeline,
        parsed.fg,
        parsed.out,
        base=parsed.base,
        sequence_columns=dict(parsed.sequence_column),
        is_replacing=parsed.force,
    )
    print(found.report)
    record = found.record
    print(
        f"Wrote config.yaml, fg.json and {REPORT_FILE} into {parsed.out}: {len(record.settings)} settings, {len(record.features)} features,"
    )
    print(f"{len(record.differences)} differences, {len(record.without_counterpart)} fields without counterpart.")
    print(f"Next: dssm-assets validate --config {parsed.out / 'config.yaml'}")
    return 0
