"""What is searched around a configuration, and which settings follow from proposed values."""

from __future__ import annotations

from typing import Any

import pytest

from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.extras.experiments.search_space import CONFIGURED, Choice, Range, changes_of, configured_values, search_space
from dssm_assets.extras.experiments.settings import apply_changes
from dssm_assets_tests.worlds import CONFIG, merged


def _config(**changes: Any) -> PipelineConfig:
    return parse_config(merged(CONFIG, changes))


def _by_key(config: PipelineConfig) -> dict[str, Choice | Range]:
    return {one.key: one for one in search_space(config)}


def test_the_configured_values_are_inside_and_change_nothing() -> None:
    config = _config(model={"output_dim": 100, "num_sample": 77, "temperature": 0.123})
    space = search_space(config)
    values = configured_values(space, config)
    assert values.keys() == {one.key for one in space}
    for one in space:
        value = values[one.key]
        if isinstance(one, Choice):
            assert value in one.values
        else:
            assert isinstance(value, float) and one.low <= value <= one.high
    assert changes_of(values, config) == {}


def test_every_choice_is_a_valid_setting() -> None:
    config = _config(model={"history_length": 300})
    for one in search_space(config):
        for value in one.values if isinstance(one, Choice) else (one.low, one.high):
            changes = changes_of({one.key: value}, config)
            assert changes.keys() <= {one.key}
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
    assert missing not in _by_key(_config(model=model, training=training))


def test_vectors_stay_wider_than_their_frozen_part() -> None:
    config = _config(
        model={"frozen_embedding": "item", "output_dim": 80},
        training={"svd_init": {"embedding": "item"}},
        statistics={"embedding_dim": {"item": 64}},
    )
    assert _by_key(config)["model.output_dim"] == Choice("model.output_dim", (80, 96, 128))
