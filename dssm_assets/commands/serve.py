"""`dssm-assets serve`: recall over HTTP, following the bundles as they are published.

Belongs here: arguments and starting the server. Does not belong here: routes (`serving/http.py`).
"""

from __future__ import annotations

import argparse
import os

from dssm_assets.commands.recall import add_bundle_arguments, root_of


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Adds the command."""
    made = commands.add_parser("serve", help="serve /recall, /similar, /health and /metrics over HTTP")
    made.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    made.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="searches at once (default: one per core)")
    made.add_argument("--check-seconds", type=float, default=5.0, help="pause between looks for a new bundle (default: 5)")
    add_bundle_arguments(made)
    made.set_defaults(command=_serve)


def _serve(parsed: argparse.Namespace) -> int:
    import logging

    from dssm_assets.core.errors import ConfigError, Fault

    # Read when the libraries load: a search is one thread, and the pool of threads is what uses the cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        import uvicorn

        from dssm_assets.serving.http import build_app
        from dssm_assets.serving.live import LiveEngine
    except ImportError as error:
        fault = Fault("dssm-assets serve", "its libraries", f"no module {error.name}", "pip install dssm-assets again")
        raise ConfigError(fault) from error
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    root, options = root_of(parsed)
    live = LiveEngine(root, options, check_seconds=parsed.check_seconds, is_verified=not parsed.no_verify)
    uvicorn.run(build_app(live, parsed.threads), host=parsed.host, port=parsed.port, access_log=False, log_level="info")
    return 0
