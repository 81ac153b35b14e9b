"""The tiny world with two users whose ids no other file content has, and a search for them in every file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lancedb
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests import worlds

MARK = "MARK\u00fc"
GONE = {"a6": f"{MARK}-6", worlds.NO_PROFILE: f"{MARK}-7"}
"""User of the tiny world -> the id in its place; the second one has no profile."""


def write_world(folder: Path, changes: dict[str, Any] | None = None) -> LoadedConfig:
    """Writes sources and configuration, in which the user's id is a feature, too."""
    by_id = {"feature_name": "uid", "feature_type": "id_feature", "expression": "user:user_id"}
    own = {"features": {"fg": {"features": [*worlds.FG["features"], by_id]}}}
    worlds.write_rows(folder / "source" / "users.parquet", renamed(worlds.user_rows()))
    worlds.write_rows(folder / "source" / "items.parquet", worlds.item_rows())
    write_log(folder, len(worlds.DAYS))
    return worlds.write_config(folder, worlds.merged(own, changes or {}))


def write_log(folder: Path, days: int) -> None:
    worlds.write_rows(folder / "source" / "behavior.parquet", renamed(worlds.log_rows(range(days))))


def renamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows of the world with the ids of its two users."""
    return [{**row, "user_id": GONE.get(row["user_id"], row["user_id"])} for row in rows]


def find_marks(folder: Path) -> Iterator[str]:
    """Yields the files below a folder that hold an id of the two users, raw or decoded."""
    for path in sorted(one for one in folder.rglob("*") if one.is_file()):
        columns: list[Any] = []
        if path.suffix == ".parquet":
            columns = pq.read_table(path).to_pydict().values()
        elif path.suffix == ".arrow":
            columns = pa.ipc.open_file(path).read_all().to_pydict().values()
        if MARK.encode() in path.read_bytes() or any(MARK in str(values) for values in columns):
            yield str(path.relative_to(folder))
    for path in folder.rglob("lancedb"):
        store = lancedb.connect(path)
        for name in store.list_tables().tables:
            if MARK in str(store.open_table(name).to_arrow().to_pydict()):
                yield f"lancedb {name}"
