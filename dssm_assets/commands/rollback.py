"""`dssm-assets rollback`: serve the previous bundle again, or any stored one."""

from __future__ import annotations

import argparse

from dssm_assets.commands.config_arguments import add_config_arguments, load_announced_scene


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser("rollback", help="serve the previous bundle again")
    parser.add_argument("--to", metavar="BUNDLE_ID", help="a stored bundle (default: the one served before the current one)")
    parser.add_argument("--list", action="store_true", help="only print the stored bundles and which one is served")
    add_config_arguments(parser)
    parser.set_defaults(command=_rollback)


def _rollback(parsed: argparse.Namespace) -> int:
    from dssm_assets.storage.bundles import open_bundles

    store = open_bundles(load_announced_scene(parsed, is_data=parsed.list).loaded)
    before = store.pointer()
    if parsed.list and before is not None:
        marks = {before.bundle_id: "  served", before.previous: "  previous"}
        print("\n".join(f"{bundle_id}{marks.get(bundle_id, '')}" for bundle_id in before.stored))
        return 0
    now = store.rollback(parsed.to)
    print(f"{now.bundle_id} is served (before: {before.bundle_id if before else 'none'}; previous: {now.previous or 'none'})")
    return 0
