"""Inputs of an exported tower: padding by hand, names and order, and their description in towers.json."""

from __future__ import annotations

import numpy as np
import onnx

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.models.tower_input import select_rows
from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.service.bundle.tower_export import export_tower
from dssm_assets.service.bundle.tower_layout import describe_towers, pad_bags, tower_layout
from dssm_assets_tests.service.bundle import tower_worlds as worlds


def test_pad_bags_pads_rows_to_the_longest() -> None:
    bag = Bags(np.array([3, 4, 5]), np.array([0, 2, 2, 3]), np.array([0.5, 0.5, -1.0], np.float32))
    indices, weights = pad_bags(bag)
    assert indices.tolist() == [[3, 4], [0, 0], [5, 0]]
    assert weights.tolist() == [[0.5, 0.5], [0, 0], [-1, 0]]
    assert (indices.dtype, weights.dtype) == (np.int64, np.float32)


def test_inputs_have_a_fixed_order_and_cover_every_feature() -> None:
    spec = worlds.spec()
    bags = ["interests", "pages", "h__item", "h__tag"]
    expected = ["singles", *(f"indices/{name}" for name in bags), *(f"weights/{name}" for name in bags), "is_empty_history"]
    layout = tower_layout(spec, is_user=True)
    assert list(layout.input_names) == expected
    assert [feature.name for feature in layout.singles] == ["city", "age", "hour"]
    assert list(tower_layout(spec, is_user=False).input_names) == ["singles", "indices/tags", "weights/tags"]
    feed = layout.feed(worlds.user_rows(spec))
    assert set(feed) == set(expected)
    assert feed["singles"].shape == (worlds.ROWS, 3)
    # A history is limited to its last 4 events; the first user has none.
    assert feed["indices/h__item"].shape[1] <= 4
    assert feed["is_empty_history"][:2].tolist() == [1, 0]


def test_each_row_is_fed_as_alone() -> None:
    """Also the events of a sequence, whose rows and times have one width."""
    for spec in (worlds.spec(), worlds.spec(poolings=[{"kind": "sequence"}, {"kind": "attention"}])):
        layout, rows = tower_layout(spec, is_user=True), worlds.user_rows(spec)
        for row, feed in enumerate(layout.feed_each(rows)):
            alone = layout.feed(select_rows(rows, np.array([row])))
            assert {name: values.tolist() for name, values in feed.items()} == {
                name: values.tolist() for name, values in alone.items()
            }
            assert all(values.flags.c_contiguous for values in feed.values())
        assert row == worlds.ROWS - 1


def test_described_inputs_are_those_of_the_exported_models() -> None:
    spec = worlds.spec().model_copy(update={"history_half_life_days": 2.0})  # as stored by an earlier version
    described, two_tower = describe_towers(spec), worlds.towers(spec)
    for side in ("user", "item"):
        model = onnx.load_from_string(export_tower(two_tower, "d", is_user=side == "user").model)
        names = [entry.name for entry in model.graph.input]
        kinds = [
            "int64" if entry.type.tensor_type.elem_type == onnx.TensorProto.INT64 else "float32" for entry in model.graph.input
        ]
        inputs = described["towers"][side]["inputs"]
        assert [entry["name"] for entry in inputs] == names
        assert [entry["type"] for entry in inputs] == kinds
        assert described["towers"][side]["output"]["name"] == model.graph.output[0].name
    names = ["h__item", "h__tag"]
    mean = {"rule": "history", "length": 4, "half_life_days": 2.0, "features": names}
    assert described["history"] == {"length": 4, "half_life_days": 2.0, "features": names, "poolings": [mean]}


def test_several_poolings_have_their_own_inputs_and_rules() -> None:
    poolings = [{"kind": "attention"}, {"kind": "recency", "scale": 1.5}, {"kind": "root", "length": 9}]
    described = describe_towers(worlds.spec(poolings=poolings, num_interests=2, prior=True))
    # 5 scales of 1.5 ranks are 7.5: the eighth event back is the last that is read.
    assert [(part["rule"], part["length"], part["features"][0]) for part in described["history"]["poolings"]] == [
        ("recency", 8, "h__item/1_recency"),
        ("root", 9, "h__item/2_root"),
        ("attention", 50, "h__item/0_attention"),
    ]
    inputs = {entry["name"]: entry for entry in described["towers"]["user"]["inputs"]}
    assert inputs["weights/h__tag/1_recency"]["rule"] == "recency"
    assert inputs["weights/h__tag/2_root"]["rule"] == "root"
    assert inputs["weights/h__item/0_attention"]["rule"] == "attention"
    assert "weights/h__tag/0_attention" not in inputs
    shapes = [inputs[f"indices/{name}/0_attention"]["shape"] for name in ("h__item", "h__tag")]
    assert shapes == [["batch", "length of h__item/0_attention"]] * 2
    outputs = {side: tower["output"] for side, tower in described["towers"].items()}
    assert (outputs["user"]["shape"], outputs["item"]["shape"]) == (["batch", 2, 7], ["batch", 6])
    assert (outputs["user"]["has_appended_one"], outputs["item"]["has_appended_one"]) == (True, False)


def test_described_specification_is_the_trained_one() -> None:
    spec = worlds.spec(similarity="INNER_PRODUCT")
    assert TowerSpec.model_validate(describe_towers(spec)["spec"]) == spec
    assert describe_towers(spec)["towers"]["user"]["output"]["holds"] == "vectors"
