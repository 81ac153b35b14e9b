"""Typed errors of the library: each says where, what was expected, what came and what to do.

Belongs here: the exception classes and the one way their messages are laid out. Does not belong here: the checks
that raise them, which live with the thing they check.
"""

from __future__ import annotations

from collections.abc import Sequence


class DssmError(Exception):
    """Base of every error the library raises on bad input."""


class Fault:
    """One thing that is wrong: where it is, what was expected, what came, what to do about it."""

    def __init__(self, where: str, expected: str, got: str, remedy: str) -> None:
        self.where = where
        self.expected = expected
        self.got = got
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, got {self.got}. To fix: {self.remedy}"


class InputError(DssmError):
    """Input that cannot be used. Carries every fault found at once, sorted by place."""

    def __init__(self, faults: Sequence[Fault] | Fault) -> None:
        given = [faults] if isinstance(faults, Fault) else list(faults)
        self.faults = sorted(given, key=lambda fault: fault.where)
        count = len(self.faults)
        head = "" if count == 1 else f"{count} faults:\n"
        super().__init__(head + "\n".join(str(fault) for fault in self.faults))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Fault]]]:
        """Returns how it is made again in another process: of its faults, not of its message."""
        return type(self), (self.faults,)


class ConfigError(InputError):
    """The configuration file is wrong: an unknown key, a bad value, a name that nothing defines."""


class FeatureSpecError(InputError):
    """A feature definition (fg.json) is wrong, for example it crosses the user and the item side."""


class SchemaError(InputError):
    """A table lacks a column, has one of the wrong type, or carries values that its contract forbids."""


class DuplicateKeyError(InputError):
    """A key that must be unique occurs more than once."""


class EmptyDayError(InputError):
    """A day has no rows and the configuration does not say that this may happen."""


class PartitionMissingError(InputError):
    """A partition that a reader asked for was never written."""


class WindowIncompleteError(InputError):
    """A window lacks days. Names each missing day and the command that fills them."""


class LeakError(InputError):
    """Something that was known only later reached a place where it must not be."""


class CheckFailedError(DssmError):
    """A blocking check of an asset failed; what lies behind the asset was not made."""


class ProvenanceError(InputError):
    """A partition was made from inputs that are not the ones that stand now."""


class StorageError(DssmError):
    """A stored file is not what its manifest says."""


class SubmittedJobError(DssmError):
    """A job that was submitted to a cluster failed there; says why, as far as the job could tell."""
