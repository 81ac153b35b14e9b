"""`dssm-assets serve`: recall over HTTP from the latest published bundle."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from dssm_assets.commands.command_groups import Commands, Group
from dssm_assets.service.commands.recall import add_bundle_arguments, bundle_location

if TYPE_CHECKING:
    from dssm_assets.core.config.service_limits import ServiceLimits


def add_command(commands: Commands) -> None:
    parser = commands.add_parser("serve", group=Group.SERVE, help="serve /recall, /similar, /health and /metrics over HTTP")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default: 8000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="concurrent searches (default: one per core)")
    parser.add_argument("--check-seconds", type=float, default=5.0, help="interval for checking for a new bundle (default: 5)")
    parser.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a key of serving.limits, over the configuration; repeatable",
    )
    parser.add_argument("--api-key-file", metavar="FILE", help="API keys, one on a line: NAME SCOPES LAST-DAY sha256:HEX")
    parser.add_argument("--tls-certificate", metavar="FILE", help="PEM file of the certificate and its issuers: serve https")
    parser.add_argument("--tls-key", metavar="FILE", help="PEM file of the certificate's private key")
    parser.add_argument("--access-log", action="store_true", help="print a line of JSON for each answer, with its request id")
    parser.add_argument("--blocked-items", metavar="FILE", help="serving.blocked_items, over the configuration")
    parser.add_argument("--stocked-items", metavar="FILE", help="serving.stocked_items, over the configuration")
    add_bundle_arguments(parser)
    parser.set_defaults(command=_serve)


def _serve(parsed: argparse.Namespace) -> int:
    import logging

    # The libraries read it when they load. One core per search, because the threads together use all cores.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import uvicorn

    from dssm_assets.core.config.evaluation import Serving
    from dssm_assets.installed_extras import load_extra
    from dssm_assets.service.engine.live import LiveEngine
    from dssm_assets.service.engine.recall_engine import open_hook
    from dssm_assets.service.engine.shop_lists import ShopLists
    from dssm_assets.service.http.api_keys import LiveKeys
    from dssm_assets.service.http.app import build_app

    _check_arguments(parsed)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("faiss").setLevel(logging.WARNING)  # else it logs how it was loaded
    location = bundle_location(parsed)
    configured = location.serving or Serving()
    limits = _read_limits(configured.limits, parsed.limit)
    keys = LiveKeys(parsed.api_key_file) if parsed.api_key_file else None
    certificate, key = _read_tls(parsed.tls_certificate, parsed.tls_key)
    log = partial(print, flush=True) if parsed.access_log else None
    blocked, stocked = (getattr(parsed, name) or getattr(configured, name) for name in ("blocked_items", "stocked_items"))
    hook = open_hook(configured, location.root, location.options)
    live = LiveEngine(
        location.root,
        location.options,
        check_seconds=parsed.check_seconds,
        is_verified=not parsed.no_verify,
        shop_lists=ShopLists(blocked, stocked, location.root, location.options),
        open_search=location.open_search and partial(location.open_search, seconds=limits.request_seconds),
        keys=location.keys,
        hook=hook,
    )
    tracer = load_extra("traces", "tracer").open_tracer() if configured.traces else None
    if keys is not None:
        live.watches.add("the API keys", keys.refresh, parsed.check_seconds)
    sys.setswitchinterval(0.001)  # otherwise /health would wait 5 ms for each computing thread
    config = uvicorn.Config(
        build_app(live, limits, tracer, threads=parsed.threads, keys=keys, log=log),
        host=parsed.host,
        port=parsed.port,
        ssl_certfile=certificate,
        ssl_keyfile=key,
        ws="none",
        proxy_headers=False,
        access_log=False,
        timeout_keep_alive=limits.keep_alive_seconds,
        timeout_graceful_shutdown=limits.shutdown_seconds,
    )
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # as after SIGTERM, the process then ends without a traceback
    uvicorn.Server(config).run()
    return 0


def _check_arguments(parsed: argparse.Namespace) -> None:
    from dssm_assets.core.errors import Fault, InputError

    bounds = {"port": (0, 65_535), "threads": (1, 1024), "check_seconds": (0.01, 86_400)}
    InputError.raise_if(
        Fault(f"--{name.replace('_', '-')}", f"a number from {low} to {high}", str(given)[:80], "correct it")
        for name, (low, high) in bounds.items()
        if not low <= (given := getattr(parsed, name)) <= high
    )
    try:
        socket.getaddrinfo(parsed.host, parsed.port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        raise InputError(Fault(f"--host {parsed.host[:80]}", "an address of this machine", str(error), "correct it")) from error


def _read_tls(certificate: str | None, key: str | None) -> tuple[str | None, str | None]:
    import ssl

    from dssm_assets.core.errors import Fault, InputError

    if certificate is None and key is None:
        return None, None
    try:
        if certificate is None or key is None:
            raise OSError("only one of the two is given")
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, lambda: "")
    except (OSError, ValueError) as error:
        remedy = "give --tls-certificate and --tls-key, PEM files that belong together, the key without a password"
        fault = Fault("--tls-certificate, --tls-key", "a certificate and its private key", str(error), remedy)
        raise InputError(fault) from error
    return certificate, key


def _read_limits(configured: ServiceLimits, texts: Sequence[str]) -> ServiceLimits:
    from pydantic import ValidationError

    from dssm_assets.core.config.section import describe_expected
    from dssm_assets.core.config.service_limits import ServiceLimits
    from dssm_assets.core.errors import ConfigError, Fault

    values = configured.model_dump() | dict(text.partition("=")[::2] for text in texts)
    try:
        return ServiceLimits.model_validate(values)
    except ValidationError as error:
        remedy = f"write KEY=VALUE with one of: {', '.join(ServiceLimits.model_fields)}"
        faults = [
            Fault(f"--limit {'.'.join(map(str, one['loc']))}", describe_expected(one), repr(one["input"])[:80], remedy)
            for one in error.errors()
        ]
        raise ConfigError(faults) from error
