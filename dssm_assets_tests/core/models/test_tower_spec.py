"""The specification has a JSON form, and impossible towers are refused."""

from __future__ import annotations

import json

import pytest

from dssm_assets.core.config.model import Model, Pooling
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec, spec_faults, tower_spec
from dssm_assets_tests.core.models.features import tower_feature

USER, ITEM = tower_feature("age", TowerSide.USER), tower_feature("item")


def test_json_round_trip_gives_equal_text() -> None:
    spec = tower_spec(
        [USER, ITEM, tower_feature("h__item", TowerSide.SEQUENCE, "item")], Model(poolings=[Pooling(half_life_days=3)])
    )
    assert TowerSpec.model_validate_json(spec.to_json()) == spec
    assert TowerSpec.model_validate_json(spec.to_json()).to_json() == spec.to_json()


@pytest.mark.parametrize(
    ("features", "model", "words"),
    [
        ([USER, ITEM, tower_feature("h__item", TowerSide.SEQUENCE, "item", rows=11)], Model(), r"embedding item.*h__item 11x2"),
        ([ITEM], Model(), "user tower"),
        (
            [USER, ITEM],
            Model(poolings=[{"kind": "attention"}], num_interests=2),
            r"model\.num_interests: expected a pooling of kind attention",
        ),
    ],
)
def test_impossible_towers_are_refused(features: list[TowerFeature], model: Model, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tower_spec(features, model)


def test_all_faults_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        tower_spec([tower_feature("age", TowerSide.USER, is_weighted=True)], Model())
    places = {fault.where for fault in caught.value.faults}
    assert places == {"feature age", "item tower"}


def test_history_of_length_zero_has_no_sub_features() -> None:
    features = [USER, ITEM, tower_feature("h", TowerSide.SEQUENCE)]
    assert [f.name for f in tower_spec(features, Model(history_length=3)).sequences] == ["h"]
    assert tower_spec(features, Model(history_length=0)).sequences == ()


def test_differences_are_reported_one_by_one() -> None:
    ours = tower_spec([USER, ITEM], Model())
    theirs = tower_spec([tower_feature("age", TowerSide.USER, rows=12), ITEM], Model(output_dim=8))
    faults = spec_faults(ours, theirs, "model", "retrain")
    assert [(f.where, f.expected, f.got) for f in faults] == [
        ("model, feature age.num_embeddings", "5", "12"),
        ("model, output_dim", "64", "8"),
    ]
    assert spec_faults(ours, ours, "model", "retrain") == []


def test_a_stored_specification_without_later_fields_has_their_defaults() -> None:
    features = [USER, ITEM, tower_feature("h", TowerSide.SEQUENCE, "item")]
    spec = tower_spec(features, Model(history_length=7)).model_copy(update={"history_half_life_days": 3})
    known = json.loads(spec.to_json())
    later = {"poolings", "norm", "skip", "embedding_dropout", "learn_temperature", "learn_scale", "num_interests", "prior"}
    assert TowerSpec.model_validate_json(json.dumps({key: value for key, value in known.items() if key not in later})) == spec
    (view,) = spec.history_views
    assert (view.pooling.kind, view.pooling.length, view.pooling.half_life_days) == ("mean", 7, 3)
    assert view.features == spec.sequences == spec.pooled_features
    assert (spec.attention_views, spec.user_vector_width, spec.item_vector_width) == ((), 64, 64)


def test_width_of_stored_vectors_follows_from_interests_and_prior() -> None:
    features = [ITEM, tower_feature("h", TowerSide.SEQUENCE)]
    spec = tower_spec(features, Model(output_dim=5, poolings=[{"kind": "attention"}], num_interests=3, prior=True))
    assert (spec.user_vector_width, spec.item_vector_width) == (18, 6)
