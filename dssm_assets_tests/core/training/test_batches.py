"""Batches: order, sessions, negatives, hidden context, masks and corrections."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dssm_assets.core.columns import USER_ROW
from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training, batches_per_epoch
from dssm_assets.core.errors import ConfigError, SchemaError
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets.core.samples.sample_tables import HISTORY_END, USER_INDEX
from dssm_assets.core.training.batches import Batch, epoch_batches, find_sessions, shuffle_sessions
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import FitResult
from dssm_assets.core.training.loop import fit
from dssm_assets.testing import LEAST_P, p_value
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, ITEMS, SMALL_MODEL, SMALL_TRAINING, USERS, World, world

HOUR = 1  # position of the context feature among the user tower's single-valued features
UNMERGED: dict[str, Any] = {**SMALL_MODEL, "norm": "batch"}
"""A batch norm over items depends on how often each occurs, so that equal columns stay apart."""


TABLES = world()
ITEM_OF, USER_OF, DAY_OF = (TABLES.samples.column(name).to_numpy() for name in ("item_index", "user_index", "day"))
ITEM_FRAC = np.bincount(ITEM_OF, minlength=ITEMS) / len(ITEM_OF)


def items_of(batch: Batch) -> np.ndarray[Any, Any]:
    """Item index of each row of the item tower: its embedding index less 2."""
    return batch.items.singles[:, 0] - 2


def test_epoch_has_every_sample_once_in_an_order_by_seed_and_epoch() -> None:
    found = batches(context_dropout=0.0)
    assert [len(batch.user) for batch in found] == [32, 32, 16]
    assert batches_per_epoch(80, Training(**SMALL_TRAINING)) == 3
    seen = np.concatenate([items_of(batch)[: len(batch.user)] for batch in found])
    assert sorted(seen.tolist()) == sorted(ITEM_OF.tolist())
    order = [seen.tolist()]
    for epoch, seed in ((0, 1), (1, 1), (0, 2)):
        order.append(np.concatenate([items_of(b)[: len(b.user)] for b in batches(epoch=epoch, seed=seed)]).tolist())
    assert order[0] == order[1]
    assert order[1] != order[2]
    assert order[1] != order[3]


def test_epochs_of_half_the_samples_differ() -> None:
    half = {"epoch_frac": 0.5}
    assert batches_per_epoch(80, Training(**SMALL_TRAINING, **half)) == 2  # 40 samples, rounded up to whole batches
    whole, first, second = (
        [items_of(batch)[:32].tolist() for batch in batches(training=training, epoch=epoch)]
        for training, epoch in (({}, 0), (half, 0), (half, 1))
    )
    assert first == whole[:2]
    assert first != second


@pytest.mark.parametrize("frac", [0.0, 0.5, 1.0])
def test_context_dropout_hides_a_share_of_the_samples(frac: float) -> None:
    found = batches(context_dropout=frac)
    whole = batches(context_dropout=0.0)
    hours = np.concatenate([batch.user.singles[:, HOUR] for batch in found])
    known = np.concatenate([batch.user.singles[:, HOUR] for batch in whole]) > 0
    hidden = (hours == 0)[known].mean()
    assert hidden == pytest.approx(frac, abs=0.15)
    assert (hidden == frac) or 0 < frac < 1
    assert all((a.user.singles[:, 0] == b.user.singles[:, 0]).all() for a, b in zip(found, whole, strict=True))
    if frac == 1.0:
        assert all(len(batch.user.bags[1].values) == 0 for batch in found)
        assert all(len(batch.user.bags[0].values) > 0 for batch in found)


def test_own_items_have_the_features_of_the_corpus_with_that_snapshot() -> None:
    # The feature rows of samples all have the tag 3, those of the corpus their own tags.
    tables = replaced(TABLES, "item_rows", "tags", pa.array([[3]] * TABLES.item_rows.num_rows, pa.list_(pa.int32())))
    data, _ = opened(tables=tables)
    for batch in batches(tables=tables, item_snapshot="corpus"):
        corpus = data.items.read(items_of(batch))
        assert (batch.items.singles == corpus.singles).all()
        assert batch.items.bags[0].values.tolist() == corpus.bags[0].values.tolist()
        assert set(corpus.bags[0].values.tolist()) != {3}


def test_no_samples_to_train_on_are_refused() -> None:
    with pytest.raises(SchemaError, match="samples to train on: expected at least one, got none"):
        batches(rows=np.zeros(0, np.int64))


def test_sample_weights_do_not_change_corrections() -> None:
    """How often an item is a negative does not depend on the weights of the samples."""
    even = replaced(TABLES, "samples", "weight", pa.array(np.ones(80), pa.float32()))
    of_world, of_even = (batches(tables=tables)[0].terms for tables in (TABLES, even))
    assert of_world.column_correction.tolist() == of_even.column_correction.tolist()
    assert of_world.positive_correction.tolist() == of_even.positive_correction.tolist()
    assert of_world.weight.tolist() == TABLES.samples["weight"].to_numpy()[order_of()[:32]].tolist()
    assert of_even.weight.tolist() == [1.0] * 32


def test_corrections_are_log_expected_counts_by_kind() -> None:
    tables, batch = world(), batches()[0]
    shares = np.bincount(tables.samples.column("item_index").to_numpy(), minlength=12) / 80
    weights = tables.items.column("weight").to_numpy()
    own, drawn = items_of(batch)[:32], items_of(batch)[32:]
    expected = np.concatenate([np.log(32 * shares[own]), np.log(8 * weights[drawn] / weights.sum())])
    assert batch.terms.column_correction.numpy() == pytest.approx(expected, abs=1e-6)
    assert batch.terms.positive_correction.numpy() == pytest.approx(expected[:32], abs=1e-6)
    last = batches()[-1]
    assert last.terms.positive_correction.numpy() == pytest.approx(np.log(16 * shares[items_of(last)[:16]]), abs=1e-6)


def test_without_in_batch_the_positive_is_corrected_like_a_sampled_column() -> None:
    batch, weights = batches(in_batch=False)[0], world().items.column("weight").to_numpy()
    own = items_of(batch)[:32]
    assert batch.terms.positive_correction.numpy() == pytest.approx(np.log(8 * weights[own] / weights.sum()), abs=1e-6)
    assert len(batch.terms.column_correction) == 8


def test_all_items_are_the_columns_of_a_softmax_over_the_corpus() -> None:
    """One column per item in any order of draws, no correction, and the sample's own item alone is masked."""
    for batch in batches(sampler="all", in_batch=False, num_sample=0, size=80):
        assert items_of(batch)[80:].tolist() == list(range(ITEMS))
        assert not batch.terms.column_correction.any() and not batch.terms.positive_correction.any()
        assert masked_cells(batch) == set(enumerate(items_of(batch)[:80].tolist()))


