"""The server that runs the application, with the limits of its connections and of its end."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Callable
from typing import Final, NamedTuple

import uvicorn
from fastapi import FastAPI

from dssm_assets.serving.access import Access
from dssm_assets.serving.connections import bounded_protocol
from dssm_assets.serving.http import CountedRequests, Service

_log = logging.getLogger(__name__)


class ServerOptions(NamedTuple):
    """Who may ask, and how the answers travel.

    Attributes:
        keys: API keys, see `access.py`; none: everybody may ask.
        certificate: file of the TLS certificate, with those that sign it; None: no TLS.
        certificate_key: file of its private key.
        log: takes a line of JSON for each answer; None: there is no log.
    """

    keys: tuple[str, ...] = ()
    certificate: str | None = None
    certificate_key: str | None = None
    log: Callable[[str], None] | None = None


NO_OPTIONS: Final = ServerOptions()


def make_server(
    app: FastAPI, host: str = "127.0.0.1", port: int = 0, log_level: str = "info", options: ServerOptions = NO_OPTIONS
) -> uvicorn.Server:
    """Returns the server of an application from `build_app`, with the application's limits."""
    service: Service = app.state.service
    limits = service.limits
    config = uvicorn.Config(
        Access(CountedRequests(app, service), options.keys, options.log),
        ssl_certfile=options.certificate,
        ssl_keyfile=options.certificate_key,
        host=host,
        port=port,
        http=bounded_protocol(limits, service.metrics.closed_connections),
        loop="asyncio",  # `connections.py` sets how much its transports read at once
        ws="none",
        lifespan="on",
        proxy_headers=False,
        access_log=False,
        log_level=log_level,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=limits.shutdown_seconds,
    )
    return uvicorn.Server(config)


def run_server(app: FastAPI, host: str, port: int, options: ServerOptions = NO_OPTIONS) -> int:
    """Serves until SIGTERM or SIGINT, then for at most shutdown_seconds; returns the exit status.

    Lists that are still computed then are left behind: their requests have been answered. The status is 1 if the engine has ended.
    """
    service: Service = app.state.service
    server = make_server(app, host, port, options=options)

    def stop() -> None:
        server.should_exit = True

    service.on_loss = stop
    gc.collect()
    gc.set_threshold(20_000, 2, 2)  # Connections and requests are freed without it; what is not is collected before it is much.
    gc.freeze()  # What is loaded now stays; looking through it again would stop every request for tens of milliseconds.
    with contextlib.suppress(KeyboardInterrupt):
        server.run()
    if service.running:
        _log.warning("left %d lists behind", service.running)
    return 1 if service.engine.is_lost else 0 if server.started else 3
