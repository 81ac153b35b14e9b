"""Interactions read from stored days in small pieces equal those of all days together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.errors import InputError
from dssm_assets.core.evaluation.interactions import sum_interactions
from dssm_assets.core.schema import TableSpec
from dssm_assets.steps import stored_interactions
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.manifest import Manifest
from dssm_assets.testing import item_events
from dssm_assets_tests import worlds

ITEMS = pa.array([f"i{number}" for number in range(6)])
CORPUS = IdIndex(ITEMS)
ALL_USERS = [f"u{number:02}" for number in range(30)]
Event = tuple[str, str, int]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(worlds.write_config(tmp_path))


def stored(workspace: Workspace, days: int) -> tuple[list[Manifest], list[list[Event]]]:
    """Writes days with other users each, one of them empty; returns them and their events; item x is not in the corpus."""
    rng, manifests, events = np.random.Generator(np.random.PCG64(3)), [], []
    for day in range(days):
        users = [] if day == 1 else sorted(rng.choice(ALL_USERS, size=12, replace=False).tolist())
        lists = [rng.choice([*ITEMS.to_pylist(), "x"], size=int(rng.integers(1, 4))).tolist() for _ in users]
        table = pa.table(
            {
                "user_id": pa.array(users, pa.string()),
                "item_ids": pa.array(lists, pa.list_(pa.string())),
                "event_times_ms": pa.array([[day] * len(items) for items in lists], pa.list_(pa.int64())),
            }
        )
        spec = TableSpec("user_history_fg", "any", (), ())
        manifests.append(workspace.tables.write(spec, f"2024-01-{day + 1:02}", table))
        events.append([(user, item, day) for user, items in zip(users, lists, strict=True) for item in items])
    return manifests, events


def counts(found: object, users: list[str]) -> dict[tuple[str, str], tuple[int, int]]:
    """Returns (user, item) -> count and last time."""
    rows = zip(found.user_index, found.item_index, found.count, found.last_time_ms, strict=True)  # type: ignore[attr-defined]
    return {(users[user], ITEMS[int(item)].as_py()): (int(count), int(time)) for user, item, count, time in rows}


def expected(days: list[list[Event]], users: list[str]) -> dict[tuple[str, str], tuple[int, int]]:
    inside = [event for day in days for event in day if event[1] != "x" and event[0] in users]
    counted = Counter((user, item) for user, item, _ in inside)
    return {pair: (count, max(time for *other, time in inside if tuple(other) == pair)) for pair, count in counted.items()}


@pytest.mark.parametrize(
    ("batch_rows", "open_rows", "range_events"), [(1, 99, 1), (5, 99, 7), (4, 99, 1000), (1000, 9999, 1), (1000, 10, 1)]
)
def test_read_all_interactions_yields_every_user_once_and_whole(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, batch_rows: int, open_rows: int, range_events: int
) -> None:
    monkeypatch.setattr(stored_interactions, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(stored_interactions, "OPEN_ROWS", open_rows)
    monkeypatch.setattr(stored_interactions, "RANGE_EVENTS", range_events)
    manifests, events = stored(workspace, 5)
    no_users = pa.array([], pa.string())
    parts = list(stored_interactions.read_all_interactions(workspace, manifests, no_users, CORPUS))
    sizes = sorted(int(size) for part in parts for size in np.diff(part.indptr) if size)
    per_user = Counter(user for user, _ in expected(events, ALL_USERS))
    assert sizes == sorted(per_user.values())
    assert (len(parts) > 6) is (range_events < 8 and min(batch_rows, open_rows // 5) < 8)
    counted = sum(item_events(part) for part in parts)
    assert counted.tolist() == stored_interactions.count_item_events(workspace, manifests, CORPUS).tolist()
    assert counted.sum() == sum(item != "x" for day in events for _, item, _ in day)


def test_recent_events_take_the_half_life_that_was_best_on_the_last_days(tmp_path: Path) -> None:
    settings = {"evaluation": {"k": [1], "recent": [24, 240]}}
    workspace = open_workspace(worlds.write_config(tmp_path, settings))
    # i0 four times on the first noon, then i1 three times and twice. Before the third day a list of one item has i1 if events halve in
    # a day (3 for 2), and i0 if they halve in ten (3 for 3.7).
    window = []
    for day, (item, count) in enumerate([("i0", 4), ("i1", 3), ("i1", 2)]):
        columns = {"user_id": ["u"], "item_ids": [[item] * count], "event_times_ms": [[(24 * day + 12) * 3_600_000] * count]}
        table = TableSpec("user_history_fg", "any", (), ())
        window.append(workspace.tables.write(table, f"2024-01-{day + 1:02}", pa.table(columns)))
    events, hours = stored_interactions.count_recent_events(workspace, stored_interactions.EventDays([], window, 0), CORPUS)
    assert hours == 24
    assert events.tolist() == pytest.approx([4 / 4, 3 / 2 + 2, 0, 0, 0, 0])
    events, hours = stored_interactions.count_recent_events(workspace, stored_interactions.EventDays([], [], 0), CORPUS)
    assert (hours, events.tolist()) == (240, [0] * 6)


def test_interactions_of_users_add_earlier_days(workspace: Workspace) -> None:
    manifests, events = stored(workspace, 5)
    users = ["u03", "u04", "u11", "u19"]
    ids = pa.array(users)
    window = stored_interactions.read_interactions_of_users(workspace, manifests[2:], ids, CORPUS)
    history = stored_interactions.read_interactions_of_users(workspace, manifests[:2], ids, CORPUS, window)
    assert counts(window, users) == expected(events[2:], users)
    assert counts(history, users) == expected(events, users)
    of_each = Counter(user for day in events for user, *_ in day)
    assert stored_interactions.count_user_events(workspace, manifests, ids).tolist() == [of_each[user] for user in users]


def test_no_days_give_no_interactions(workspace: Workspace) -> None:
    assert stored_interactions.read_interactions_of_users(workspace, [], pa.array(["u"]), CORPUS).indptr.tolist() == [0, 0]
    (nothing,) = stored_interactions.read_all_interactions(workspace, [], pa.array(["u"]), CORPUS)
    assert (nothing.indptr.tolist(), item_events(nothing).tolist()) == ([0], [0] * 6)
    assert sum_interactions([], pa.array(["u"]), CORPUS).indptr.tolist() == [0, 0]


@pytest.mark.parametrize(("kind", "row_group"), [(pa.int32(), 100), (pa.int64(), 10_000), (pa.string(), 100)])
def test_only_rows_of_the_requested_users_are_read(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType, row_group: int
) -> None:
    monkeypatch.setattr(stored_interactions, "ROW_GROUP_ROWS", row_group)
    ids = pa.array(np.arange(10, 1_000), pa.int64()).cast(kind)
    table = pa.table({"user_id": ids.take(pc.sort_indices(ids)), "row": np.arange(990)})
    stored = workspace.tables.write(TableSpec("vectors", "any", (), ()), "2024-01-01", table)
    wanted = pa.array([10, 500, 999, 5_000]).cast(kind)
    users = wanted.take(pc.sort_indices(wanted))
    found = stored_interactions.read_rows_of_users(workspace, stored, None, users)
    assert found.column("user_id").combine_chunks().equals(users.filter(pc.is_in(users, value_set=ids)))


def test_without_users_no_rows_are_read(workspace: Workspace) -> None:
    manifests, _ = stored(workspace, 3)
    no_users = pa.array([], pa.string())
    found = stored_interactions.read_interactions_of_users(workspace, manifests, no_users, CORPUS)
    assert (found.indptr.tolist(), found.item_index.tolist()) == ([0], [])


def test_ids_of_another_kind_are_refused(workspace: Workspace) -> None:
    table = pa.table({"user_id": pa.array([1, 2]), "item_ids": [["i1"], ["i2"]], "event_times_ms": [[0], [0]]})
    stored = workspace.tables.write(TableSpec("user_history_fg", "any", (), ()), "2024-01-01", table)
    with pytest.raises(InputError, match="ids of type string"):
        stored_interactions.read_interactions_of_users(workspace, [stored], pa.array(["1"]), CORPUS)
