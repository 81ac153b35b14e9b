"""train_samples with hard negatives and weights in the tiny world, and what training reads of them.

On every day each user is shown what it buys, and two items of the other group, which it never buys: numbers n and
n + d mod 10 for user n on day d. On day 9 it is also shown item n of its own group, which it buys on some day.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dssm_assets.core.config.training import Training
from dssm_assets.core.training.batches import epoch_batches
from dssm_assets.steps.feature_config import towers_of
from dssm_assets.steps.training import train_samples
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.steps.train_files import TRAIN_FILES, open_train_data, train_tables
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, GROUP_SIZE, WINDOW_DAYS

FIRST = len(DAYS) - 1 - WINDOW_DAYS
CHANGES: dict[str, Any] = {
    "events": {"funnel": ["expr", "click", "buy"], "positive": ["click", "buy"], "exposure": ["expr"]},
    "model": {
        "sampler": "hard_v2",
        "num_hard_sample": 8,
        "history": "leave_one_out",
        "event_weights": {"buy": 3.0},
        "recency_half_life_days": 2.0,
    },
}
UPSTREAM = ("training_window", "feature_binning", "feature_counts", "feature_config", "step_config", "training_config")


def shown_items(user: str, day: int) -> list[str]:
    """Returns the items that a user is shown on a day and does not buy on that day."""
    number, other = int(user[1:]), "b" if user[0] == "a" else "a"
    items = [f"{other}_{number:02d}", f"{other}_{(number + day) % GROUP_SIZE:02d}"]
    return [*items, f"{user[0]}_{number:02d}"] if day == 9 else items


def log_rows() -> list[dict[str, Any]]:
    rows = worlds.log_rows(range(len(DAYS)))
    for day in range(len(DAYS)):
        for place, user in enumerate(worlds.users()):
            for number, item in enumerate([*worlds.bought(user, day)[:1], *shown_items(user, day)]):
                ts = worlds.start_ms(day) + (place * 60 + number) * 1000 - 250 + 3600_000
                rows.append({"user_id": user, "item_id": item, "price": 1.0, "page": "home", "event": "expr", "ts": ts})
    return sorted(rows, key=lambda row: row["ts"])


def _write_shown_world(root: Path) -> None:
    worlds.write_sources(root)
    worlds.write_rows(root / "source" / "behavior.parquet", log_rows())
    loaded = worlds.write_config(root, CHANGES)
    worlds.run_steps(loaded, worlds.DAILY, DAYS)
    worlds.run_steps(loaded, [*UPSTREAM, "negative_items"], [EVALUATION_DAY])


def shown_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the world in which users are shown items, made up to the negatives once a session; tests change copies."""
    return worlds.built_once(tmp_path_factory, "shown_world", _write_shown_world)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shown world with its training samples."""
    folder = shutil.copytree(shown_world(tmp_path_factory), tmp_path_factory.mktemp("shown") / "world")
    worlds.run_steps(worlds.write_config(folder, CHANGES), ["train_samples"], [EVALUATION_DAY])
    return folder


@pytest.fixture
def workspace(folder: Path) -> Workspace:
    return open_workspace(worlds.write_config(folder, CHANGES))


def ids(workspace: Workspace) -> tuple[list[str], list[str]]:
    users = train_tables(workspace, EVALUATION_DAY)["users"]
    corpus = workspace.tables.read(workspace.need("negative_items", EVALUATION_DAY))
    return users["user_id"].to_pylist(), corpus["item_id"].to_pylist()


def test_hard_negatives_were_shown_in_the_window_and_never_bought(workspace: Workspace) -> None:
    stored = workspace.need("train_samples", EVALUATION_DAY)
    tables, (users, items) = train_tables(workspace, EVALUATION_DAY), ids(workspace)
    assert list(tables) == [*TRAIN_FILES, "hard_negatives"]
    expected: dict[tuple[str, str], int] = {}
    for day in range(FIRST, len(DAYS) - 1):
        for user in worlds.users():
            for item in shown_items(user, day):
                if item[0] != user[0]:
                    expected.setdefault((user, item), day - FIRST)
    found = {(users[row["user_index"]], items[row["item_index"]]): row["day"] for row in tables["hard_negatives"].to_pylist()}
    assert found == expected
    keys = [(row["user_index"], row["item_index"]) for row in tables["hard_negatives"].to_pylist()]
    assert keys == sorted(set(keys))
    assert {f"sample_fg/{DAYS[day]}" for day in range(FIRST, len(DAYS) - 1)} <= set(stored.inputs)
    described = {column.name: column.description for column in stored.columns}
    assert all(len(described[f"hard_negatives.arrow: {name}"]) > 10 for name in ("user_index", "item_index", "day"))


def test_sample_weights_by_event_and_age(workspace: Workspace) -> None:
    samples = train_tables(workspace, EVALUATION_DAY)["samples"]
    rows = []
    for day in range(FIRST, len(DAYS) - 1):
        stored = workspace.tables.read(workspace.need("positive_sample", DAYS[day]), ["event"])
        for event in stored["event"].to_pylist():
            rows.append((3.0 if event == "buy" else 1.0) * 2 ** (-(len(DAYS) - 1 - day) / 2))
    assert samples["weight"].to_pylist() == pytest.approx(rows)
    assert len(set(np.round(rows, 9))) == 2 * WINDOW_DAYS


def test_training_draws_hard_negatives_from_the_file(workspace: Workspace) -> None:
    settings, (users, items) = towers_of(workspace, EVALUATION_DAY), ids(workspace)
    data = open_train_data(workspace, EVALUATION_DAY)
    rows, seen = data.rows_of_days(0, data.num_days), 0
    training = Training(batch_size=64)
    order = rows[np.random.default_rng([1, 0, 0]).permutation(len(rows))]
    for step, batch in enumerate(epoch_batches(data, rows, model=settings.model, training=training, seed=1, epoch=0)):
        keys = data.read_keys(order[step * 64 : step * 64 + 64])
        wanted = [users[user][0] for user in keys["user_index"][batch.terms.hard_rows]]
        # The corpus' first item feature is the item itself, by its row in items.arrow.
        of_hard = batch.items.singles[len(batch.items) - len(batch.terms.hard_rows) :]
        corpus = data.items.read(np.arange(len(items))).singles
        shown = [items[int(np.flatnonzero((corpus == row).all(1))[0])][0] for row in of_hard]
        assert all(a != b for a, b in zip(wanted, shown, strict=True))
        seen += len(batch.terms.hard_rows)
    assert seen == 8 * -(-len(rows) // 64)


def test_without_a_hard_sampler_there_is_no_hard_negatives_file(workspace: Workspace, folder: Path) -> None:
    before = workspace.need("train_samples", EVALUATION_DAY)
    plain = open_workspace(worlds.write_config(folder, worlds.merged(CHANGES, {"model": {"sampler": "v2"}})))
    (result,) = train_samples(plain, [EVALUATION_DAY])
    assert [file.name for file in result.manifest.files] == [f"{name}.arrow" for name in TRAIN_FILES]
    assert "hard_negatives" not in result.facts
    assert not any(key.startswith("sample_fg/") for key in result.manifest.inputs)
    (again,) = train_samples(workspace, [EVALUATION_DAY])
    assert again.manifest.digest == before.digest
    assert again.facts["hard_negatives"] == train_tables(workspace, EVALUATION_DAY)["hard_negatives"].num_rows


def test_users_have_indices_if_only_training_needs_interactions(folder: Path) -> None:
    """Masks, hard negatives, min_history and validation days need interactions even without sequence features."""
    features = {"features": {"fg": {"features": [f for f in worlds.FG["features"] if f["feature_type"] != "sequence_feature"]}}}
    for changes, is_known in (
        ({"model": {"sampler": "weighted"}}, False),
        ({"model": {"sampler": "weighted", "min_history": 2}}, True),
        ({"model": {"sampler": "v2"}}, True),
        ({"model": {"sampler": "weighted"}, "training": {"validation_days": 1}}, True),
    ):
        made = open_workspace(worlds.write_config(folder, worlds.merged(worlds.merged(CHANGES, features), changes)))
        worlds.run_steps(made.loaded, [*UPSTREAM[1:], "train_samples"], [EVALUATION_DAY])
        assert (max(train_tables(made, EVALUATION_DAY)["samples"]["user_index"].to_pylist()) >= 0) == is_known
