"""Reads the files named in fg.json: vocabularies, tokenizers, stop characters.

Operators read them through the `ReadFile` in the validation context: definitions may come from a folder, a bundle or a test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

ReadFile = Callable[[str], bytes]
"""Returns the content of a file that fg.json names. Raises OSError if it does not exist."""

FG_FILE: Final = "fg.json"
"""Name of the file of feature definitions next to a configuration."""
FILE_KEY_SUFFIX: Final = "_file"
"""A key with this suffix has the name of a file as its value."""
CONTEXT_KEY: Final = "read_file"
"""Key of the `ReadFile` in the validation context."""


def read_named_file(context: Any, name: str) -> bytes:
    """Returns the content of a named file, read with the `ReadFile` of the validation context.

    Raises:
        ValueError: the context has no `ReadFile`, or the file cannot be read.
    """
    reader: ReadFile | None = (context or {}).get(CONTEXT_KEY)
    if reader is None:
        raise ValueError(f"file {name!r} cannot be read: no folder of files belongs to these definitions; pass read_file")
    try:
        return reader(name)
    except OSError as error:
        reason = error if error.strerror is None else f"{error.strerror}, {error.filename}"
        raise ValueError(f"file {name!r} cannot be read: {reason}") from error


def rename_files(definitions: Any, rename: Callable[[str], str]) -> Any:
    """Returns the feature definitions with every file name in them replaced by `rename(name)`."""
    if isinstance(definitions, Mapping):
        return {
            key: rename(value) if str(key).endswith(FILE_KEY_SUFFIX) and isinstance(value, str) else rename_files(value, rename)
            for key, value in definitions.items()
        }
    return [rename_files(value, rename) for value in definitions] if isinstance(definitions, list) else definitions


def parse_vocabulary(content: bytes) -> dict[str, int]:
    """Returns word -> bucket from a vocabulary file. The bucket is the line number from 0, or the number after the last space.

    Raises:
        ValueError: the text is not UTF-8, has no word, repeats a word, or only some lines end with a number.
    """
    try:
        lines = [line for line in content.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"a vocabulary file is UTF-8 text: {error}") from error
    if not lines:
        raise ValueError("a vocabulary file needs at least one word")
    pairs = [line.rsplit(" ", 1) for line in lines]
    is_numbered = [len(pair) == 2 and pair[1].isdecimal() for pair in pairs]
    if all(is_numbered):
        words = {pair[0]: int(pair[1]) for pair in pairs}
    elif any(is_numbered):
        where = is_numbered.index(not is_numbered[0]) + 1
        raise ValueError(f"either all lines of a vocabulary file end with a bucket or none; line {where} differs")
    else:
        words = {line: position for position, line in enumerate(lines)}
    if len(words) != len(lines):
        raise ValueError(f"a vocabulary file repeats {len(lines) - len(words)} words")
    return words


def fg_json(fg: Mapping[str, Any]) -> str:
    """Returns feature definitions as the text of an fg.json, one feature per line."""
    lines = ",\n  ".join(json.dumps(feature, ensure_ascii=False) for feature in fg["features"])
    return '{\n "features": [\n  ' + lines + "\n ]\n}\n"
