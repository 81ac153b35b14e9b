"""The commands `cleanup` and `forget`.

`cleanup` removes expired partitions, leftovers of killed runs, and replaced files. `forget` removes all rows of some users or days.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, announce_config, load_announced_scene
from dssm_assets.core.errors import Fault, InputError

if TYPE_CHECKING:
    from dssm_assets.defs.scene import Scene

NO_ROWS: Final = 3
"""Exit status of `forget` if it is done but some ids have no row anywhere: they may be misspelt."""


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "cleanup",
        group=Group.LOOK_AFTER,
        help="remove partitions older than storage.keep_days, leftovers of killed runs, and replaced files",
        epilog="The first run of a day and the asset `cleanup` do the same. Files of a living process on this machine always stay. "
        "Only the grace period protects files of other machines, and files that somebody is reading.",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print what would be removed")
    parser.add_argument(
        "--grace-hours",
        type=float,
        metavar="HOURS",
        help="remove only leftovers unchanged for so many hours (default: storage.grace_hours)",
    )
    add_config_arguments(parser)
    parser.set_defaults(command=_cleanup)
    parser = commands.add_parser(
        "forget",
        group=Group.LOOK_AFTER,
        help="remove every row of some users, or of old days, and drop later deliveries of them",
        epilog="Without arguments it goes on with an unfinished request. The receipt, a file in the home, lists the rewritten data "
        "and everything that stays: sources, models that learned from the users, counts. It holds no ids and no hashes. Status 0: done; "
        f"{NO_ROWS}: done, but some ids have no row anywhere (they are on the list all the same); 1: an error, or not finished.",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--user-ids",
        type=Path,
        metavar="FILE",
        help="text file with one user id per line, written as in recall requests; blanks and quotes around an id are ignored",
    )
    choice.add_argument(
        "--older-than",
        type=int,
        metavar="DAYS",
        help="remove the partitions of all days but the latest DAYS, also those of logs, which storage.keep_days keeps; the receipt names "
        "remaining partitions that were also made from removed days",
    )
    parser.add_argument("--dry-run", action="store_true", help="only print which data would be rewritten")
    parser.add_argument("--retrain", action="store_true", help="then fit the models of the receipt again, and publish")
    add_config_arguments(parser)
    parser.set_defaults(command=_forget)


def _cleanup(parsed: argparse.Namespace) -> int:
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


def _forget(parsed: argparse.Namespace) -> int:
    choice = announce_config(parsed)
    import pyarrow as pa

    from dssm_assets.definitions import load_scene
    from dssm_assets.extras.retention.forget import check_ended, forget
    from dssm_assets.extras.retention.receipt import write_receipt
    from dssm_assets.extras.retention.user_ids import read_user_ids
    from dssm_assets.steps.workspace import open_workspace

    scene = load_scene(parsed.scene, choice)
    workspace = open_workspace(scene.loaded, print)
    ids = pa.array([], pa.string()) if parsed.user_ids is None else read_user_ids(parsed.user_ids, workspace)
    receipt = forget(workspace, ids, parsed.older_than, dry_run=parsed.dry_run)
    print("\n".join(receipt.describe()))
    if parsed.dry_run:
        print("nothing was written")
        return NO_ROWS if receipt.without_rows else 0
    print(f"receipt: {write_receipt(workspace, receipt)}")
    check_ended(receipt)
    if parsed.retrain:
        _retrain(scene, choice.instance_home, receipt.model_days)
    return NO_ROWS if receipt.without_rows else 0


def _retrain(scene: Scene, instance_home: Path, days: Sequence[str]) -> None:
    """Fits the models of some days again. The last day comes first and is published: inputs of the others may be gone."""
    from dssm_assets import materialize, terminal

    for name, of_job in (("train_and_evaluate", days[-1:]), ("publish", days[-1:]), ("train_and_evaluate", days[-2::-1])):
        for ds in of_job:
            plan = materialize.plan_runs(scene, name, ds, ds)
            with terminal.ProgressTable(plan.days_by_asset) as table:
                materialize.run_plan(plan, table, instance_home)
