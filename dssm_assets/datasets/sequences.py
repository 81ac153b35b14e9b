"""Public text files of interactions, "user item item ...": one line per user, its items from the oldest to the newest.

    1 17 4 17 9
    2 4

Fields are separated by spaces or tabs; ids are numbers or texts. A user without items is allowed: published test files have
them. Train and test pairs of collaborative filtering, e.g. LightGCN's train.txt and test.txt, have the same form, where the
order of a line means nothing.

Belongs here: reading such files. Does not belong here: what is held out of them and how lists are scored.

Letters: U users, E events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.datasets.source_tables import DatasetMissingError

BLOCK_BYTES: Final = 1 << 24
"""Text that is parsed at a time; the memory of a file is this and its ids."""
MAX_FAULTS: Final = 100
"""Lines that an error names; it counts the others."""
_INTEGER: Final = r"^(0|[1-9][0-9]{0,17})$"
"""Texts that come back unchanged from int64."""
_FORM: Final = "a user and its items, separated by spaces"


@dataclass(frozen=True)
class Sequences:
    """The users of a file, in its order, and their items.

    Attributes:
        users: ids, int64 if all are decimal numbers, else string [U].
        items: ids of all users' items one after another, typed likewise [E].
        offsets: user u has items[offsets[u] : offsets[u + 1]], the oldest first [U + 1].
    """

    users: pa.Array
    items: pa.Array
    offsets: npt.NDArray[np.int64]


@dataclass
class _Block:
    """Parsed lines: ids, number of items and line number of each user."""

    users: pa.Array
    items: pa.Array
    lengths: npt.NDArray[np.int64]
    lines: npt.NDArray[np.int64]


def read_sequences(*paths: Path, block_bytes: int = BLOCK_BYTES) -> tuple[Sequences, ...]:
    """Returns the sequences of each file.

    Args:
        paths: text files, UTF-8.
        block_bytes: text that is parsed at a time; whole lines, so a longer line is a block of its own.

    Raises:
        DatasetMissingError: naming every file that does not exist.
        SchemaError: naming file and line of every line that is empty, is not UTF-8, or repeats the user of an earlier line,
            and every file without a single item.
    """
    missing = [Fault(f"file {path}", "to exist", "no such file", "correct the path") for path in paths if not path.is_file()]
    if missing:
        raise DatasetMissingError(missing)
    found, faults = [], []
    for path in paths:
        sequences, wrong = _read_file(path, block_bytes)
        found.append(sequences)
        faults += wrong
    if faults:
        raise SchemaError(faults)
    return tuple(found)


def _read_file(path: Path, block_bytes: int) -> tuple[Sequences, list[Fault]]:
    blocks, faults = [], _LineFaults(path)
    with path.open("rb") as file:
        for first, lines in _read_lines(file, block_bytes):
            blocks.append(_parse(lines, first, faults))
    if blocks:
        users, items = (_join([getattr(block, name) for block in blocks]) for name in ("users", "items"))
        lengths = np.concatenate([block.lengths for block in blocks])
        line_numbers = np.concatenate([block.lines for block in blocks])
    else:
        users = items = pa.array([], pa.int64())
        lengths = line_numbers = np.zeros(0, np.int64)
    _find_repeated(users, line_numbers, faults)
    found = faults.to_list()
    if not found and not len(items):
        got = f"{len(users)} lines without items"
        found = [Fault(f"file {path}", f"lines of {_FORM}", got, "separate ids by spaces or tabs, one line per user")]
    return Sequences(users, items, offsets_of(lengths)), found


def _read_lines(file: BinaryIO, block_bytes: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yields the number of a block's first line, and its lines; empty lines at the end of the file are left out."""
    number, waiting = 1, file.readlines(block_bytes)
    if waiting:
        waiting[0] = waiting[0].removeprefix(b"\xef\xbb\xbf")
    while waiting:
        following = file.readlines(block_bytes)
        lines, count = waiting, len(waiting)
        if not following:
            while lines and not lines[-1].strip():
                lines.pop()
        yield number, lines
        number, waiting = number + count, following


def _parse(lines: list[bytes], first: int, faults: _LineFaults) -> _Block:
    numbers = np.arange(first, first + len(lines))
    try:
        texts = pa.array(lines, pa.binary()).cast(pa.string())
    except pa.ArrowInvalid:
        valid = np.array([_is_utf8(line) for line in lines])
        faults.add(numbers[~valid], "UTF-8 text", "other bytes", "convert the file to UTF-8")
        numbers = numbers[valid]
        texts = pa.array([line for line, is_valid in zip(lines, valid, strict=True) if is_valid], pa.string())
    texts = pc.ascii_trim_whitespace(texts)
    is_empty = pc.equal(texts, "").to_numpy(zero_copy_only=False).astype(bool)
    faults.add(numbers[is_empty], _FORM, "an empty line", "delete the line")
    fields = pc.ascii_split_whitespace(texts.filter(pa.array(~is_empty)))
    ids, lengths = fields.flatten(), pc.list_value_length(fields).to_numpy(zero_copy_only=False).astype(np.int64)
    is_user = np.zeros(len(ids), np.bool_)
    is_user[offsets_of(lengths)[:-1]] = True
    users, items = (_narrow(ids.filter(pa.array(mask))) for mask in (is_user, ~is_user))
    return _Block(users, items, lengths - 1, numbers[~is_empty])


def _narrow(ids: pa.Array) -> pa.Array:
    """Returns ids as int64 if every one of them is the decimal text of one."""
    is_integer = pc.all(pc.match_substring_regex(ids, _INTEGER)).as_py()
    return ids if is_integer is False else ids.cast(pa.int64())


def _join(parts: Sequence[pa.Array]) -> pa.Array:
    """Returns the ids of all blocks: int64 if all blocks have that type, else string."""
    kinds = {part.type for part in parts}
    kind = kinds.pop() if len(kinds) == 1 else pa.string()
    return pa.concat_arrays([part.cast(kind) for part in parts])


def _find_repeated(users: pa.Array, lines: npt.NDArray[np.int64], faults: _LineFaults) -> None:
    """Reports every line whose user has an earlier line."""
    codes = users.dictionary_encode().indices.to_numpy()
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    again = np.flatnonzero(first[inverse] != np.arange(len(codes)))
    for row in again[:MAX_FAULTS]:
        got = f"user {users[int(row)].as_py()} of line {lines[first[inverse[row]]]} again"
        faults.add(lines[row : row + 1], "one line per user", got, "join the user's lines, the oldest items first")
    faults.skip(max(0, len(again) - MAX_FAULTS))


class _LineFaults:
    """Faults of one file's lines; the first `MAX_FAULTS` are kept, the others counted."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._faults: list[Fault] = []
        self._skipped = 0

    def add(self, lines: npt.NDArray[Any], expected: str, got: str, remedy: str) -> None:
        """Adds a fault of each of these lines."""
        room = max(0, MAX_FAULTS - len(self._faults))
        places = (f"file {self._path}, line {line:>7,}" for line in lines[:room])
        self._faults += [Fault(place, expected, got, remedy) for place in places]
        self.skip(max(0, len(lines) - room))

    def skip(self, count: int) -> None:
        """Counts faults that are not named."""
        self._skipped += count

    def to_list(self) -> list[Fault]:
        """Returns the faults, the last one of which counts those without a place."""
        if not self._skipped:
            return self._faults
        remedy = "correct the lines that are named above, and read the file again"
        more = Fault(f"file {self._path}, other lines", f"lines of {_FORM}", f"{self._skipped} more faults", remedy)
        return [*self._faults, more]


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
