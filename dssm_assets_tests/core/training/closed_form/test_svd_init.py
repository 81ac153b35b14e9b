"""Codes that keep most of what histories contain, and towers that begin with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse as sp
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.closed_form import svd_init
from dssm_assets.core.training.closed_form.svd_init import (
    count_without_events,
    divide_rows,
    item_codes,
    leading_codes,
    pool_histories,
    popularity_factors,
    read_groups,
    scale_to_std,
    strength_of_groups,
    svd_init_faults,
    write_codes,
)
from dssm_assets.core.training.data import TrainData
from dssm_assets_tests.core.training.worlds import (
    AS_OF_MS,
    FEATURES,
    ITEMS,
    USERS,
    World,
    fitted,
    infer_item_vectors,
    infer_user_vectors,
    world,
)

LINEAR = {
    "output_dim": 16,
    "hidden_units": [],
    "skip": True,
    "similarity": "INNER_PRODUCT",
    "poolings": [{"kind": "root", "length": 5}],
}
START = {"embedding": "item", "scale": 3.0}


def _spans(codes: np.ndarray[Any, Any], dense: np.ndarray[Any, Any], width: int, atol: float) -> None:
    right = np.linalg.svd(dense)[2][:width]
    np.testing.assert_allclose(codes @ codes.T, right.T @ right, atol=atol)


def test_users_are_divided_by_a_power_of_their_sum() -> None:
    histories = sp.csr_matrix(np.array([[1, 1, 1, 1], [0, 9, 0, 0], [0, 0, 0, 0]], np.float32))
    found = divide_rows(histories, 0.5).toarray()
    assert found.tolist() == [[0.5] * 4, [0, 3, 0, 0], [0] * 4]
    assert divide_rows(histories, 0.0) is histories


def test_codes_are_scaled_to_a_deviation_of_the_products() -> None:
    histories, codes = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 0]], np.float32)), np.array([[1.0], [1.0], [0.0]], np.float32)
    # Items in histories are 1 and 2, both with products of 2 / root 2: no deviation, so the codes stay as they are.
    assert scale_to_std(histories, codes, 0.06) == 1.0
    histories = sp.csr_matrix(np.array([[1, 1, 0], [0, 0, 4]], np.float32))
    # User 1 has products 1.41, 1.41 and 0 with deviation .667, user 2 has 0 with all: .333 on average.
    assert scale_to_std(histories, codes, 0.03) == pytest.approx(0.3)  # the root of .03 / .333


def _dense(users: int) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(2)
    found = rng.random((users, 7)) * (rng.random((users, 7)) < 0.6) * np.array([9.0, 6.0, 4.0, 0.5, 0.3, 0.2, 0.1])
    return found.astype(np.float32)


def test_leading_codes_span_the_leading_singular_vectors() -> None:
    dense = _dense(9)
    _spans(leading_codes(sp.csr_matrix(dense), 3), dense, 3, atol=1e-4)


def test_leading_codes_repeat() -> None:
    dense = _dense(400)
    dense[:, 3] = dense[:, 2]  # equal columns
    one, two = (leading_codes(sp.csr_matrix(dense), 3) for _ in range(2))
    assert one.tobytes() == two.tobytes()
    _spans(one, dense, 3, atol=1e-4)


def test_columns_beyond_the_rank_are_zero() -> None:
    codes = leading_codes(sp.csr_matrix(np.array([[0, 2, 0]], np.float32)), 4)
    assert codes.shape == (3, 4)
    np.testing.assert_allclose(codes @ codes.T, np.diag([0, 1, 0]), atol=1e-6)
    for users in (0, 2):  # no user, and no user with history
        assert not leading_codes(sp.csr_matrix((users, 3), dtype=np.float32), 2).any()


def test_codes_of_full_width_are_a_ridge_regression() -> None:
    dense = _dense(30).astype(np.float64)
    codes = item_codes(sp.csr_matrix(dense.astype(np.float32)), dense.sum(0), 7, SvdInit(embedding="item", ridge=40.0))
    gram = dense.T @ dense
    np.testing.assert_allclose(codes @ codes.T, np.linalg.solve(gram + 40.0 * np.eye(7), gram), atol=1e-4)


def test_popularity_factors_by_hand() -> None:
    np.testing.assert_allclose(popularity_factors(np.array([0, 1, 3]), 0.5), [0.05**-0.5, 0.55**-0.5, 1.55**-0.5], rtol=1e-6)
    np.testing.assert_array_equal(popularity_factors(np.array([0, 1, 3]), 0.0), np.ones(3))


def test_popularity_exponent_weighs_histories_and_codes() -> None:
    dense = _dense(30)
    totals, start = dense.sum(0), SvdInit(embedding="item", ridge=5.0, popularity_exponent=0.5)
    codes = item_codes(sp.csr_matrix(dense), totals, 7, start)
    shares = np.diag(popularity_factors(totals, 0.5).astype(np.float64))
    gram = shares @ dense.T @ dense @ shares
    expected = shares @ np.linalg.solve(gram + 5.0 * np.eye(7), gram) @ shares
    np.testing.assert_allclose(codes @ codes.T, expected, rtol=1e-3, atol=1e-3)


def _started(
    ends: np.ndarray | None = None, start: dict[str, Any] | None = None, tables: World | None = None
) -> tuple[TwoTower, TrainData, Any]:
    tables = tables or world()
    spec = tower_spec(FEATURES, Model(**{**LINEAR, "num_sample": 8, "history_length": 5}))
    data, towers = tables.data(spec), TwoTower(spec, torch.Generator().manual_seed(0))
    write_codes(towers, data, SvdInit(**{**START, **(start or {})}), data.user_ends() if ends is None else ends)
    return towers, data, tables


def _pooled(tables: Any) -> np.ndarray:
    """Returns the pooled history of each user [USERS, ITEMS]: a root of five events, each 1 / sqrt(5)."""
    pooled = np.zeros((USERS, ITEMS))
    item, owner = tables.history["item_index"].to_numpy(), np.repeat(np.arange(USERS), len(tables.history) // USERS)
    last = np.arange(len(item)) % (len(item) // USERS) >= len(item) // USERS - 5
    np.add.at(pooled, (owner[last], item[last]), 5**-0.5)
    return pooled


def test_user_vectors_begin_near_own_items() -> None:
    towers, _, tables = _started()
    table, base = towers.tables.table(8), towers.tables.bases["item"]
    codes = table[base + 2 : base + 2 + ITEMS].numpy()  # the world's items have the indices from 2 on
    assert not table[base + 1].any()  # the row of no item begins at zero
    pooled = _pooled(tables)
    kept = np.linalg.norm(pooled @ codes / 3.0) / np.linalg.norm(pooled)
    best = np.linalg.svd(pooled)[1]
    assert kept == pytest.approx(np.linalg.norm(best[:8]) / np.linalg.norm(best), abs=1e-3)
    # In the vectors the codes' product is added to what the other features give, which does not depend on the history.
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
    found, expected = users @ items.T, (pooled @ codes) @ codes.T
    between = [np.corrcoef(found[u] - found.mean(0), expected[u] - expected.mean(0))[0, 1] for u in range(USERS)]
    assert min(between) > 0.95


@pytest.mark.parametrize("wanted", [0.05, 0.4])
def test_score_std_is_the_deviation_of_the_products_of_pooled_codes(wanted: float) -> None:
    towers, _, tables = _started(start={"score_std": wanted})
    base = towers.tables.bases["item"]
    codes = towers.tables.table(8)[base + 2 : base + 2 + ITEMS].numpy()
    pooled = _pooled(tables)
    known = pooled.sum(0) > 0
    assert ((pooled @ codes) @ codes[known].T).std(axis=1).mean() == pytest.approx(wanted, rel=1e-3)


def test_long_histories_weigh_more() -> None:
    """By hand: a root of two events weighs each 1 / sqrt(2), sqrt(2) together, so that each is 1 again; of one event it is 1."""
    _, data, tables = _started()
    ends = np.array(data.user_starts) + np.where(np.arange(USERS) == 0, 2, 1)
    sequence = next(f for f in data.spec.pooled_features if f.embedding_name == "item")
    found = pool_histories(data, sequence, ends).toarray()
    items = tables.history["h__item"].to_numpy()
    expected = np.zeros_like(found)
    for user, (start, end) in enumerate(zip(data.user_starts, ends, strict=True)):
        np.add.at(expected[user], items[start:end], 1.0)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_codes_use_only_events_before_the_ends() -> None:
    _, data, _ = _started()
    none = np.array(data.user_starts)
    none[:1] = data.user_ends()[:1]  # of the first user everything, of the others nothing
    towers, _, _ = _started(none)
    base = towers.tables.bases["item"]
    has_code = towers.tables.table(8)[base + 2 : base + 2 + ITEMS].norm(dim=1) > 0.5
    assert not has_code[ITEMS // 2 :].any()  # the other half's items
    assert has_code[: ITEMS // 2].any()


def test_search_codes_use_earlier_days_and_refit_codes_all_days(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def spy(towers: TwoTower, data: TrainData, start: SvdInit, ends: np.ndarray) -> None:
        seen.append(int((ends - data.user_starts).sum()))
        write_codes(towers, data, start, ends)

    monkeypatch.setattr(svd_init, "write_codes", spy)
    fitted(LINEAR, {"svd_init": START, "validation_days": 1})
    assert seen == [USERS * 4, USERS * 8]  # two days of four events each


def test_rows_of_several_items_have_no_code() -> None:
    tables = world()
    index = tables.items.column_names.index("item")
    items = tables.items.set_column(index, "item", pa.array([2, 2, *range(4, ITEMS + 2)], pa.int32()))
    towers, _, _ = _started(tables=replace(tables, items=items))
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
        ({"output_dim": 7}, START, "output_dim of at least 8"),
        ({"poolings": [{"kind": "attention", "length": 5}]}, START, "without attention"),
        ({"frozen_embedding": "item", "output_dim": 12}, {**START, "embedding": "tags"}, r"expected item, .*got tags"),
    ],
)
def test_unsuitable_towers_are_refused(model: dict[str, Any], start: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        fitted({**LINEAR, **model}, {"svd_init": start})


FROZEN = {**LINEAR, "frozen_embedding": "item", "output_dim": 12, "similarity": "COSINE"}


def test_frozen_codes_do_not_change() -> None:
    fit = fitted(FROZEN, {"svd_init": {**START, "ridge": 1.0}, "weight_average": 0.9})
    plain = fitted(FROZEN, {"svd_init": {**START, "ridge": 1.0}, "epochs": 1, "weight_average": 0.9})
    base = fit.two_tower.tables.bases["item"]
    rows = [of.two_tower.tables.table(8)[base + 1 : base + ITEMS + 2] for of in (fit, plain)]
    assert torch.equal(*rows)
    assert rows[0].norm(dim=1).max() > 0.5
    assert not torch.equal(fit.two_tower.item_tower.linears[-1].weight, plain.two_tower.item_tower.linears[-1].weight)


def test_frozen_in_loss_decides_whether_the_loss_sees_codes() -> None:
    losses = [
        fitted({**FROZEN, "frozen_in_loss": is_seen}, {"svd_init": {**START, "scale": scale}}).loss_by_step[0]
        for is_seen in (True, False)
        for scale in (1.0, 3.0)
    ]
    assert losses[0] != losses[1]
    assert losses[2] == losses[3]


def test_svd_init_changes_the_fit_deterministically() -> None:
    plain, one, two = (fitted(LINEAR, training) for training in ({}, {"svd_init": START}, {"svd_init": START}))
    assert np.array_equal(one.loss_by_step, two.loss_by_step)
    assert one.loss_by_step[0] != plain.loss_by_step[0]


GROUPED = {"embedding": "item", "scale": 1.0, "group_by": ["kind"]}


def _grouped(cold: Sequence[int] = (5, 11)) -> tuple[TrainData, Any, TwoTower]:
    """Items 0 .. 5 are of kind 1, the others of kind 2; cold items have no event and no row of their own."""
    spec_features = [f for f in FEATURES if f.name != "tags"]
    kind = spec_features[-2].model_copy(update={"name": "kind", "embedding_name": "kind", "num_embeddings": 3})
    model = Model(**{**LINEAR, "frozen_embedding": "item", "num_sample": 4, "history_length": 8})
    spec = tower_spec([*spec_features, kind], model)
    made = world()
    kinds = pa.array(np.repeat([1, 2], ITEMS // 2).astype(np.int32))
    is_cold = np.isin(np.arange(ITEMS), cold)
    ids = pa.array(np.where(is_cold, 1, np.arange(2, ITEMS + 2)).astype(np.int32))
    items = made.items.drop_columns(["tags"]).set_column(1, "item", ids).append_column("kind", kinds)
    rows = made.item_rows.append_column("kind", pa.array(np.zeros(made.item_rows.num_rows, np.int32)))
    history = made.history.set_column(2, "h__item", pa.array(np.where(
        np.isin(made.history.column("item_index").to_numpy(), cold), 1, made.history.column("h__item").to_numpy()
    ).astype(np.int32)))  # fmt: skip
    tables = {"samples": made.samples, "user_rows": made.user_rows, "users": made.users}
    data = TrainData(spec, **tables, item_rows=rows, history=history, items=items)
    return data, spec, TwoTower(spec, torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("cold", "strength"), [((5, 11), (1.0, 1.0)), ((4, 5, 11), ((5 / 6) ** 0.5, (5 / 3) ** 0.5))])
def test_codes_of_groups_are_those_of_histories_with_a_column_per_group(cold: Sequence[int], strength: Sequence[float]) -> None:
    data, spec, towers = _grouped(cold)
    codes = write_codes(towers, data, SvdInit.model_validate(GROUPED), data.user_ends())
    assert codes is not None
    assert codes.keys.tolist() == [[1], [2]]
    histories = pool_histories(data, spec.pooled_features[0], data.user_ends()).toarray()
    histories[:, :2] = 0.0  # unknown values and items without a row of their own
    member = np.zeros((ITEMS + 2, 2))
    member[2 : 2 + cold[0], 0] = member[8:13, 1] = 0.05
    right = np.linalg.svd(np.concatenate([histories, histories @ member], axis=1))[2][:8].T
    own, of_groups = right[: ITEMS + 2], right[ITEMS + 2 :]
    expected = np.concatenate([own + member @ of_groups, 0.2 * of_groups * np.array(strength)[:, None]])
    table = towers.tables.table(8)[towers.tables.bases["item"] :][: ITEMS + 2].numpy().copy()
    table[0] = 0.0
    found = np.concatenate([table, codes.codes])
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4)  # codes are unique up to their basis


def test_codes_of_groups_with_many_items_without_events_are_weaker() -> None:
    # Means over items: (1 + 4 * 4) / 5. A group without such items has nobody to give its code to.
    assert strength_of_groups(np.array([1, 4, 0])).tolist() == pytest.approx([3.4**0.5, 0.85**0.5, 3.4**0.5])
    assert strength_of_groups(np.array([0, 0])).tolist() == [1.0, 1.0]
    assert strength_of_groups(np.array([3000, 1])).tolist() == pytest.approx([1.0, 5.0], abs=1e-3)
    data, spec, _ = _grouped()
    _, _, row, group = read_groups(
        data, next(one for one in spec.features if one.name == "item"), SvdInit.model_validate(GROUPED)
    )
    totals = np.ones(ITEMS + 2)
    assert count_without_events(row, group, totals).tolist() == [1, 1]  # the last item of each kind has no row of its own
    totals[[2, 3]] = 0  # rows of two items of kind 1
    assert count_without_events(row, group, totals).tolist() == [3, 1]


def test_groups_need_frozen_codes_and_single_valued_features() -> None:
    spec = tower_spec(FEATURES, Model(**{**LINEAR, "num_sample": 4}))
    faults = [str(fault) for fault in svd_init_faults(spec, SvdInit.model_validate({**GROUPED, "group_by": ["tags"]}))]
    assert len(faults) == 2
    assert "expected model.frozen_embedding" in faults[0]
    assert "training.svd_init.group_by: expected single-valued item features" in faults[1]
