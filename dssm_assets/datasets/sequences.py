"""Public text files of interactions, "user item item ...": one line per user, its items from the oldest to the newest.

    1 17 4 17 9
    2 4

Fields are separated by spaces or tabs; ids are numbers or texts. A user without items is allowed: published test files have
them. Train and test pairs of collaborative filtering, e.g. LightGCN's train.txt and test.txt, have the same form, where the
order of a line means nothing.

Letters: U users, E events.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.datasets.source_tables import DatasetMissingError

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


def read_sequences(*paths: Path) -> tuple[Sequences, ...]:
    """Returns the sequences of each file, UTF-8 text that is read at once.

    Raises:
        DatasetMissingError: naming every file that does not exist.
        SchemaError: naming file and line of every line that is empty, is not UTF-8, or repeats the user of an earlier line,
            and every file without a single item.
    """
    missing = [Fault(f"file {path}", "to exist", "no such file", "correct the path") for path in paths if not path.is_file()]
    if missing:
        raise DatasetMissingError(missing)
    faults: list[Fault] = []
    found = tuple(_read_file(path, faults) for path in paths)
    if faults:
        raise SchemaError(faults)
    return found


def _read_file(path: Path, faults: list[Fault]) -> Sequences:
    lines = [line.strip() for line in path.read_bytes().removeprefix(b"\xef\xbb\xbf").rstrip().splitlines()]
    wrong: dict[int, tuple[str, str, str]] = {}
    fields: list[list[str]] = []
    first: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        try:
            ids = line.decode().split()
        except UnicodeDecodeError:
            wrong[number] = ("UTF-8 text", "other bytes", "convert the file to UTF-8")
            continue
        if not ids:
            wrong[number] = (_FORM, "an empty line", "delete the line")
        elif first.setdefault(ids[0], number) != number:
            got = f"user {ids[0]} of line {first[ids[0]]} again"
            wrong[number] = ("one line per user", got, "join the user's lines, the oldest items first")
        else:
            fields.append(ids)
    faults += [Fault(f"file {path}, line {number:>7,}", *fault) for number, fault in [*wrong.items()][:MAX_FAULTS]]
    if (more := len(wrong) - MAX_FAULTS) > 0:
        remedy = "correct the lines that are named above, and read the file again"
        faults.append(Fault(f"file {path}, other lines", f"lines of {_FORM}", f"{more} more faults", remedy))
    lengths = np.array([len(ids) - 1 for ids in fields], np.int64)
    if not wrong and not lengths.sum():
        got, remedy = f"{len(fields)} lines without items", "separate ids by spaces or tabs, one line per user"
        faults.append(Fault(f"file {path}", f"lines of {_FORM}", got, remedy))
    users, items = (_type_ids(ids) for ids in ([ids[0] for ids in fields], [item for ids in fields for item in ids[1:]]))
    return Sequences(users, items, offsets_of(lengths))


def _type_ids(ids: list[str]) -> pa.Array:
    """Returns ids as int64 if every id is the decimal text of a number."""
    texts = pa.array(ids, pa.string())
    return texts.cast(pa.int64()) if pc.all(pc.match_substring_regex(texts, _INTEGER)).as_py() is not False else texts
