"""Why the service refuses a request that may be right, with the status of each reason, and refusals as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar

from dssm_assets.core.errors import Fault, InputError


class RefusedError(InputError):
    """A request that the service does not answer with a list."""

    status: ClassVar[int] = 400


class BodyTooLargeError(RefusedError):
    """The body has more bytes than max_body_bytes."""

    status = 413


class HeadTooLargeError(RefusedError):
    """Request line and headers have more bytes than max_head_bytes."""

    status = 431


class PipelinedError(RefusedError):
    """Too many requests of a connection wait for the answer to an earlier one."""


class SlowRequestError(RefusedError):
    """The request was not sent in transfer_seconds, or its connection closed before its end."""

    status = 408


class UnauthorizedError(RefusedError):
    """The request has no API key of this service."""

    status = 401


class BusyError(RefusedError):
    """The service has too much to do, is too slow at the moment, or shuts down: the same request may succeed later."""

    status = 503


def error_content(error: str, faults: Sequence[Fault], most: int) -> dict[str, Any]:
    """Returns an error as JSON content: its name and at most so many faults, each with where, expected, got and remedy."""
    reported = [{"where": one.where, "expected": one.expected, "got": one.got, "remedy": one.remedy} for one in faults[:most]]
    content: dict[str, Any] = {"error": error, "faults": reported}
    if len(faults) > most:
        content["faults_left_out"] = len(faults) - most
    return content


def error_body(error: str, faults: Sequence[Fault], most: int) -> bytes:
    """Returns the JSON of `error_content`."""
    return json.dumps(error_content(error, faults, most)).encode()
