"""The description names the inputs of the models, in their order, and the whole specification."""

from __future__ import annotations

import onnx

from dssm_assets.core.models.tower_spec import TowerSpec
from dssm_assets.core.serving.tower_description import describe_towers
from dssm_assets.core.serving.tower_export import export_item_tower, export_user_tower
from dssm_assets_tests.core.serving import worlds


def test_inputs_are_those_of_the_models() -> None:
    spec = worlds.spec(history_half_life_days=2.0)
    described, two_tower = describe_towers(spec), worlds.towers(spec)
    for side, export in (("user", export_user_tower), ("item", export_item_tower)):
        model = onnx.load_from_string(export(two_tower, "d").model)
        names = [given.name for given in model.graph.input]
        kinds = [
            "int64" if given.type.tensor_type.elem_type == onnx.TensorProto.INT64 else "float32" for given in model.graph.input
        ]
        inputs = described["towers"][side]["inputs"]
        assert [given["name"] for given in inputs] == names
        assert [given["type"] for given in inputs] == kinds
        assert described["towers"][side]["output"]["name"] == model.graph.output[0].name
    names = ["h__item", "h__tag"]
    mean = {"rule": "history", "length": 4, "half_life_days": 2.0, "features": names}
    assert described["history"] == {"length": 4, "half_life_days": 2.0, "features": names, "poolings": [mean]}


def test_several_poolings_have_inputs_and_rules_of_their_own() -> None:
    poolings = [{"kind": "attention"}, {"kind": "recency", "scale": 1.5}, {"kind": "root", "length": 9}]
    described = describe_towers(worlds.spec(poolings=poolings, num_interests=2, prior=True))
    # 5 scales of 1.5 ranks are 7.5: the eighth event back is the last that is read.
    assert [(part["rule"], part["length"], part["features"][0]) for part in described["history"]["poolings"]] == [
        ("recency", 8, "h__item/1_recency"),
        ("root", 9, "h__item/2_root"),
        ("attention", 50, "h__item/0_attention"),
    ]
    inputs = {given["name"]: given for given in described["towers"]["user"]["inputs"]}
    assert inputs["weights/h__tag/1_recency"]["rule"] == "recency"
    assert inputs["weights/h__tag/2_root"]["rule"] == "root"
    assert inputs["weights/h__item/0_attention"]["rule"] == "attention"
    assert "weights/h__tag/0_attention" not in inputs
    shapes = [inputs[f"indices/{name}/0_attention"]["shape"] for name in ("h__item", "h__tag")]
    assert shapes == [["batch", "length of h__item/0_attention"]] * 2
    outputs = {side: tower["output"] for side, tower in described["towers"].items()}
    assert (outputs["user"]["shape"], outputs["item"]["shape"]) == (["batch", 2, 7], ["batch", 6])
    assert (outputs["user"]["has_one_behind"], outputs["item"]["has_one_behind"]) == (True, False)


def test_rules_name_how_each_weight_is_made() -> None:
    inputs = {given["name"]: given for given in describe_towers(worlds.spec())["towers"]["user"]["inputs"]}
    rules = {name: given["rule"] for name, given in inputs.items() if name.startswith("weights/")}
    assert rules == {
        "weights/interests": "mean",
        "weights/pages": "weighted",
        "weights/h__item": "history",
        "weights/h__tag": "history",
    }
    assert set(rules.values()) <= set(describe_towers(worlds.spec())["rules"])


def test_the_specification_comes_back() -> None:
    spec = worlds.spec(similarity="INNER_PRODUCT")
    assert TowerSpec.model_validate(describe_towers(spec)["spec"]) == spec
    assert describe_towers(spec)["towers"]["user"]["output"]["holds"] == "vectors"
