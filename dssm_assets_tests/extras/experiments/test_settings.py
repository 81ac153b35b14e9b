"""Settings of experiments: which keys, how they are entered, what follows from them."""

from __future__ import annotations

import pytest

from dssm_assets.core.config.pipeline import parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.experiments.experiments import (
    SECTIONS,
    apply_changes,
    expand_settings,
    needs_fit,
    normalise_changes,
    parse_assignments,
    reached_assets,
    settable_keys,
)
from dssm_assets_tests import worlds

CONFIG = parse_config(worlds.merged(worlds.CONFIG, {"statistics": {"embedding_dim": {"item": 4, "city": 2}}}))


def faults_of(call, *arguments):
    with pytest.raises(ConfigError) as error:
        call(*arguments)
    return [str(fault) for fault in error.value.faults]


def test_every_key_of_the_sections_can_be_set():
    keys = settable_keys()
    assert {key.partition(".")[0] for key in keys} == {*SECTIONS, "evaluation"}
    assert {"model.prior", "training.validation_days", "statistics.embedding_dim", "negative_items.alpha"} <= set(keys)


def test_assignments_have_yaml_values():
    found = parse_assignments(["model.prior=true", "training.learning_rate = 1e-3", "statistics.embedding_dim={item: 64}"])
    assert found["model.prior"] is True
    assert found["statistics.embedding_dim"] == {"item": 64}
    assert parse_assignments(["model.loss=a=b", "model.frozen_embedding="]) == {
        "model.loss": "a=b",
        "model.frozen_embedding": None,
    }


def test_every_wrong_assignment_is_named():
    faults = faults_of(parse_assignments, ["model.prior", "model.poolings=[1"])
    assert [fault.split(":")[0] for fault in faults] == ["--set model.poolings", "--set model.prior"]


def test_keys_inside_a_mapping_change_only_themselves():
    entered = {"statistics.embedding_dim.item": 64, "statistics.embedding_dim.page": 3, "training.svd_init.dim": 8}
    found = expand_settings(CONFIG, entered)
    assert found["statistics.embedding_dim"] == {"item": 64, "city": 2, "page": 3}
    assert found["training.svd_init"] == {"dim": 8}


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("model.pior", "model.prior"),
        ("prior", "model.prior"),
        ("model.validation_days", "training.validation_days"),
        ("statistics.embeding_dim.item", "statistics.embedding_dim"),
    ],
)
def test_unknown_key_is_refused_with_the_nearest_and_a_remedy(key, nearest):
    (fault,) = faults_of(expand_settings, CONFIG, {key: 1})
    assert fault.startswith(f"run settings, {key}: expected a key of model, training, statistics, negative_items, channels")
    assert f"the nearest is {nearest}. To fix: write {nearest} if you mean it" in fault


def test_key_inside_a_number_is_refused():
    (fault,) = faults_of(expand_settings, CONFIG, {"model.output_dim.item": 1})
    assert fault.endswith("got 8. To fix: give the whole value of model.output_dim")


def test_values_and_what_they_demand_are_checked():
    (fault,) = faults_of(apply_changes, CONFIG, {"model.output_dim": 0})
    assert fault.startswith("run settings, key model.output_dim")
    (fault,) = faults_of(apply_changes, CONFIG, {"model.prior": True})
    assert "validation_days is 0" in fault
    (fault,) = faults_of(apply_changes, CONFIG, {"training.svd_init": {"embedding": "item", "dims": 8}})
    assert "unknown key 'dims'" in fault


def test_changes_have_the_values_that_the_configuration_makes_of_them():
    entered = {"model.output_dim": 8, "model.prior": True, "training.validation_days": 2, "evaluation.k": (3,)}
    assert normalise_changes(CONFIG, entered) == {"model.prior": True, "training.validation_days": 2, "evaluation.k": [3]}
    (value,) = normalise_changes(CONFIG, {"training.svd_init": {"embedding": "item"}}).values()
    assert len(value) > 1


def test_what_settings_reach():
    assert reached_assets(["model.temperature"]) == {"training_config", "channel_weights"}
    assert reached_assets(["training.epochs"]) == {"training_config", "step_config", "channel_weights"}
    assert reached_assets(["model.recency_half_life_days"]) == {"training_config", "train_samples", "channel_weights"}
    assert "train_samples" in reached_assets(["training.validation_days"])
    assert reached_assets(["channels.is_enabled"]) == {"channel_weights"}
    assert reached_assets(["evaluation.k"]) == frozenset()
    assert needs_fit(["model.prior", "channels.is_enabled"])
    assert not needs_fit(["channels.is_enabled", "evaluation.k"])
