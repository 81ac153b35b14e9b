"""API keys of the service, with scopes and a last day. Their file is read again when it changes.

    # name    scopes          last day    key
    shop-web  recall,similar  2027-03-31  sha256:5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8

A line has four columns. Text after # is a comment. The file has only the sha256 of each key, so it is not secret. The last day
is in UTC.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError

from dssm_assets.core.config.section import Section, describe_expected, repeated_names
from dssm_assets.core.errors import Fault, InputError

MIN_KEY_LENGTH: Final = 16
"""Fewest characters of a key. A shorter key could be guessed and is never valid."""
MAX_FILE_BYTES: Final = 2**16


class KeyScope(StrEnum):
    """Permissions of a key. recall: lists for users. similar: items like an item. events: lists after the request's `events`. admin: all."""

    RECALL = "recall"
    SIMILAR = "similar"
    EVENTS = "events"
    ADMIN = "admin"


class ApiKey(Section):
    """A line of the file: its four columns."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    scopes: Annotated[frozenset[KeyScope], BeforeValidator(lambda text: text.split(","))]
    last_day: dt.date
    sha256: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")

    @property
    def has_ended(self) -> bool:
        return dt.datetime.now(dt.UTC).date() > self.last_day

    def allows(self, scope: KeyScope) -> bool:
        return not self.scopes.isdisjoint((scope, KeyScope.ADMIN))


_LINES: Final = TypeAdapter(Annotated[dict[str, ApiKey], Field(min_length=1)])


def read_keys(path: str) -> list[ApiKey]:
    """Returns the keys of a file.

    Raises:
        InputError: the file cannot be read, has no key, has wrong lines, or repeats a name or key. The error shows no part of a
            wrong line, because it may be secret.
    """
    where = f"--api-key-file {path}"
    remedy = "write lines of four columns: NAME SCOPE,SCOPE YYYY-MM-DD sha256:HEX (docs/serving.md)"
    try:
        if not Path(path).is_file() or Path(path).stat().st_size > MAX_FILE_BYTES:
            raise OSError(f"no file of at most {MAX_FILE_BYTES} bytes")
        lines = enumerate(Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines(), 1)
        rows = {f"line {number}": line.partition("#")[0].strip().split(maxsplit=3) for number, line in lines}
        given = {name: dict(zip(ApiKey.model_fields, columns, strict=False)) for name, columns in rows.items() if columns}
        keys = list(_LINES.validate_python(given).values())
    except OSError as error:
        raise InputError(Fault(where, "a readable file of keys", str(error), remedy)) from error
    except ValidationError as error:
        wrong = [(", ".join([where, *map(str, one["loc"][:2])]), describe_expected(one), one["type"]) for one in error.errors()]
        got = {"missing": "nothing"}
        raise InputError([Fault(place, said, got.get(kind, "another text"), remedy) for place, said, kind in wrong]) from None
    if twice := repeated_names(text for key in keys for text in (key.name, key.sha256)):
        raise InputError(Fault(where, "each name and key once", twice, "remove or rename one of the lines"))
    return keys


class LiveKeys:
    """The current keys of a file. If the file cannot be used, the former keys stay."""

    def __init__(self, path: str) -> None:
        self._path, self._keys = path, read_keys(path)
        self.fault: str | None = None
        """Why the file cannot be used; None if it can."""

    def find(self, given: Sequence[bytes]) -> ApiKey | None:
        """Returns the known key among the given texts, also if it has expired. None if there is none."""
        digests = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in given if len(one) >= MIN_KEY_LENGTH]
        # All keys are compared, so that the time reveals nothing.
        found = [key for digest in digests for key in self._keys if hmac.compare_digest(key.sha256, digest)]
        return found[0] if found else None

    def refresh(self) -> None:
        try:
            self._keys, self.fault = read_keys(self._path), None
        except InputError as error:
            self.fault = str(error)
            raise
