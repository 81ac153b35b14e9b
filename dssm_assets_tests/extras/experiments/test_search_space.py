"""What is searched around a configuration, and which settings follow from proposed values."""

from __future__ import annotations

from typing import Any

import pytest

from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.extras.experiments.experiments import apply_changes
from dssm_assets.extras.experiments.tuning import CONFIGURED, changes_of, configured_values, search_space
from dssm_assets_tests.worlds import CONFIG, merged

CategoricalDistribution = pytest.importorskip("optuna.distributions").CategoricalDistribution


def _config(**changes: Any) -> PipelineConfig:
    return parse_config(merged(CONFIG, changes))


def test_the_configured_values_are_inside_and_change_nothing() -> None:
    config = _config(model={"output_dim": 100, "num_sample": 77, "temperature": 0.123})
    space = search_space(config)
    values = configured_values(space, config)
    assert values.keys() == space.keys()
    assert all(one._contains(one.to_internal_repr(values[key])) for key, one in space.items())
    assert changes_of(values, config) == {}


def test_every_choice_is_a_valid_setting() -> None:
    config = _config(model={"history_length": 300})
    for key, one in search_space(config).items():
        for value in one.choices if isinstance(one, CategoricalDistribution) else (one.low, one.high):
            changes = changes_of({key: value}, config)
            assert changes.keys() <= {key}
            apply_changes(config, changes)


def test_values_become_settings() -> None:
    config = _config(model={"history_length": 300}, window={"days": 8})
    found = changes_of({"model.poolings": "root and mean", "model.recency_half_life_days": "window / 4"}, config)
    assert found == {
        "model.poolings": [{"kind": "root", "length": 300}, {"kind": "mean", "length": 50}],
        "model.recency_half_life_days": 2.0,
    }
    assert changes_of({"model.recency_half_life_days": "none", "model.poolings": CONFIGURED}, config) == {}


@pytest.mark.parametrize(
    ("model", "training", "missing"),
    [
        ({"similarity": "INNER_PRODUCT"}, {}, "model.temperature"),
        ({"learn_temperature": True}, {}, "model.temperature"),
        ({"history_length": 0, "poolings": []}, {}, "model.poolings"),
        ({"skip": True}, {"svd_init": {"embedding": "item"}}, "model.output_dim"),
    ],
)
def test_settings_without_effect_or_room_are_not_searched(
    model: dict[str, Any], training: dict[str, Any], missing: str
) -> None:
    assert missing not in search_space(_config(model=model, training=training))


def test_vectors_stay_wider_than_their_frozen_part() -> None:
    config = _config(
        model={"frozen_embedding": "item", "output_dim": 80},
        training={"svd_init": {"embedding": "item"}},
        statistics={"embedding_dim": {"item": 64}},
    )
    assert search_space(config)["model.output_dim"] == CategoricalDistribution((80, 96, 128))
