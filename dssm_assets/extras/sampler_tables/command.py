"""The command `dssm-assets sampler-tables`: writes and reads the text tables of EasyRec's and graph-learn's negative samplers."""

from __future__ import annotations

import argparse
from pathlib import Path

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene
from dssm_assets.commands.day_argument import add_day_argument

KINDS = ("items", "users", "positive_edges", "hard_edges")
"""`items` and the keys of `sampler_tables.SPECS`, which is not imported: that would slow down every command."""


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "sampler-tables",
        group=Group.EXCHANGE,
        help="write or read text tables for the negative samplers of EasyRec and graph-learn",
    )
    actions = parser.add_subparsers(required=True, metavar="action")
    write = actions.add_parser("write", help="write the items, users and edges of an evaluation day's window")
    add_day_argument(write, "the days with negative_items")
    write.add_argument("--into", required=True, type=Path, metavar="DIR", help="folder of the text files")
    add_config_arguments(write)
    write.set_defaults(command=_write)
    read = actions.add_parser("read", help="check a text table, name the first faulty line, and write it as parquet or csv")
    read.add_argument("file", type=Path, help="the text table")
    read.add_argument("--kind", required=True, choices=KINDS, help="kind of table")
    read.add_argument("--into", required=True, metavar="OUT", help="file to write, any fsspec URL (.parquet or .csv)")
    read.add_argument("--attrs", default="", help="names of the fields in the attrs of items, separated by commas")
    read.set_defaults(command=_read)
    for action in (write, read):
        action.add_argument("--delimiter", default=":", help="one character between the fields of attrs (default: `:`)")


def _write(parsed: argparse.Namespace) -> int:
    from dssm_assets.extras.sampler_tables.sampler_tables import write_sampler_tables
    from dssm_assets.steps.workspace import open_workspace

    workspace = open_workspace(load_announced_scene(parsed).loaded)
    ds = workspace.tables.partitions.choose_day("negative_items", parsed.day)
    rows, fields = write_sampler_tables(workspace, ds, parsed.into, parsed.delimiter)
    for name, count in rows.items():
        print(f"{parsed.into / name}.txt: {count:,} rows")
    print(f"attrs: {','.join(fields)}")
    return 0


def _read(parsed: argparse.Namespace) -> int:
    from dssm_assets.extras.sampler_tables.sampler_tables import read_sampler_table

    attrs = [name for name in parsed.attrs.split(",") if name]
    count = read_sampler_table(parsed.file, parsed.kind, attrs, parsed.into, parsed.delimiter)
    print(f"{parsed.into}: {count:,} rows")
    return 0
