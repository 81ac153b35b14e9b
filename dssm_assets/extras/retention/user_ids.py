"""Reads the file of users to forget."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pyarrow as pa

from dssm_assets.core.columns import USER_ID
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.service.engine.id_rows import parse_id
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.partitions import PartitionStore

_SHOWN_LINES: Final = 50


def read_user_ids(path: Path, workspace: Workspace) -> pa.Array:
    """Returns the user ids of a file with one id per line, as text, ascending. They are parsed like the ids of recall requests.

    Blanks and quotes around an id, and empty lines, are ignored.

    Raises:
        InputError: the file cannot be read, has no id, or has a line that is not an id. The error gives line numbers, not
            ids, because Dagster stores it.
    """
    where = f"user ids {path}"
    try:
        texts = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        got = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise InputError(Fault(where, "a file of text", got, "write one id per line, in UTF-8")) from error
    is_integer, headers = _has_integer_ids(workspace.tables.partitions), _list_headers(workspace)
    ids, wrong = set[str](), list[int]()
    for number, text in enumerate(map(_strip, texts), 1):
        if text and not ids and not wrong and text in headers:
            wrong.append(number)
        elif text:
            try:
                ids.add(str(parse_id(text, where, is_integer=is_integer)))
            except InputError:
                wrong.append(number)
    if wrong:
        lines = ", ".join(map(str, wrong[:_SHOWN_LINES])) + (", ..." if len(wrong) > _SHOWN_LINES else "")
        expected = f"one {'integer' if is_integer else 'text'} id per line, like the ids of this home"
        got = f"{len(wrong)} line{'s' if len(wrong) > 1 else ''} with other text: {lines}"
        remedy = "correct them: no header, no other columns, no decimal point. No user was forgotten"
        raise InputError(Fault(where, expected, got, remedy))
    if not ids:
        raise InputError(Fault(where, "at least one id", "none", "write one id per line, in UTF-8"))
    return pa.array(sorted(ids), pa.string())


def _strip(line: str) -> str:
    text = line.strip()
    return text[1:-1].strip() if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _list_headers(workspace: Workspace) -> set[str]:
    tables = (workspace.config.tables.user, workspace.config.tables.behavior)
    return {USER_ID, *(table.columns.get(USER_ID, USER_ID) for table in tables if table is not None)}


def _has_integer_ids(store: PartitionStore) -> bool:
    for asset in store.assets():
        days = store.days(asset)
        found = store.find(asset, days[-1]) if days else None
        for column in () if found is None else found.columns:
            if column.name == USER_ID:
                return column.type.startswith(("int", "uint"))
    return False
