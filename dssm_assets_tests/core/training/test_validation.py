"""Who is scored on the validation days, hit_rate@k by hand and by brute force, the score after an epoch."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dssm_assets.core.arrays.ragged import ItemSets
from dssm_assets.core.config.model import Model
from dssm_assets.core.errors import SchemaError
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training import validation
from dssm_assets.core.training.closed_form import prior_choice
from dssm_assets.core.training.validation import (
    EpochEvaluator,
    ValidationSet,
    hit_rate,
    item_vectors,
    scored_k,
    user_blocks,
)
from dssm_assets_tests.core.arrays.item_sets import item_sets
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, ITEMS, SMALL_MODEL, USERS, World, world

MODEL = Model(**{**SMALL_MODEL, "history_length": 100})
SPEC = tower_spec(FEATURES, MODEL)
TABLES = world()
ITEM_OF, USER_OF, DAY_OF = (TABLES.samples.column(name).to_numpy() for name in ("item_index", "user_index", "day"))


def changed(column: str, values: Any, tables: World = TABLES) -> World:
    at = tables.samples.column_names.index(column)
    array = pa.array(values, tables.samples.schema.field(column).type)
    return replace(tables, samples=tables.samples.set_column(at, column, array))


def sets(found: ItemSets) -> list[list[int]]:
    return [found.items[low:high].tolist() for low, high in pairwise(found.offsets.tolist())]


def of_day_1(tables: World = TABLES) -> ValidationSet:
    return ValidationSet(tables.data(SPEC), 1)


def test_truth_is_the_distinct_items_of_the_days() -> None:
    found = of_day_1()
    assert found.user_index.tolist() == list(range(USERS))
    assert (found.num_users, found.num_items) == (USERS, ITEMS)
    assert sets(found.truth) == [sorted(set(ITEM_OF[(u == USER_OF) & (DAY_OF == 1)].tolist())) for u in range(USERS)]


def test_users_are_read_as_of_the_previous_day_without_context() -> None:
    read = of_day_1().read_users(np.array([7, 2]))
    history = read.bags[-1]
    for place, user in enumerate((7, 2)):
        early = ITEM_OF[(user == USER_OF) & (DAY_OF == 0)] + 2
        assert history.values[history.offsets[place] : history.offsets[place + 1]].tolist() == early.tolist()
        assert read.singles[place].tolist() == [user % 2 + 1, 0]
    interests, pages = read.bags[:2]
    assert interests.values.tolist() == [1 + 7 % 5, 2, 1 + 2 % 5, 2]
    assert (pages.values.tolist(), pages.offsets.tolist()) == ([], [0, 0, 0])
    assert read.is_empty_history is not None
    assert read.is_empty_history.tolist() == [0.0, 0.0]


def test_items_have_the_features_of_their_last_earlier_sample_or_of_the_corpus() -> None:
    """The item feature of each feature row is its row number, so a result shows which row was read."""
    rows = np.where(DAY_OF == 0, np.arange(80) % 9 + 1, 12).astype(np.int32)
    # Item 3 has no sample before day 1; item 5 one whose features are unknown, and none that is later.
    items = np.where(np.isin(ITEM_OF, [3, 5]), 4, ITEM_OF)
    items[1], items[3] = 5, 5
    rows[3] = 0
    items[7] = 3  # on day 1
    tables = changed("item_index", items, changed("item_row", rows))
    features = tables.item_rows.set_column(0, "item", pa.array(range(13), pa.int32()))
    found = ValidationSet(replace(tables, item_rows=features).data(SPEC), 1)
    early = DAY_OF == 0
    last = {int(i): int(row) for i, row in zip(items[early], rows[early], strict=True) if row}
    assert (last[5], 3 in last) == (2, False)
    items_read = np.array([11, 3, 0, 5, 3])
    assert found.read_items(items_read).singles[:, 0].tolist() == [last[11], 3 + 2, last[0], last[5], 3 + 2]
    tags = found.read_items(items_read).bags[0]
    assert np.diff(tags.offsets).tolist()[1] == 1
    assert tags.values[tags.offsets[1]] == 1 + 3 % 5
    everything = found.read_items(np.arange(ITEMS))
    assert everything.singles[:, 0].tolist() == [last.get(item, item + 2) for item in range(ITEMS)]


def test_user_features_are_those_of_its_first_validation_sample() -> None:
    rows = np.where(DAY_OF == 1, 5, 9)
    rows[EVENTS + 4] = 7  # the first sample of user 1 on day 1
    found = of_day_1(changed("user_row", rows))
    kinds = TABLES.user_rows.column("user_kind").to_pylist()
    assert found.read_users(np.array([1, 0])).singles[:, 0].tolist() == [kinds[7], kinds[5]]


def test_users_without_history_and_unknown_users_are_not_scored() -> None:
    samples = TABLES.samples.filter(pa.array(~((USER_OF == 4) & (DAY_OF == 0))))
    starts = np.arange(USERS, dtype=np.int64) * EVENTS + np.where(np.arange(USERS) == 4, 4, 0)
    users = TABLES.users.set_column(0, "history_start", pa.array(starts))
    tables = replace(TABLES, samples=samples, users=users)
    assert of_day_1(tables).user_index.tolist() == [u for u in range(USERS) if u != 4]
    unknown = np.where(USER_OF == 6, -1, USER_OF)
    assert of_day_1(changed("user_index", unknown)).user_index.tolist() == [u for u in range(USERS) if u != 6]


@pytest.mark.parametrize("first_day", [0, 2])
def test_validation_days_without_a_user_to_score_are_refused(first_day: int) -> None:
    with pytest.raises(SchemaError, match=r"training\.validation_days: expected a user with positive events"):
        ValidationSet(TABLES.data(SPEC), first_day)


def test_hit_rate_of_lists_without_what_is_excluded() -> None:
    items = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[1, 0], [0, 1]], np.float32)
    truth = item_sets([[2], [0]])
    excluded = item_sets([{0}, {1}])
    # Without items 0 and 1: user 0 has the order 2, 1, user 1 the order 2, 0.
    assert [hit_rate([users], items, truth, k, excluded) for k in (1, 2)] == pytest.approx([1 / 2, 1])


def test_item_counts_by_the_best_of_several_interests() -> None:
    items = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
    users = np.array([[[1, 0], [0, 1]]], np.float32)
    assert hit_rate([users], items, item_sets([[0, 1]]), 2) == 1.0
    assert hit_rate([users], items, item_sets([[2]]), 2) == 0.0


def test_hit_rate_equals_brute_force() -> None:
    spec = tower_spec(FEATURES, Model(**SMALL_MODEL))
    validation_users = ValidationSet(world().data(spec), 1)
    towers = TwoTower(spec, torch.Generator().manual_seed(0))
    users, items = np.concatenate(list(user_blocks(towers, validation_users))), item_vectors(towers, validation_users)
    assert (len(users), len(items)) == (validation_users.num_users, ITEMS)
    hits = 0
    for user in range(validation_users.num_users):
        best = np.argsort(-(users[user].astype(np.float64) @ items.T.astype(np.float64)), kind="stable")[:4]
        truth = validation_users.truth.items[validation_users.truth.offsets[user] : validation_users.truth.offsets[user + 1]]
        hits += len(set(best.tolist()) & set(truth.tolist()))
    assert 0 < hits < len(validation_users.truth.items)
    assert hit_rate([users], items, validation_users.truth, 4) == pytest.approx(hits / len(validation_users.truth.items))


@pytest.mark.parametrize("changes", [{}, {"num_interests": 2, "poolings": [{"kind": "attention"}, {"kind": "sequence"}]}])
def test_score_does_not_depend_on_the_size_of_user_blocks(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(**{**SMALL_MODEL, **changes, "prior": True})
    spec = tower_spec(FEATURES, model)
    towers, evaluator = TwoTower(spec, torch.Generator().manual_seed(0)), EpochEvaluator(world().data(spec), 1, model, (3,))
    monkeypatch.setattr(prior_choice, "MAX_SCORES", 5 * ITEMS)  # the prior is chosen on 5 of the users
    whole = evaluator.score(towers, 1)
    monkeypatch.setattr(validation, "BLOCK_ROWS", 3)
    in_blocks = evaluator.score(towers, 1)
    assert in_blocks.prior == whole.prior
    assert (in_blocks.hit_rate, in_blocks.plain_hit_rate) == (whole.hit_rate, whole.plain_hit_rate)
    assert 0 < whole.plain_hit_rate < 1


@pytest.mark.parametrize(
    ("ks", "num_items", "expected"), [([10, 50, 200], 1000, 200), ([10, 50, 200], 200, 50), ([10, 50], 5, 10)]
)
def test_scored_k_is_below_the_number_of_items(ks: list[int], num_items: int, expected: int) -> None:
    assert scored_k(ks, num_items) == expected
