"""Codes that keep most of what histories hold, and towers that begin with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dssm_assets.core.errors import ConfigError
from dssm_assets.core.model_config import Model
from dssm_assets.core.models.bags import Bags
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training import loop
from dssm_assets.core.training.history_start import leading_codes, start_at_codes
from dssm_assets.core.training.inference import infer_item_vectors, infer_user_vectors
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training_config import HistoryStart
from dssm_assets_tests.core.training.worlds import AS_OF_MS, FEATURES, ITEMS, USERS, fitted, world

LINEAR = {
    "output_dim": 16,
    "hidden_units": [],
    "skip": True,
    "similarity": "INNER_PRODUCT",
    "poolings": [{"kind": "root", "length": 5}],
}
START = {"embedding": "item", "scale": 3.0, "passes": 20}


def _bags(rows: list[list[tuple[int, float]]]) -> Bags:
    pairs = [pair for row in rows for pair in row]
    offsets = np.cumsum([0, *(len(row) for row in rows)])
    return Bags(np.array([v for v, _ in pairs]), offsets, np.array([w for _, w in pairs], np.float32))


def _drawn(rows: int, width: int) -> torch.Tensor:
    drawn = torch.randn(rows, width, generator=torch.Generator().manual_seed(5))
    drawn[0] = 0.0
    return drawn


def test_the_example_by_hand() -> None:
    histories = [_bags([[(1, 1.0), (2, 1.0)], [(3, 0.5)]])]
    codes = leading_codes(histories, _drawn(4, 1), passes=10)
    expected = torch.tensor([[0.0], [0.5**0.5], [0.5**0.5], [0.0]])
    torch.testing.assert_close(codes.abs(), expected, atol=1e-4, rtol=0.0)
    assert codes[1] * codes[2] > 0


def test_codes_span_the_leading_singular_vectors_whatever_the_blocks() -> None:
    rng = np.random.default_rng(2)
    dense = rng.random((9, 7)) * (rng.random((9, 7)) < 0.6) * np.array([4.0, 3.0, 2.0, 1.0, 0.5, 0.3, 0.2])
    rows = [[(j + 1, float(w)) for j, w in enumerate(row) if w] for row in dense]
    right = np.linalg.svd(dense)[2][:3]
    for parts in ([rows], [rows[:4], rows[4:]]):
        codes = leading_codes([_bags(part) for part in parts], _drawn(8, 3), passes=60).numpy()
        np.testing.assert_allclose(codes[1:] @ codes[1:].T, right.T @ right, atol=1e-4)
        assert not codes[0].any()


def test_an_item_that_comes_twice_counts_twice() -> None:
    once = leading_codes([_bags([[(1, 2.0)], [(2, 1.5)]])], _drawn(3, 1), passes=30)
    twice = leading_codes([_bags([[(1, 1.0), (1, 1.0)], [(2, 1.5)]])], _drawn(3, 1), passes=30)
    torch.testing.assert_close(once.abs(), twice.abs())
    assert abs(once[1]) > 0.99


def test_more_columns_than_anybody_needs_are_no_harm() -> None:
    codes = leading_codes([_bags([[(1, 1.0)]])], _drawn(3, 5), passes=4)
    assert codes.shape == (3, 5)
    assert torch.isfinite(codes).all()
    np.testing.assert_allclose((codes @ codes.T)[1, 1], 1.0, atol=1e-5)


def _started(ends: np.ndarray | None = None) -> tuple[TwoTower, TrainData, Any]:
    tables = world()
    spec = tower_spec(FEATURES, Model(**{**LINEAR, "num_sample": 8, "history_length": 5}))
    data, towers = tables.data(spec), TwoTower(spec, torch.Generator().manual_seed(0))
    start_at_codes(towers, data, HistoryStart(**START), data.user_ends() if ends is None else ends)
    return towers, data, tables


def test_at_the_start_a_user_meets_its_own_items() -> None:
    towers, _, tables = _started()
    table, base = towers.tables.table(8), towers.tables.bases["item"]
    codes = table[base + 2 : base + 2 + ITEMS].numpy()  # the world's items have the indices from 2 on
    assert not table[base + 1].any()  # nobody's row begins at zero
    taken = np.zeros((USERS, ITEMS))
    item, owner = tables.history["item_index"].to_numpy(), np.repeat(np.arange(USERS), len(tables.history) // USERS)
    last = np.arange(len(item)) % (len(item) // USERS) >= len(item) // USERS - 5
    np.add.at(taken, (owner[last], item[last]), 5**-0.5)  # a root of five events: each 1 / sqrt(5)
    kept = np.linalg.norm(taken @ codes / 3.0) / np.linalg.norm(taken)
    best = np.linalg.svd(taken)[1]
    assert kept == pytest.approx(np.linalg.norm(best[:8]) / np.linalg.norm(best), abs=1e-3)
    # In the vectors themselves the codes' product stands beside what the other features add, which knows no history.
    users = infer_user_vectors(
        towers,
        pa.table({"user_kind": pa.array([1] * USERS, pa.int32()), "interests": pa.array([[]] * USERS, pa.list_(pa.int32()))}),
        history_start=tables.users["history_start"].to_numpy(),
        history_end=tables.users["history_end"].to_numpy(),
        history=tables.history,
        as_of_ms=AS_OF_MS,
        batch_size=4,
    )
    items = infer_item_vectors(towers, tables.items, 5)
    found, expected = users @ items.T, (taken @ codes) @ codes.T
    between = [np.corrcoef(found[u] - found.mean(0), expected[u] - expected.mean(0))[0, 1] for u in range(USERS)]
    assert min(between) > 0.95


def test_only_what_ended_before_is_looked_at() -> None:
    _, data, _ = _started()
    none = np.array(data.user_starts)
    none[:1] = data.user_ends()[:1]  # of the first user everything, of the others nothing
    towers, _, _ = _started(none)
    base = towers.tables.bases["item"]
    has_code = towers.tables.table(8)[base + 2 : base + 2 + ITEMS].norm(dim=1) > 0.5
    assert not has_code[ITEMS // 2 :].any()  # the other half's items
    assert has_code[: ITEMS // 2].any()


def test_a_search_begins_with_the_days_before_it_and_a_refit_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(towers: TwoTower, data: TrainData, start: HistoryStart, ends: np.ndarray) -> None:
        seen.append(int((ends - data.user_starts).sum()))
        start_at_codes(towers, data, start, ends)

    monkeypatch.setattr(loop, "start_at_codes", spy)
    fitted(LINEAR, {"history_start": START, "validation_days": 1})
    assert seen == [USERS * 4, USERS * 8]  # two days of four events each


def test_rows_that_several_items_share_have_no_code() -> None:
    tables = world()
    index = tables.items.column_names.index("item")
    items = tables.items.set_column(index, "item", pa.array([2, 2, *range(4, ITEMS + 2)], pa.int32()))
    spec = tower_spec(FEATURES, Model(**{**LINEAR, "num_sample": 8, "history_length": 5}))
    names = ("samples", "user_rows", "item_rows", "history", "users")
    data = TrainData(spec, items=items, **{name: getattr(tables, name) for name in names})
    towers = TwoTower(spec, torch.Generator().manual_seed(0))
    start_at_codes(towers, data, HistoryStart(**START), data.user_ends())
    base = towers.tables.bases["item"]
    lengths = towers.tables.table(8)[base + 1 : base + ITEMS + 2].norm(dim=1)
    assert not lengths[1]  # index 2, of two items
    assert (lengths[3:] > 0).all()


@pytest.mark.parametrize(
    ("model", "start", "named"),
    [
        ({}, {**START, "embedding": "tags"}, "shared: item"),
        ({}, {**START, "embedding": "unknown"}, "shared: item"),
        ({"skip": False}, START, "skip is off"),
        ({"poolings": [{"kind": "attention", "length": 5}]}, START, "without attention"),
    ],
)
def test_towers_that_cannot_begin_at_codes_are_refused(model: dict[str, Any], start: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        fitted({**LINEAR, **model}, {"history_start": start})


def test_it_acts_and_is_the_same_every_time() -> None:
    plain, one, two = (fitted(LINEAR, training) for training in ({}, {"history_start": START}, {"history_start": START}))
    assert np.array_equal(one.loss_by_step, two.loss_by_step)
    assert one.loss_by_step[0] != plain.loss_by_step[0]
