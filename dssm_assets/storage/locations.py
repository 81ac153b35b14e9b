"""Opens paths and fsspec URLs that a user names, with typed errors. Also has conditional puts: they fail after another put."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import fsspec

from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.storage.local_files import is_local, write_atomic

_S3_LIMITS: Final = {"connect_timeout": 10, "read_timeout": 60}
"""Shorter than botocore's default, a minute per attempt to connect: a wrong host would only be reported after minutes."""
_S3_RETRIES: Final = {"mode": "standard", "max_attempts": 4}
"""A missing host is reported after about eight seconds. The default mode, `legacy`, raises before it asks `wait_for_restart`."""
RESTART_SECONDS: Final = 120.0
"""While a store restarts, a request is repeated for so long; SeaweedFS takes 35 s."""
WAIT_SECONDS: Final = 1.0
_SERVER_FAULTS: Final = frozenset({500, 502, 503, 504})

S3_OPTIONS: Final = ("endpoint_url", "key", "secret", "token", "region_name")
"""Options of an S3 filesystem that have other names in other libraries."""
PYICEBERG_S3_OPTIONS: Final = ("s3.endpoint", "s3.access-key-id", "s3.secret-access-key", "s3.session-token", "s3.region")

_S3_PROTOCOLS: Final = ("s3://", "s3a://")
_CONFLICTS: Final = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""Error codes of S3 for a put with a condition that no longer holds."""
_REMEDY: Final = "correct the path or URL, install its package, or set its credentials"


def open_location(uri: str, where: str, options: Mapping[str, Any] | None = None, remedy: str = _REMEDY) -> tuple[Any, str]:
    """Returns the filesystem of a path or URL, and the path in it. Nothing is read yet.

    S3 connections get time limits; `config_kwargs` in `options` may change them. Requests are repeated while a store restarts.

    Raises:
        InputError: the protocol is unknown, its package is missing, or the text cannot be a path.
    """
    given = dict(options or {})
    with location_errors(uri, where, remedy):
        if "\0" in uri or uri.encode("utf-8", "replace").decode() != uri:  # a lone surrogate
            raise ValueError("it has characters that cannot be in a path")
        if uri.startswith(_S3_PROTOCOLS):
            limits = {**_S3_LIMITS, **given.get("config_kwargs", {})}
            given["config_kwargs"] = {**limits, "retries": {**_S3_RETRIES, **limits.get("retries", {})}}
            given.setdefault("session", open_s3_session(given.pop("profile", None)))
        fs, path = fsspec.core.url_to_fs(uri, **given)
        return fs, str(path)


@functools.cache
def open_s3_session(profile: str | None = None) -> Any:
    """Returns this process's session for S3 clients of a profile. The clients repeat requests while a store restarts."""
    from aiobotocore.session import AioSession

    class Session(AioSession):  # type: ignore[misc]
        """Pickled as its profile, so that other processes open their own session."""

        def __reduce__(self) -> Any:
            return open_s3_session, (profile,)

    session, answered = Session(profile=profile), set[str]()

    def wait_for_restart(*, response: Any, endpoint: Any, caught_exception: Any, request_dict: Any, **_: Any) -> float | None:
        """Called by botocore. While a store restarts, returns after how many seconds to repeat a request; else None.

        A restarting store first answers with faults and then accepts no connections. A store that has never answered does not
        count as restarting.
        """
        from botocore.exceptions import ConnectionError as NoConnectionError
        from botocore.exceptions import HTTPClientError

        if response is not None:
            answered.add(endpoint.host)
            is_away = response[0].status_code in _SERVER_FAULTS
        else:
            is_away = endpoint.host in answered and isinstance(caught_exception, NoConnectionError | HTTPClientError)
        end = request_dict["context"].setdefault("end_of_restart", time.monotonic() + RESTART_SECONDS)
        return WAIT_SECONDS if is_away and time.monotonic() < end else None

    session.register("needs-retry.s3", wait_for_restart)
    return session


@contextmanager
def location_errors(uri: str, where: str, remedy: str = _REMEDY, *, may_be_missing: bool = False) -> Iterator[None]:
    """Replaces the errors of a filesystem and its package by an InputError. Our own errors pass unchanged.

    With `may_be_missing`, FileNotFoundError passes unchanged, too.
    """
    try:
        yield
    except DssmError:
        raise
    except Exception as error:
        if may_be_missing and isinstance(error, FileNotFoundError):
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        shown = uri.encode("utf-8", "replace").decode()
        raise InputError(Fault(f"{where}, {shown}", "a place that can be used", text, remedy)) from error


def rename_s3_options(options: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """Renames S3_OPTIONS to a library's names, also inside `client_kwargs`. Other options stay."""
    given = {**options, **dict(options.get("client_kwargs") or {})}
    given.pop("client_kwargs", None)
    renamed = dict(zip(S3_OPTIONS, names, strict=True))
    return {renamed.get(key, key): str(value) for key, value in given.items() if value is not None}


def has_conditional_puts(fs: Any) -> bool:
    """Returns whether an fsspec filesystem supports conditional puts; S3 does."""
    return "s3" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))


def unchanged_condition(fs: Any, path: str) -> dict[str, str]:
    """Returns the condition "the file is unchanged since now" for a put, empty if the store has no conditional puts.

    Call this before reading the file, so that a change in between makes the condition fail.
    """
    if not has_conditional_puts(fs):
        return {}
    try:
        return {"IfMatch": str(fs.info(path, refresh=True)["ETag"])}
    except FileNotFoundError:
        return absent_condition(fs)


def absent_condition(fs: Any) -> dict[str, str]:
    """Returns the condition "the file does not exist" for a put, empty if the store has no conditional puts."""
    return {"IfNoneMatch": "*"} if has_conditional_puts(fs) else {}


def put_if(fs: Any, path: str, content: bytes, condition: Mapping[str, str]) -> bool:
    """Replaces a file in one step if the condition holds. Otherwise leaves it unchanged and returns False.

    A file that already has this content counts as replaced: if the answer to a put was lost, the repeated put finds its own file.
    """
    if is_local(fs):
        write_atomic(path, [content])
        return True
    try:
        fs.pipe_file(path, content, **condition)
    except OSError as error:
        response = getattr(error.__cause__, "response", None) or {}
        if condition and response.get("Error", {}).get("Code") in _CONFLICTS:
            return fs.exists(path) and bool(fs.cat_file(path) == content)
        raise
    return True
