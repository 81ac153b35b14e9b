"""The command `dssm-assets`: its parser and its error messages. Each command is a module of `commands` or of an extra."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence

from dssm_assets.core.errors import DssmError


def build_parser() -> argparse.ArgumentParser:
    from importlib.metadata import version

    from dssm_assets.commands import configuration, demo, hit_rates, materialize
    from dssm_assets.commands.command_groups import Commands
    from dssm_assets.installed_extras import load_all
    from dssm_assets.service.commands import publish, recall, serve

    top = argparse.ArgumentParser(
        prog="dssm-assets",
        description="DSSM two-tower vector recall as Dagster assets.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"dssm-assets {version('dssm-assets')}")
    commands = Commands(top)
    for module in (demo, materialize, hit_rates, publish, recall, serve, *load_all("command"), configuration):
        module.add_command(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. Returns its exit status.

    Imports are inside the function, so that an error or Ctrl-C during an import ends without a traceback, too.
    """
    try:
        parsed = build_parser().parse_args(arguments)
        warnings.filterwarnings("ignore", module="dagster")
        status = int(parsed.command(parsed))
        sys.stdout.flush()
        return status
    except (Exception, KeyboardInterrupt) as error:
        return _end_with(error)


def _end_with(error: BaseException) -> int:
    """Prints an error and its remedy. Returns the exit status.

    Raises:
        BaseException: the error itself, unless its cause is the input, the disk, Ctrl-C or a closed output (`| head`).
    """
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    from dssm_assets import terminal
    from dssm_assets.storage.disk_space import explain_disk_error

    if isinstance(error, BrokenPipeError) and terminal.is_reader_gone():
        terminal.discard_stdout()
        return 1
    explained = error if isinstance(error, DssmError) else explain_disk_error(error)
    if explained is None:
        raise error
    print(f"{type(explained).__name__}: {explained}", file=sys.stderr)
    return 1
