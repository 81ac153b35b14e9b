"""The frozen embedding: which columns it has, and that it reaches the output unchanged and untrained."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from dssm_assets.core.arrays.bags import mean_bags
from dssm_assets.core.columns import EVENT_TIME_MS
from dssm_assets.core.config.model import Model
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.tower_input import HistoryReader, TowerInput
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets_tests.core.models.features import tower_feature

AGE = tower_feature("age", TowerSide.USER, dim=4)
FEATURES = [
    tower_feature("i", TowerSide.ITEM, "item", dim=4),
    tower_feature("c", TowerSide.ITEM, "code"),
    tower_feature("h", TowerSide.SEQUENCE, "item", dim=4),
    tower_feature("hc", TowerSide.SEQUENCE, "code"),
    AGE,
]
FROZEN: dict[str, Any] = {
    "output_dim": 6,
    "frozen_embedding": "code",
    "skip": True,
    "poolings": [{"kind": "root", "length": 5}, {"kind": "mean", "length": 5}],
}


def test_columns_by_hand() -> None:
    towers = TwoTower(tower_spec(FEATURES, Model(**FROZEN)), torch.Generator().manual_seed(0))
    lookup = towers.user_lookup
    # Width 2: the codes of both poolings; width 4: age and the items of both poolings. The second pooling's codes are left out.
    assert (lookup.frozen.tolist(), lookup.trained.tolist()) == ([0, 1], list(range(4, 16)))
    assert (lookup.width, lookup.shared_positions) == (12, list(range(4, 12)))
    assert lookup.shared_coordinates == [("item", position) for position in range(4)] * 2
    assert (towers.item_lookup.frozen.tolist(), towers.item_lookup.shared_positions) == ([0, 1], [0, 1, 2, 3])


def _history(values: list[int]) -> TowerInput:
    array, offsets = np.array(values, np.int64), np.array([0, len(values)])
    root, mean = mean_bags(array, offsets, scale=np.sqrt), mean_bags(array, offsets)
    return TowerInput(np.array([[1]]), (root, root, mean, mean), np.array([0.0], np.float32))


def _towers(**changes: Any) -> TwoTower:
    return TwoTower(tower_spec(FEATURES, Model(**{**FROZEN, **changes})), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("similarity", ["COSINE", "INNER_PRODUCT"])
def test_vectors_end_with_the_first_pooling_and_the_items_own_row(similarity: str) -> None:
    towers = _towers(similarity=similarity)
    base = towers.tables.bases["code"]
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    towers.tables.table(2)[base + 1 : base + 3] = rows
    user, items = towers.user_vectors(_history([1, 2])), towers.item_vectors(TowerInput(np.array([[1, 1], [2, 2]])))
    assert (user.shape, items.shape) == ((1, 6), (2, 6))
    torch.testing.assert_close(items[:, 4:], rows)
    torch.testing.assert_close(user[0, 4:], (rows[0] + rows[1]) / 2**0.5)
    if similarity == "COSINE":
        torch.testing.assert_close(items[:, :4].norm(dim=1), torch.ones(2))


def test_layers_do_not_read_the_frozen_embedding_and_it_gets_no_gradient() -> None:
    towers = _towers()
    base = towers.tables.bases["code"]
    first = towers.user_vectors(_history([1, 2])), towers.item_vectors(TowerInput(np.array([[1, 1]])))
    towers.tables.table(2)[base + 1] += 1.0
    tape: list[Any] = []
    moved = towers.user_vectors(_history([1, 2]), tape), towers.item_vectors(TowerInput(np.array([[1, 1]])), tape)
    for before, after in zip(first, moved, strict=True):
        torch.testing.assert_close(before[:, :4], after[:, :4])
        assert not torch.allclose(before[:, 4:], after[:, 4:])
    (moved[0] @ moved[1].T).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [found.pooled.grad for found in tape if found.dim == 2]
    assert len(gradients) == 2
    assert all(gradient is not None and not gradient.any() for gradient in gradients)
    assert any(found.pooled.grad.any() for found in tape if found.dim == 4)


def test_the_frozen_embedding_can_be_left_out() -> None:
    towers, item = _towers(), TowerInput(np.array([[1, 2]]))
    tape: list[Any] = []
    torch.testing.assert_close(
        towers.user_vectors(_history([1, 2]), tape, with_frozen=False), towers.user_vectors(_history([1, 2]))[:, :4]
    )
    torch.testing.assert_close(towers.item_vectors(item, tape, with_frozen=False), towers.item_vectors(item)[:, :4])
    assert {found.dim for found in tape} == {4}  # and is not looked up


def test_the_frozen_embedding_is_pooled_beside_an_encoded_history() -> None:
    towers = _towers(poolings=[{"kind": "root", "length": 5}, {"kind": "sequence", "length": 5, "num_heads": 1}])
    assert towers.user_lookup.width == 12  # age, the pooled item embedding and the encoder's state, 4 each
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    base = towers.tables.bases["code"]
    towers.tables.table(2)[base + 1 : base + 3] = rows
    events = {name: pa.array([1, 2], pa.int32()) for name in ("h", "hc")}
    history = HistoryReader(pa.table({EVENT_TIME_MS: pa.array([10, 20], pa.int64()), **events}), towers.spec)
    inputs = TowerInput(np.array([[1], [1]])).with_history(history.read(np.array([0, 0]), np.array([2, 1])))
    user = towers.user_vectors(inputs)
    torch.testing.assert_close(user[:, 4:], torch.stack([(rows[0] + rows[1]) / 2**0.5, rows[0]]))
    torch.testing.assert_close(user[:, :4], towers.user_vectors(inputs, with_frozen=False))


@pytest.mark.parametrize(
    ("features", "model", "named"),
    [
        (FEATURES, {"frozen_embedding": "unknown"}, "unknown: 0 item, "),
        ([*FEATURES, tower_feature("own", TowerSide.USER, "code")], {}, "1 user features"),
        (FEATURES, {"poolings": [{"kind": "attention"}]}, "without attention"),
        (FEATURES, {"poolings": [{"kind": "sequence"}]}, "another pooling and another sub-feature"),
        ([f for f in FEATURES if f.name != "h"], {"poolings": [{"kind": "sequence"}, {}]}, "another sub-feature"),
        (FEATURES, {"output_dim": 2}, "output_dim above 2"),
        ([f for f in FEATURES if f.name != "i"], {}, "another item feature"),
        ([f for f in FEATURES if f.name not in ("h", "age")], {}, "another user, context or sequence feature"),
    ],
)
def test_embeddings_that_cannot_be_frozen_are_refused(features: list[TowerFeature], model: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        tower_spec(features, Model(**{**FROZEN, **model}))
