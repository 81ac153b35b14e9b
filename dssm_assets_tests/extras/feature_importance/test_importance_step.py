"""What groups of features are worth: the groups, the fits without them, what is counted as cold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import StepPlan, Training
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets.core.training.validation import ValidationSet
from dssm_assets.extras.feature_importance.feature_importance import events_before, only_items
from dssm_assets.extras.feature_importance.importance_step import ALL_FEATURES, TABLE, feature_groups, feature_importance
from dssm_assets.steps import feature_config
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.manifest import Manifest
from dssm_assets_tests import worlds
from dssm_assets_tests.core.training.worlds import EVENTS, FEATURES, ITEMS, SMALL_MODEL, USERS, world
from dssm_assets_tests.worlds import EVALUATION_DAY

SPEC = tower_spec(FEATURES, Model(**SMALL_MODEL))


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    settings = {"training": {"validation_days": 1, "epochs": 1}, "model": {"prior": True}}
    built = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("importance") / "world", settings)
    workspace = open_workspace(built)
    list(feature_config.training_config(workspace, [EVALUATION_DAY]))
    return workspace


def test_every_group_is_left_out_once(searched: Workspace) -> None:
    (result,) = feature_importance(searched, [EVALUATION_DAY])
    table = searched.tables.read(result.manifest).to_pylist()
    settings = feature_config.towers_of(searched, EVALUATION_DAY)
    left_out = [set(row["features"]) for row in table]
    assert [row["without"] for row in table] == sorted(row["without"] for row in table)
    assert table[[row["without"] for row in table].index(ALL_FEATURES)]["features"] == []
    assert set().union(*left_out) <= {feature.name for feature in settings.spec.features}
    assert sum(map(len, left_out)) == len(set().union(*left_out))
    assert all(0 <= row["hit_rate"] <= 1 for row in table)
    assert len({(row["pairs"], row["pairs_new"], row["pairs_cold"]) for row in table}) == 1
    assert table[0]["pairs"] > table[0]["pairs_new"] == 0  # every user has taken all eight items before
    assert result.report_markdown is not None
    assert all(f"| {row['without']} |" in result.report_markdown for row in table)
    assert result.manifest.asset == TABLE.name


def test_groups_part_attributes_statistics_and_histories() -> None:
    settings = _settings()
    inputs = {
        "user_kind": ["kind"],
        "interests": ["clicks_7d", "kind"],
        "hour": ["hour"],
        "item": ["item_id"],
        "tags": ["tags"],
    }
    columns = {TowerSide.USER: frozenset({"user_id", "kind"}), TowerSide.ITEM: frozenset({"item_id"})}
    groups = feature_groups(settings, _Fg(inputs), columns)  # type: ignore[arg-type]
    assert groups == {
        "user attributes": ("user_kind",),
        "user statistics": ("interests",),
        "context": ("hour", "pages"),
        "item attributes": ("item",),
        "item statistics": ("tags",),
        "history": ("h__item",),
    }


def test_an_embedding_in_closed_form_is_in_no_group() -> None:
    settings = _settings()
    training = Training.model_validate({"svd_init": {"embedding": "item"}})
    groups = feature_groups(replace(settings, training=training), _Fg({}), {})  # type: ignore[arg-type]
    assert sorted(sum(groups.values(), ())) == ["hour", "interests", "pages", "tags", "user_kind"]


def test_without_validation_days_it_is_refused(searched: Workspace, tmp_path_factory: pytest.TempPathFactory) -> None:
    built = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("none") / "world", {})
    workspace = open_workspace(built)
    list(feature_config.training_config(workspace, [EVALUATION_DAY]))
    with pytest.raises(ConfigError, match=r"training\.validation_days: expected validation days"):
        next(feature_importance(workspace, [EVALUATION_DAY]))


def test_events_before_a_day_are_those_of_all_users() -> None:
    tables = world()
    data = tables.data(SPEC)
    items, days = (tables.samples.column(name).to_numpy() for name in ("item_index", "day"))
    assert events_before(data, 1).tolist() == np.bincount(items[days == 0], minlength=ITEMS).tolist()
    assert events_before(data, 1).sum() == USERS * EVENTS // 2


def test_truth_among_some_items_by_hand() -> None:
    found = ValidationSet(world().data(SPEC), 1)
    is_kept = np.arange(ITEMS) % 3 != 0
    among = only_items(found.truth, is_kept)
    kept = np.flatnonzero(is_kept)
    for user in range(found.num_users):
        whole = found.truth.items[found.truth.offsets[user] : found.truth.offsets[user + 1]]
        mine = among.items[among.offsets[user] : among.offsets[user + 1]]
        assert kept[mine].tolist() == [item for item in whole.tolist() if is_kept[item]]


class _Fg:
    """Tells what features are computed from."""

    def __init__(self, inputs: dict[str, list[str]]) -> None:
        self._inputs = inputs

    def feature(self, name: str) -> object:
        return type("Feature", (), {"inputs": tuple(self._inputs.get(name, []))})


def _settings() -> feature_config.RunSettings:
    manifest = Manifest("training_config", EVALUATION_DAY, ())
    return feature_config.RunSettings(manifest, SPEC, Model(**SMALL_MODEL), Training(), 0, StepPlan(1, 1), EVALUATION_DAY)