def masked_cells(batch: Batch) -> set[tuple[int, int]]:
    return set(zip(batch.terms.masked.rows.tolist(), batch.terms.masked.columns.tolist(), strict=True))


@pytest.mark.parametrize("in_batch", [True, False])
def test_masks_equal_brute_force(in_batch: bool) -> None:
    tables = world()
    item_of, user_of = (tables.samples.column(name).to_pylist() for name in ("item_index", "user_index"))
    known = {u: set(item_of[u * EVENTS : (u + 1) * EVENTS]) for u in user_of}
    order = np.random.default_rng([1, 0, 0]).permutation(80)[:32]
    batch = batches(in_batch=in_batch)[0]
    columns = items_of(batch) if in_batch else items_of(batch)[32:]
    diagonal = {(i, i) for i in range(32)} if in_batch else set()
    same = {(i, j) for i, row in enumerate(order) for j, item in enumerate(columns) if item == item_of[row]}
    known_cells = {(i, j) for i, row in enumerate(order) for j, item in enumerate(columns) if item in known[user_of[row]]}
    assert masked_cells(batch) == diagonal | same
    assert masked_cells(batches(in_batch=in_batch, user_positive_mask=True)[0]) == diagonal | known_cells | same
    assert diagonal < same | {(-1, -1)}
    assert same < known_cells


