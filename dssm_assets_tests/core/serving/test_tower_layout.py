"""Padding by hand, and the names of the inputs."""

from __future__ import annotations

import numpy as np

from dssm_assets.core.models.bags import Bags
from dssm_assets.core.serving.tower_layout import item_layout, padded, user_layout
from dssm_assets_tests.core.serving import worlds


def test_rows_are_padded_to_the_longest() -> None:
    bag = Bags(np.array([3, 4, 5]), np.array([0, 2, 2, 3]), np.array([0.5, 0.5, -1.0], np.float32))
    indices, weights = padded(bag)
    assert indices.tolist() == [[3, 4], [0, 0], [5, 0]]
    assert weights.tolist() == [[0.5, 0.5], [0, 0], [-1, 0]]
    assert (indices.dtype, weights.dtype) == (np.int64, np.float32)


def test_without_any_value_there_is_still_one_place() -> None:
    indices, weights = padded(Bags(np.zeros(0, np.int64), np.zeros(4, np.int64), np.zeros(0, np.float32)))
    assert indices.tolist() == weights.tolist() == [[0], [0], [0]]


def test_inputs_have_a_fixed_order_and_every_feature_is_among_them() -> None:
    spec = worlds.spec()
    bags = ["interests", "pages", "h__item", "h__tag"]
    expected = ["singles", *(f"indices/{name}" for name in bags), *(f"weights/{name}" for name in bags), "is_empty_history"]
    layout = user_layout(spec)
    assert list(layout.input_names) == expected
    assert [feature.name for feature in layout.singles] == ["city", "age", "hour"]
    assert list(item_layout(spec).input_names) == ["singles", "indices/tags", "weights/tags"]
    feed = layout.feed(worlds.user_rows(spec))
    assert set(feed) == set(expected)
    assert feed["singles"].shape == (worlds.ROWS, 3)
    # A history is cut to its last 4 events; the first user has none.
    assert feed["indices/h__item"].shape[1] <= 4
    assert feed["is_empty_history"][:2].tolist() == [1, 0]


def test_without_history_there_is_no_flag() -> None:
    names = user_layout(worlds.spec(history_length=0)).input_names
    assert "is_empty_history" not in names
    assert not any("h__" in name for name in names)


def test_sub_features_under_attention_share_the_weights_of_the_first() -> None:
    spec = worlds.spec(poolings=[{"kind": "attention", "length": 3}, {"kind": "root"}])
    layout, inputs = user_layout(spec), worlds.user_rows(spec)
    feed = layout.feed(inputs)
    assert set(feed) == set(layout.input_names)
    assert [name for name in feed if "h__" in name] == [
        "indices/h__item/1_root",
        "weights/h__item/1_root",
        "indices/h__tag/1_root",
        "weights/h__tag/1_root",
        "indices/h__item/0_attention",
        "weights/h__item/0_attention",
        "indices/h__tag/0_attention",
    ]
    there = feed["weights/h__item/0_attention"]
    assert feed["indices/h__item/0_attention"].shape == feed["indices/h__tag/0_attention"].shape == there.shape
    assert set(np.unique(there)) == {0, 1}
    # A place counts where either sub-feature is present, and nowhere else.
    present = (feed["indices/h__item/0_attention"] > 0) | (feed["indices/h__tag/0_attention"] > 0)
    assert (present == (there > 0)).all()
    assert not there[0].any()
