"""Typed errors: each has the place, the expectation, the finding and the remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class DssmError(Exception):
    """Base of every error that the library raises on bad input."""


@dataclass(frozen=True)
class Fault:
    """One fault: its place, the expectation, the finding, and the remedy (an imperative after "To fix:")."""

    where: str
    expected: str
    got: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: expected {self.expected}, got {self.got}. To fix: {self.remedy}"


def remedy_of_missing(name: str, first: str, last: str = "") -> str:
    """Returns the remedy for missing days of an asset or job: launch it in Dagster, or run a command."""
    days = first if last in ("", first) else f"{first} to {last}"
    command = f"dssm-assets materialize {name} --from {first}{f' --to {last}' if days != first else ''} --with-upstream"
    return f"materialize {name} of {days} in Dagster, which first makes what it needs, or run {command}"


class InputError(DssmError):
    """Unusable input. Lists all faults at once, sorted by where they are."""

    def __init__(self, faults: Sequence[Fault] | Fault) -> None:
        given = [faults] if isinstance(faults, Fault) else list(faults)
        self.faults = sorted(given, key=lambda fault: fault.where)
        count = len(self.faults)
        head = "" if count == 1 else f"{count} faults:\n"
        super().__init__(head + "\n".join(str(fault) for fault in self.faults))

    def __reduce__(self) -> tuple[type[InputError], tuple[list[Fault]]]:
        """Pickles the faults instead of the message, so that another process can rebuild the error."""
        return type(self), (self.faults,)

    @classmethod
    def raise_if(cls, faults: Iterable[Fault]) -> None:
        """Raises the error if there is any fault."""
        if found := list(faults):
            raise cls(found)


class ConfigError(InputError):
    """The configuration file is wrong: an unknown key, a bad value, or an undefined name."""


class FeatureSpecError(InputError):
    """A feature definition (fg.json) is wrong; for example, it mixes inputs of the user and the item side."""


class SchemaError(InputError):
    """A table lacks a column, a column has the wrong type, or values break the table's contract."""


class DuplicateKeyError(InputError):
    """A unique key occurs more than once."""


class EmptyDayError(InputError):
    """A day has no rows and the configuration does not allow empty days."""


class PartitionMissingError(InputError):
    """A requested partition does not exist."""


class PartitionReplacedError(InputError):
    """Files of a partition were replaced while it was read. Reading it again finds the new files."""


class WindowIncompleteError(InputError):
    """A window lacks days. Names each missing day and the command that materializes it."""


class LeakError(InputError):
    """A feature is from a later day than the sample that uses it."""


class ProcessLostError(DssmError):
    """A worker process was killed, for example because the machine ran out of memory."""


class CheckFailedError(DssmError):
    """A blocking check of an asset failed; assets downstream were not materialized."""


class DaysFailedError(DssmError):
    """Some days of a range failed; the others were made. Has one error per failed day."""

    def __init__(self, errors: Mapping[str, DssmError]) -> None:
        self.errors = dict(errors)
        lines = [f"{ds}: {type(error).__name__}: {error}" for ds, error in self.errors.items()]
        super().__init__("\n".join([f"{len(lines)} days failed:", *lines]))


class ProvenanceError(InputError):
    """A partition was built from inputs that have changed since."""


class StorageError(DssmError):
    """A stored file differs from its manifest."""


class SignatureError(StorageError):
    """A bundle has no signature by a trusted key."""


class DiskFullError(InputError):
    """A disk or an object store has no room left. What was published before is unchanged."""


class SubmittedJobError(DssmError):
    """A job submitted to a cluster failed there. The message includes the job's own error if it left one."""
