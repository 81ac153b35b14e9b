"""Fields of a message read by name, and the record of the import: whatever is not read is reported as having no counterpart."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from dssm_assets.core.errors import Fault
from dssm_assets.extras.easyrec.text_format import Entry, Message, Value, Word

_BOOLEANS = {"true": True, "True": True, "t": True, "1": True, "false": False, "False": False, "f": False, "0": False}


@dataclass(frozen=True)
class Setting:
    """A key of config.yaml, its value, and where it comes from."""

    value: Any
    origin: str


@dataclass
class ImportRecord:
    """What an import found.

    Attributes:
        where: name of the imported file in errors.
        settings: key of config.yaml -> setting.
        features: feature -> where it comes from.
        ids: field that names a column of ids -> the column.
        told: what behaves differently here -> the features that it is about, none if all of it.
        without_counterpart: field, its line and value -> reason.
        faults: what makes the import impossible.
    """

    where: str
    system: str
    settings: dict[str, Setting] = field(default_factory=dict)
    features: dict[str, str] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)
    without_counterpart: dict[str, str] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def put(self, key: str, value: Any, origin: str) -> None:
        self.settings[key] = Setting(value, origin)

    def tell(self, sentence: str, *features: str) -> None:
        """Records a difference; a sentence about features ends without a full stop."""
        self.told[sentence] = list(dict.fromkeys([*self.told.get(sentence, ()), *features]))

    @property
    def differences(self) -> list[str]:
        """What behaves differently here, each sentence once, with its features."""
        return [f"{sentence}: {', '.join(features)}." if features else sentence for sentence, features in self.told.items()]


class FieldReader:
    """A message whose fields are marked as they are read.

    Values of a type that was not expected are faults of the record, and count as not given. A field that is not repeated and given
    several times has its last value, as in protocol buffers.
    """

    def __init__(self, read: Message, path: str, record: ImportRecord) -> None:
        self.path, self.record = path, record
        self._entries = read.entries
        self._seen: set[int] = set()
        self._children: dict[int, FieldReader] = {}

    @property
    def line(self) -> int:
        """The line of the first field; 0 without fields."""
        return self._entries[0].line if self._entries else 0

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the given fields, each once, in their order."""
        return tuple(dict.fromkeys(entry.name for entry in self._entries))

    def only_message(self, ending: str = "") -> str:
        """Returns the name of the first field that is a message and whose name ends so; "" if there is none. Marks nothing."""
        messages = (entry.name for entry in self._entries if isinstance(entry.value, Message))
        return next((name for name in messages if name.endswith(ending)), "")

    def has(self, *names: str) -> bool:
        """Returns whether one of the fields is given; marks nothing."""
        return any(entry.name in names for entry in self._entries)

    def value(self, name: str) -> Value | None:
        """Returns the last value of a field as it was written, None if it is not given."""
        found = [self._mark(entry) for entry in self._entries if entry.name == name]
        return found[-1].value if found else None

    def text(self, name: str, default: str = "") -> str:
        return next(reversed(self.texts(name)), default)

    def texts(self, name: str) -> list[str]:
        """Returns the values of a repeated text."""
        return [str(value) for value in self._values(name, str, "a text")]

    def number(self, name: str, default: float) -> float:
        return next(reversed(self.numbers(name)), default)

    def numbers(self, name: str) -> list[float]:
        """Returns the values of a repeated number; whole numbers are integers."""
        return list(self._values(name, (int, float), "a number"))

    def integer(self, name: str, default: int) -> int:
        return next(reversed(self.integers(name)), default)

    def integers(self, name: str) -> list[int]:
        """Returns the values of a repeated whole number."""
        return list(self._values(name, int, "a whole number"))

    def flag(self, name: str, default: bool) -> bool:
        found = list(self._values(name, (Word, int), "true or false"))
        if found and str(found[-1]) not in _BOOLEANS:
            self._add_fault(name, "true or false", str(found[-1]))
            return default
        return _BOOLEANS[str(found[-1])] if found else default

    def message(self, name: str) -> FieldReader:
        """Returns the reader of a message; one without fields if it is not given."""
        return next(reversed(self.messages(name)), FieldReader(Message(), self._below(name), self.record))

    def messages(self, name: str) -> list[FieldReader]:
        """Returns the readers of a repeated message."""
        found = []
        for number, entry in enumerate(self._entries):
            if entry.name == name and isinstance(entry.value, Message):
                self._mark(entry)
                child = self._children.setdefault(number, FieldReader(entry.value, self._below(name), self.record))
                found.append(child)
            elif entry.name == name:
                self._add_fault(name, "a message", str(entry.value))
        return found

    def choice(self, names: Collection[str]) -> str | None:
        """Returns which one of several fields is given, None if none is; marks nothing. If several are, the last one."""
        return next((entry.name for entry in reversed(self._entries) if entry.name in names), None)

    def origin(self, name: str) -> str:
        """Returns where the value of a field comes from: its path and line, or that it is a default."""
        lines = [entry.line for entry in self._entries if entry.name == name]
        return f"{self._below(name)}, line {lines[-1]}" if lines else f"{self.record.system}'s default of {self._below(name)}"

    def without_counterpart(self, name: str, reason: str) -> None:
        """Marks a field and records that it has no counterpart; does nothing if it is not given."""
        for number, entry in enumerate(self._entries):
            if entry.name == name:
                self._children.pop(number, None)
                self.record.without_counterpart |= _leaves(self._mark(entry), self._below(name), {}, reason)

    def tell_rest(self, reasons: Mapping[str, str], otherwise: str) -> None:
        """Records every field that nothing read, here and in the messages that were read.

        Args:
            reasons: field name -> why it has no counterpart; of nested fields the innermost one with a reason counts.
        """
        for number, entry in enumerate(self._entries):
            if number in self._children:
                self._children[number].tell_rest(reasons, reasons.get(entry.name, otherwise))
            elif id(entry) not in self._seen:
                self.record.without_counterpart |= _leaves(entry, self._below(entry.name), reasons, otherwise)

    def _values(self, name: str, kinds: type | tuple[type, ...], expected: str) -> Iterator[Any]:
        for entry in self._entries:
            if entry.name == name:
                self._mark(entry)
                if isinstance(entry.value, kinds) and not isinstance(entry.value, Message):
                    yield entry.value
                else:
                    got = "a message" if isinstance(entry.value, Message) else str(entry.value)
                    self.record.faults.append(self._fault(entry, expected, got))

    def _mark(self, entry: Entry) -> Entry:
        self._seen.add(id(entry))
        return entry

    def _below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name

    def _add_fault(self, name: str, expected: str, got: str) -> None:
        entry = next(entry for entry in reversed(self._entries) if entry.name == name)
        self.record.faults.append(self._fault(entry, expected, got))

    def _fault(self, entry: Entry, expected: str, got: str) -> Fault:
        place = f"{self.record.where}, line {entry.line}, column {entry.column}, {self._below(entry.name)}"
        return Fault(place, expected, got[:80], "correct the value")


def _leaves(entry: Entry, path: str, reasons: Mapping[str, str], otherwise: str) -> dict[str, str]:
    """Returns `path (line n): value` -> reason of an entry, or of every entry within it."""
    reason = reasons.get(entry.name, otherwise)
    if isinstance(entry.value, Message) and entry.value.entries:
        found: dict[str, str] = {}
        for inner in entry.value.entries:
            found |= _leaves(inner, f"{path}.{inner.name}", reasons, reason)
        return found
    value = "{}" if isinstance(entry.value, Message) else entry.value if isinstance(entry.value, Word) else repr(entry.value)
    return {f"{path} (line {entry.line}): {value}": reason}
