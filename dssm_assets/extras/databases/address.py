"""The URI of a database, from the configuration or an environment variable, and messages without its secrets."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

from dssm_assets.core.errors import ConfigError, Fault

_FROM_ENVIRONMENT: Final = "env:"
_URI: Final = re.compile(
    r"(?P<scheme>[a-z]+)(?:\+[a-z0-9]+)?://(?:(?P<user>[^:@/]*)(?::(?P<password>.*))?@)?(?P<host>[^@/?]*)(?:/(?P<database>[^?]*))?"
    r"(?:\?(?P<options>.*))?",
    re.DOTALL,
)
"""A password may have any characters up to the last @."""


@dataclass(frozen=True)
class Address:
    """The parts of a URI, decoded; `shown` is what the configuration says, which has no secrets."""

    shown: str
    scheme: str
    user: str
    host: str
    database: str
    password: str = field(repr=False)
    options: dict[str, str] = field(repr=False)

    def hide(self, text: str) -> str:
        """Returns a driver's message on one line, without passwords."""
        secrets = {self.password, *(value for name, value in self.options.items() if "pass" in name)}
        for secret in sorted({form for each in secrets for form in (each, quote(each, safe=""))} - {""}, key=len, reverse=True):
            text = text.replace(secret, "***")
        return " ".join(text.split("Query was:")[0].split()).rstrip(".")

    @property
    def remedy(self) -> str:
        return f"start the database, or correct {self.shown.removeprefix(_FROM_ENVIRONMENT)}: user, password, host, port, name"


def read_address(uri: str, schemes: Collection[str], where: str) -> Address:
    """Returns the address that a URI, or the environment variable that it names, holds.

    Raises:
        ConfigError: the variable is not set, or it has another scheme. The URI is not shown.
    """
    given = uri
    if uri.startswith(_FROM_ENVIRONMENT):
        name = uri.removeprefix(_FROM_ENVIRONMENT)
        given = os.environ.get(name, "")
        if not given:
            example = f"export {name}=postgresql://USER:PASSWORD@HOST/DATABASE"
            raise ConfigError(Fault(where, f"the environment variable {name} with the URI of a database", "no value", example))
    parts = _URI.fullmatch(given.strip())
    if parts is None or parts["scheme"] not in schemes:
        expected, got = f"a URI of a database: {'://, '.join(schemes)}://", "another one, not shown as it may be secret"
        raise ConfigError(Fault(where, expected, got, f"correct {uri.split('://', maxsplit=1)[0]}"))
    text = {name: unquote(value or "") for name, value in parts.groupdict().items()}
    options = dict(parse_qsl(parts["options"] or "", keep_blank_values=True))
    return Address(uri, text["scheme"], text["user"], text["host"], text["database"], text["password"], options)
