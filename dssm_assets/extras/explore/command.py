"""`dssm-assets explore`: opens the page on this machine."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.commands.config_arguments import add_config_arguments, announce_config

PAGE = Path(__file__).with_name("page.py")


def add_command(commands: Commands) -> None:
    parser = commands.add_parser(
        "explore",
        group=Group.LOOK,
        help="a page that shows what single people had, got and took, and why",
        epilog="It reads the home and the published bundle, and writes nothing. Nothing is loaded from the internet.",
    )
    add_config_arguments(parser)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, default=8501, help="port to listen on (default: 8501)")
    parser.set_defaults(command=_explore)


def _explore(parsed: argparse.Namespace) -> int:
    from dssm_assets.core.errors import ConfigError, Fault
    from dssm_assets.extras.explore.running import announce_page
    from dssm_assets.stored import load_chosen

    announce_config(parsed)
    loaded = load_chosen(parsed.config, parsed.home, parsed.scene)  # says now what the page would say
    try:
        import streamlit  # noqa: F401
    except ImportError as error:
        raise ConfigError(Fault("explore", "Streamlit", str(error), "pip install 'dssm-assets[explore]'")) from error
    chosen = [f"--{name}={value}" for name in ("config", "home", "scene") if (value := getattr(parsed, name)) is not None]
    settings = {
        "server.address": parsed.host,
        "server.port": parsed.port,
        "server.headless": "true",
        "server.fileWatcherType": "none",
        "runner.magicEnabled": "false",
        "browser.gatherUsageStats": "false",
        "client.toolbarMode": "minimal",
    }
    options = [f"--{name}={value}" for name, value in settings.items()]
    url = f"http://{parsed.host}:{parsed.port}"
    announce_page(loaded.home, url)
    print(f"{url}; end it with Ctrl+C", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", "streamlit", "run", str(PAGE), *options, "--", *chosen])