def test_samples_of_one_user_with_one_history_are_one_session() -> None:
    keys = {
        USER_INDEX: np.array([3, 1, 3, 3, -1, -1], np.int32),
        USER_ROW: np.array([7, 5, 7, 7, 0, 9], np.int32),
        HISTORY_END: np.array([40, 10, 40, 41, 0, 0], np.int64),
    }
    first, session = find_sessions(keys)
    assert len(first) == 5
    assert session[0] == session[2]
    assert len(set(session.tolist())) == 5
    assert first[session].tolist() == [0, 1, 0, 3, 4, 5]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=40), st.integers(0, 5))
def test_shuffle_sessions_keeps_sessions_together(values: list[int], seed: int) -> None:
    session = np.unique(values, return_inverse=True)[1].reshape(-1).astype(np.int64)
    order = shuffle_sessions(session, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(values)))
    assert int(np.count_nonzero(np.diff(session[order]))) == len(set(values)) - 1
    assert all(np.all(np.diff(np.flatnonzero(session[order] == v)) == 1) for v in set(values))


def _in_sessions() -> World:
    """Returns the world with two sessions of four samples for each user."""
    return replaced(TABLES, "samples", HISTORY_END, pa.array(np.arange(80, dtype=np.int64) // 4 * 4))


def _fitted(*, group_sessions: bool, **changes: Any) -> FitResult:
    """Returns towers fitted to the world of sessions, in one batch a epoch."""
    features = [feature for feature in FEATURES if feature.side is not TowerSide.CONTEXT or changes.get("context")]
    model = Model(**{**SMALL_MODEL, "dropout": 0.0, "num_sample": 0, **changes.get("model", {})})
    training = Training(epochs=3, batch_size=100, num_threads=1, group_sessions=group_sessions)
    spec = tower_spec(features, model)
    return fit(_in_sessions().data(spec), model=model, training=training, seed=2)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"model": {"user_positive_mask": True, "loss": "sigmoid"}},
        {"model": {"num_interests": 2, "poolings": [{"kind": "attention", "length": 5}]}},
        {"model": {"history": "leave_one_out"}},
        {"context": True, "model": {"context_dropout": 0.0}},
    ],
)
def test_grouped_sessions_give_the_losses_of_single_samples(changes: dict[str, Any]) -> None:
    grouped, single = (_fitted(group_sessions=whether, **changes) for whether in (True, False))
    np.testing.assert_allclose(grouped.loss_by_step, single.loss_by_step, rtol=2e-4)
    assert grouped.loss_by_step[-1] < grouped.loss_by_step[0]


def test_user_tower_runs_once_per_session() -> None:
    model = Model(**{**SMALL_MODEL, "num_sample": 0})
    spec = tower_spec([feature for feature in FEATURES if feature.side is not TowerSide.CONTEXT], model)
    training = Training(batch_size=20, group_sessions=True)
    data = _in_sessions().data(spec)
    found = list(epoch_batches(data, np.arange(80), model=model, training=training, seed=5, epoch=0))
    assert [(batch.count, len(batch.user)) for batch in found] == [(20, 5)] * 4


def order_of(rows: Any = None, seed: int = 1, epoch: int = 0) -> np.ndarray[Any, Any]:
    rows = np.arange(len(ITEM_OF)) if rows is None else rows
    return np.asarray(rows[np.random.default_rng([seed, epoch, 0]).permutation(len(rows))])


