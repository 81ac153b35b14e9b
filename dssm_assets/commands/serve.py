"""`dssm-assets serve`: recall over HTTP, always from the latest published bundle."""

from __future__ import annotations

import argparse
import os

from dssm_assets.commands.recall import add_bundle_arguments, bundle_location


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    parser = commands.add_parser("serve", help="serve /recall, /similar, /health and /metrics over HTTP")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="concurrent searches (default: one per core)")
    parser.add_argument("--check-seconds", type=float, default=5.0, help="interval for checking for a new bundle (default: 5)")
    add_bundle_arguments(parser)
    parser.set_defaults(command=_serve)


def _serve(parsed: argparse.Namespace) -> int:
    import logging

    from dssm_assets.core.errors import ConfigError, Fault

    # Read when the libraries load: one thread per search, because the thread pool uses the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import uvicorn

        from dssm_assets.serving.http import build_app
        from dssm_assets.serving.live import LiveEngine
    except ImportError as error:
        fault = Fault("dssm-assets serve", "its libraries", f"no module {error.name}", "pip install dssm-assets again")
        raise ConfigError(fault) from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    root, options = bundle_location(parsed)
    live = LiveEngine(root, options, check_seconds=parsed.check_seconds, is_verified=not parsed.no_verify)
    uvicorn.run(build_app(live, parsed.threads), host=parsed.host, port=parsed.port, access_log=False, log_level="info")
    return 0
