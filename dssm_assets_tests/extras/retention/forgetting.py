"""The tiny world with two users whose ids no other file content has, and a search for them in every file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from dssm_assets.core.arrays.hashing import hash_texts
from dssm_assets.extras.retention.forgotten import change_list
from dssm_assets.steps.workspace import Workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.retention import auditor
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle

MARK = "MARK \u00fc\u0416"
GONE = {"a6": f"{MARK}-6", worlds.NO_PROFILE: f"{MARK}-7"}
"""User of the tiny world -> the id in its place; the second one has no profile."""
HASHES: list[int] = hash_texts([*GONE.values(), f"{GONE['a6']}@x.org"]).view("int64").tolist()
"""Of the ids, and of the mail address of the first: values of features."""


OWN: dict[str, Any] = {
    "features": {
        "fg": {
            "features": [
                *worlds.FG["features"],
                {"feature_name": "uid", "feature_type": "id_feature", "expression": "user:user_id"},
                {"feature_name": "mail", "feature_type": "id_feature", "expression": "user:mail"},
            ]
        }
    },
    "tables": {
        "user": {"uri": "{home}/source/linked.parquet"},
        "behavior": {"uri": "{home}/source/behavior.csv", "format": "csv"},
    },
}
"""The user's id and mail address are features, too; the log is a csv file in the home; users are a link there."""


def write_world(folder: Path, changes: dict[str, Any] | None = None) -> LoadedConfig:
    """Writes sources and configuration: text columns of users are dictionaries, one of lists."""
    rows = [{**row, "mail": f"{row['user_id']}@x.org"} for row in renamed(worlds.user_rows())]
    users = pa.Table.from_pylist(rows)
    mails = users.column("mail").combine_chunks().dictionary_encode()
    tags = pa.ListArray.from_arrays(range(len(mails) + 1), mails)
    users = users.set_column(0, "user_id", users.column("user_id").dictionary_encode())
    users = users.set_column(2, "mail", mails).append_column("tags", tags)
    (folder / "home" / "source").mkdir(parents=True)
    (folder / "source").mkdir()
    pq.write_table(users, folder / "source" / "users.parquet")
    (folder / "home" / "source" / "linked.parquet").symlink_to("../../source/users.parquet")
    worlds.write_rows(folder / "source" / "items.parquet", worlds.item_rows())
    write_log(folder, len(worlds.DAYS))
    return worlds.write_config(folder, worlds.merged(OWN, changes or {}))


def built_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of such a world with every table and a bundle; tests copy it."""
    return worlds.built_once(tmp_path_factory, "marked_world", lambda folder: _publish(write_world(folder)))


def _publish(loaded: LoadedConfig) -> None:
    publish_bundle(worlds.build_all(loaded))


def let_an_hour_pass(workspace: Workspace) -> None:
    """Moves the last try of the request back, so that a run tries again."""
    change_list(workspace.tables.partitions.hidden, lambda now: replace(now, tried_at=now.tried_at - 3601))


def write_log(folder: Path, days: int) -> None:
    pcsv.write_csv(pa.Table.from_pylist(renamed(worlds.log_rows(range(days)))), folder / "home" / "source" / "behavior.csv")


def renamed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows of the world with the ids of its two users."""
    return [{**row, "user_id": GONE.get(row["user_id"], row["user_id"])} for row in rows]


def find_marks(folder: Path) -> list[str]:
    """Returns the files of a folder, without sources, that hold an id of the two users."""
    return [path for path in auditor.find_marks(folder, [MARK]) if not path.startswith("source/")]