def shown(day: int = 0, own: bool = True) -> pa.Table:
    """Returns every user shown every item, first on the given day; with `own` also those that it interacted with."""
    pairs = [(u, i) for u in range(USERS) for i in range(ITEMS) if own or i // (ITEMS // 2) != u % 2]
    columns = {"user_index": [u for u, _ in pairs], "item_index": [i for _, i in pairs], "day": [day] * len(pairs)}
    return pa.table({name: pa.array(values, pa.int32()) for name, values in columns.items()})


def replaced(tables: World, table: str, column: str, values: pa.Array) -> World:
    old = getattr(tables, table)
    return replace(tables, **{table: old.set_column(old.column_names.index(column), column, values)})


def opened(hard: pa.Table | None = None, tables: World = TABLES, **changes: Any) -> tuple[TrainData, Model]:
    model = Model(**{**UNMERGED, **changes})
    found = {name: getattr(tables, name) for name in ("samples", "user_rows", "item_rows", "history", "users", "items")}
    return TrainData(tower_spec(FEATURES, model), **found, hard_negatives=hard), model


def batches(
    hard: pa.Table | None = None, *, tables: World = TABLES, rows: Any = None, first: int = 0, epoch: int = 0, size: int = 32,
    seed: int = 1, training: dict[str, Any] | None = None, **changes: Any,
) -> list[Batch]:  # fmt: skip
    data, model = opened(hard, tables, **changes)
    section = Training(**{**SMALL_TRAINING, "batch_size": size, **(training or {})})
    chosen = np.arange(data.num_samples) if rows is None else rows
    return list(epoch_batches(data, chosen, model=model, training=section, seed=seed, epoch=epoch, first=first))


def same(a: Batch, b: Batch) -> bool:
    """Returns whether two batches are equal in every number."""
    arrays = []
    for batch in (a, b):
        bags, terms = (*batch.user.bags, *batch.items.bags), batch.terms
        corrections = terms.column_correction.numpy(), terms.hard_correction.numpy()
        singles = batch.items.singles, batch.user.singles
        cells = terms.masked.rows, terms.masked.columns, terms.hard_rows
        arrays.append([*singles, *corrections, *cells, *(bag.values for bag in bags)])
    return all(np.array_equal(one, other) for one, other in zip(*arrays, strict=True))


@pytest.mark.parametrize("changes", [{}, {"sampler": "hard", "history_cut": {"sample_frac": 0.5}}])
def test_epoch_can_be_resumed_at_any_batch(changes: dict[str, Any]) -> None:
    whole = batches(shown(), size=8, **changes)
    for first in (0, 1, 4, 9, 10):
        again = batches(shown(), size=8, first=first, **changes)
        assert len(again) == 10 - first
        assert all(same(a, b) for a, b in zip(again, whole[first:], strict=True))
    assert not any(same(a, b) for a, b in pairwise(whole))


def test_hard_negatives_belong_to_their_sample_and_have_its_correction() -> None:
    hard = shown(own=False)
    batch, order = batches(hard, sampler="hard", num_hard_sample=10)[0], order_of()[:32]
    assert len(batch.terms.hard_rows) == 10
    assert len(batch.items) == 32 + 8 + 10
    edges = set(zip(*(hard.column(name).to_pylist() for name in ("user_index", "item_index")), strict=True))
    pairs = set(zip(USER_OF[order[batch.terms.hard_rows]].tolist(), items_of(batch)[40:].tolist(), strict=True))
    assert pairs <= edges
    assert len(set(batch.terms.hard_rows.tolist())) == 10
    # One out of six that the user was shown.
    assert batch.terms.hard_correction.numpy() == pytest.approx(np.full(10, np.log(1 / 6)), abs=1e-6)
    assert batches(hard, sampler="hard", logq=0.0)[0].terms.hard_correction.abs().sum() == 0
    assert len(batch.terms.column_correction) == 40


def test_hard_negatives_follow_their_distribution_and_change_by_batch() -> None:
    hard = shown(own=False)
    found = [batches(hard, sampler="hard", num_hard_sample=10, epoch=epoch, size=80)[0] for epoch in range(60)]
    assert len({tuple(items_of(batch)[-10:]) for batch in found}) == 60
    drawn = np.concatenate([items_of(batch)[-10:] % (ITEMS // 2) for batch in found])
    assert p_value(drawn, np.full(6, 1 / 6)) > LEAST_P
    rows = [order_of(epoch=epoch)[batch.terms.hard_rows] for epoch, batch in enumerate(found)]
    assert p_value(np.concatenate(rows), np.full(80, 1 / 80)) > LEAST_P


@pytest.mark.parametrize("sampler", ["weighted", "uniform", "v2", "mixed"])
def test_other_samplers_draw_no_hard_negatives(sampler: str) -> None:
    assert [len(batch.terms.hard_rows) for batch in batches(shown(), sampler=sampler)] == [0, 0, 0]
    assert [len(batch.terms.hard_rows) for batch in batches(shown(), sampler="hard", num_hard_sample=0)] == [0, 0, 0]


def test_batches_may_lack_hard_negatives_but_data_may_not() -> None:
    assert [len(batch.terms.hard_rows) for batch in batches(shown().slice(0, 0), sampler="hard")] == [0, 0, 0]
    # Only user 3 was shown anything: batches without it have no hard negatives.
    table = shown(own=False)
    some = batches(table.filter(pa.array(table["user_index"].to_numpy() == 3)), sampler="hard", size=4)
    of_user = [int((USER_OF[order_of()[step * 4 : step * 4 + 4]] == 3).sum()) for step in range(20)]
    assert [len(batch.terms.hard_rows) for batch in some] == [6 * count for count in of_user]
    assert 0 in of_user
    with pytest.raises(ConfigError, match="the file that sampler hard_v2 draws from, got no such file"):
        batches(None, sampler="hard_v2")


def _hard_pairs(batch: Batch, order: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    rows = order[batch.terms.hard_rows]
    return list(zip(rows.tolist(), items_of(batch)[len(batch.items) - len(batch.terms.hard_rows) :].tolist(), strict=True))


def test_masks_apply_to_hard_negatives() -> None:
    order, known = order_of(), [set(ITEM_OF[u * EVENTS : (u + 1) * EVENTS].tolist()) for u in range(USERS)]
    every = {"num_hard_sample": 10**6, "size": 80}

    def found(sampler: str, **changes: Any) -> set[tuple[int, int]]:
        return set(_hard_pairs(batches(shown(), sampler=sampler, **every, **changes)[0], order))

    whole = {(row, item) for row in range(80) for item in range(ITEMS)}
    own = {(row, int(ITEM_OF[row])) for row in range(80)}
    known_cells = {(row, item) for row in range(80) for item in known[USER_OF[row]]}
    assert found("hard") == whole - own
    assert found("hard", user_positive_mask=True) == found("hard_v2") == whole - known_cells
    assert own < known_cells


def test_v2_masks_known_items_and_the_rest_follow_the_distribution() -> None:
    for sampler in ("v2", "hard_v2"):
        assert (
            masked_cells(batches(shown(), sampler=sampler)[0])
            == masked_cells(batches(user_positive_mask=True)[0])
            > masked_cells(batches()[0])
        )
    data, model = opened(sampler="v2", num_sample=400)
    known_items = ITEM_OF[:EVENTS]  # of user 0
    unmasked = []
    for epoch in range(40):
        batch = batches(sampler="v2", num_sample=400, size=80, epoch=epoch)[0]
        row = int(np.flatnonzero(USER_OF[order_of(epoch=epoch)] == 0)[0])
        masked = {column for at, column in masked_cells(batch) if at == row}
        unmasked.append([item for place, item in enumerate(items_of(batch)) if place >= 80 and place not in masked])
    distribution = data.sampler(model, data.num_days).probability.copy()
    distribution[known_items] = 0
    assert p_value(np.concatenate(unmasked), distribution / distribution.sum()) > LEAST_P
    assert p_value(np.concatenate(unmasked), np.where(distribution > 0, 1.0, 0.0) / (distribution > 0).sum()) < LEAST_P


def test_samples_of_early_days_know_nothing_of_later_days() -> None:
    """The samples of day 0 alone: nothing of day 1 is in shares, known items or hard negatives."""
    early = np.flatnonzero(DAY_OF == 0)
    batch = batches(rows=early, size=40, user_positive_mask=True)[0]
    order = order_of(early)
    assert items_of(batch)[:40].tolist() == ITEM_OF[order].tolist()
    share = np.bincount(ITEM_OF[early], minlength=ITEMS) / 40
    assert batch.terms.positive_correction.numpy() == pytest.approx(np.log(40 * share[ITEM_OF[order]]), abs=1e-6)
    known = [set(ITEM_OF[early][USER_OF[early] == u].tolist()) for u in range(USERS)]
    columns = items_of(batch)
    assert masked_cells(batch) == {(i, j) for i in range(40) for j in range(48) if columns[j] in known[USER_OF[order[i]]]}
    assert masked_cells(batch) < {(i, j) for i in range(40) for j in range(48) if columns[j] // 6 == USER_OF[order[i]] % 2}
    for day, count in ((0, 10), (1, 0)):
        hard = batches(shown(day, own=False), rows=early, size=40, sampler="hard", num_hard_sample=10)[0]
        assert len(hard.terms.hard_rows) == count
    assert len(batches(shown(1, own=False), size=80, sampler="hard", num_hard_sample=10)[0].terms.hard_rows) == 10
