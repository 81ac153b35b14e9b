"""A log of shown items and a log of events, written by hand: a few users of the tiny world on its first days."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dssm_assets.extras.shown.log import part_schema
from dssm_assets.extras.shown.log_folder import open_log
from dssm_assets.steps import source
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests import worlds

CONFIG: dict[str, Any] = {
    "serving": {
        "shown": {"keep_days": 10_000},
        "variants": [{"name": "control", "share": 0.5}, {"name": "vectors_only", "share": 0.5, "channels": "vectors"}],
    },
    "evaluation": {"shown": {"events": ["click", "buy"], "hours": 6}},
}
HOUR_MS = 3_600_000
ITEMS = [row["item_id"] for row in worlds.item_rows()]
_numbers = itertools.count()


def answer(request_id: str, user: Any, items: Sequence[Any], time_ms: int, **others: Any) -> list[dict[str, Any]]:
    """Returns the rows of an answer."""
    row = {"kind": "answer", "time_ms": time_ms, "request_id": request_id, "user_id": user, "variant": "control"}
    row |= {"bundle_id": f"{worlds.EVALUATION_DAY}-0123", "score": 1.0, "channels": ["vectors"], **others}
    return [row | {"position": position, "item_id": item} for position, item in enumerate(items, 1)]


def shown_instead(of: list[dict[str, Any]], items: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns the rows of what a caller showed in place of an answer."""
    others = {"kind": "shown", "score": None, "channels": None, "variant": of[0]["variant"]}
    return answer(of[0]["request_id"], of[0]["user_id"], items, of[0]["time_ms"], **others)


def write_part(loaded: LoadedConfig, rows: Sequence[dict[str, Any]]) -> Path:
    """Writes a part to the folder of the UTC day of its first row; ids have the type of the first row's."""
    kinds = [pa.int64() if isinstance(rows[0][name], int) else pa.string() for name in ("user_id", "item_id")]
    day = dt.datetime.fromtimestamp(rows[0]["time_ms"] / 1000, dt.UTC).date()
    path = Path(open_log(loaded).path) / f"ds={day}" / f"part-{next(_numbers):06d}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), part_schema(*kinds)), path)
    return path


def random_lists(days: Sequence[int], seed: int) -> Iterator[list[dict[str, Any]]]:
    """Yields answers of some days, at any time of them; some are shown otherwise, some are for nobody."""
    rng = np.random.default_rng(seed)
    for day, number in itertools.product(days, range(60)):
        user = None if number % 15 == 0 else str(rng.choice(worlds.users()))
        variant = "control" if hash_of(user, number) else "vectors_only"
        time_ms = worlds.start_ms(day) + int(rng.integers(0, 24 * HOUR_MS))
        request = f"r{day}-{number}"
        rows = answer(request, user, [*map(str, rng.choice(ITEMS, 8, replace=False))], time_ms, variant=variant)
        yield rows
        if number % 7 == 0:
            yield shown_instead(rows, [row["item_id"] for row in rows[5:1:-1]])


def hash_of(user: str | None, number: int) -> int:
    return (sum(map(ord, user)) if user else number) % 2


def random_events(days: Sequence[int], lists: Sequence[list[dict[str, Any]]], seed: int) -> list[dict[str, Any]]:
    """Returns events: some name a request, a few of these before their answer, others nothing."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, shown in enumerate(lists):
        row = shown[int(rng.integers(len(shown)))]
        if row["user_id"] is None and number % 3:
            continue
        time_ms = row["time_ms"] + int(rng.integers(-600_000, 9 * HOUR_MS))
        request = row["request_id"] if number % 3 == 0 else "another's" if number % 3 == 1 else None
        rows.append([row["user_id"] or "guest", row["item_id"], "click", time_ms, request])
    for day, _ in itertools.product(days, range(80)):
        time_ms = worlds.start_ms(day) + int(rng.integers(0, 24 * HOUR_MS))
        rows.append(
            [str(rng.choice(worlds.users())), str(rng.choice(ITEMS)), str(rng.choice(["click", "buy", "see"])), time_ms, None]
        )
    names = ("user_id", "item_id", "event", "ts", "request_id")
    return [dict(zip(names, row, strict=True)) | {"price": 1.0, "page": "home"} for row in rows]


def write_shop(folder: Path, lists: Sequence[list[dict[str, Any]]], events: Sequence[dict[str, Any]], days: int) -> Workspace:
    """Writes both logs and the stored days of behavior_table; returns the workspace."""
    changes = worlds.merged(CONFIG, {"events": {"funnel": ["see", "click", "buy"]}})
    loaded = worlds.write_config(folder, changes)
    worlds.write_rows(folder / "source" / "behavior.parquet", list(events))
    for rows in lists:
        write_part(loaded, rows)
    workspace = open_workspace(loaded)
    list(source.behavior_table(workspace, worlds.DAYS[:days]))
    return workspace
