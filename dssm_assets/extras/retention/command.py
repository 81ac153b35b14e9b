"""`dssm-assets cleanup`: removes expired partitions, what killed runs left behind, and files of partitions that were written again."""

from __future__ import annotations

import argparse
from collections import Counter

from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "cleanup",
        help="remove partitions older than storage.keep_days, what killed runs left behind, and replaced files",
        epilog="The first run of a day and the asset `cleanup` do the same. What a living process of this machine uses stays in any "
        "case; files of other machines and files that somebody is reading are protected by the grace period alone.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    parser.add_argument(
        "--grace-hours",
        type=float,
        metavar="HOURS",
        help="how long leftovers must not have changed (default: storage.grace_hours)",
    )
    add_config_arguments(parser)
    parser.set_defaults(command=_cleanup)


def _cleanup(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import Fault, InputError
    from dssm_assets.extras.retention.leftovers import Kind, clean
    from dssm_assets.steps.workspace import open_workspace

    if parsed.grace_hours is not None and not parsed.grace_hours >= 0:
        raise InputError(Fault("--grace-hours", "a number that is not negative", str(parsed.grace_hours), "correct it"))
    workspace = open_workspace(load_announced_scene(parsed).loaded, print)
    found = []
    for leftover in clean(workspace, parsed.grace_hours, removes=not parsed.dry_run):
        found.append(leftover)
        if parsed.dry_run:
            print(leftover.path)
    for kind in Kind:
        of_kind = [leftover for leftover in found if leftover.kind is kind]
        print(f"{kind}: {len(of_kind)}, {sum(leftover.bytes for leftover in of_kind) / 1e6:.1f} MB")
    sizes, days = Counter[str](), Counter[str]()
    for leftover in (leftover for leftover in found if leftover.asset):
        sizes[leftover.asset] += leftover.bytes
        days[leftover.asset] += 1
    for asset, size in sizes.most_common():
        print(f"  {asset}: {days[asset]}, {size / 1e6:.1f} MB")
    print("nothing was removed" if parsed.dry_run else f"{len(found)} removed")
    return 0
