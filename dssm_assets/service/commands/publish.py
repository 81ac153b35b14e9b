"""`dssm-assets publish` and `rollback` choose the served bundle.

publish serves the bundle of a day, or a delta of the served bundle (--delta). rollback serves the previous or any stored bundle.
"""

from __future__ import annotations

import argparse
import dataclasses

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, announce_config, load_announced_scene
from dssm_assets.commands.day_argument import day_argument
from dssm_assets.core.days import DAY_FORMS, LATEST


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "publish",
        group=Group.SERVE,
        help="publish a serving bundle, or refresh the served one (--delta)",
        epilog="`dssm-assets rollback` serves the bundle before it again.",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--delta",
        action="store_true",
        help="add all changes since its day to the served bundle: new and changed items, users with new events; the model, the "
        "statistics and the popularity stay",
    )
    choice.add_argument(
        "--day",
        type=day_argument,
        default=LATEST,
        metavar="DAY",
        help=f"publish the model of this day: {DAY_FORMS} of the evaluated days (default: latest)",
    )
    add_config_arguments(parser)
    parser.set_defaults(command=_publish)
    back = commands.add_parser("rollback", group=Group.SERVE, help="serve the previous bundle again")
    back.add_argument("--to", metavar="BUNDLE_ID", help="a stored bundle (default: the previously served bundle)")
    back.add_argument("--list", action="store_true", help="only print the stored bundles, and mark the served one")
    add_config_arguments(back)
    back.set_defaults(command=_rollback)


def _publish(parsed: argparse.Namespace) -> int:
    choice = announce_config(parsed)
    from dssm_assets.definitions import load_scene

    scene = load_scene(parsed.scene, choice)
    if parsed.delta:
        from dssm_assets.installed_extras import load_extra, tell_served

        result = load_extra("bundle_delta", "definitions").refresh(scene, print)
        for name, count in dataclasses.asdict(result.counts).items():
            print(f"  {name.replace('_', ' ')}: {count}")
        tell_served(scene.loaded, print)
        return 0
    from dssm_assets import materialize, terminal
    from dssm_assets.steps.workspace import open_workspace

    ds = open_workspace(scene.loaded).tables.partitions.choose_day("total_hit_rate", parsed.day)
    plan = materialize.plan_runs(scene, "publish", ds, ds)
    with terminal.ProgressTable(plan.days_by_asset) as table:
        materialize.run_plan(plan, table, choice.instance_home)
    return 0


def _rollback(parsed: argparse.Namespace) -> int:
    from dssm_assets.installed_extras import tell_served
    from dssm_assets.service.bundle.bundle_store import open_bundles

    loaded = load_announced_scene(parsed, is_data=parsed.list).loaded
    store = open_bundles(loaded)
    before = store.pointer()
    if parsed.list and before is not None:
        marks = {before.bundle_id: "  served", before.previous: "  previous"}
        print("\n".join(f"{bundle_id}{marks.get(bundle_id, '')}" for bundle_id in before.stored))
        return 0
    now = store.rollback(parsed.to)
    print(f"{now.bundle_id} is served (before: {before.bundle_id if before else 'none'}; previous: {now.previous or 'none'})")
    tell_served(loaded, print)
    return 0
