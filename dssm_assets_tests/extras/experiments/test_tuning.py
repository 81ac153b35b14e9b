"""What is searched; studies on the tiny world: trials are experiments, a stopped study goes on as if it had not stopped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dssm_assets.cli import main
from dssm_assets.core.config.pipeline import PipelineConfig, parse_config
from dssm_assets.core.errors import ConfigError
from dssm_assets.extras.experiments import tuning
from dssm_assets.extras.experiments.experiments import apply_changes
from dssm_assets.extras.experiments.tuning import (
    CONFIGURED,
    StudyRequest,
    Trial,
    TrialState,
    best_trial,
    changes_of,
    configured_values,
    find_borders,
    run_study,
    search_space,
    trials_markdown,
)
from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets.storage.overlay import experiment_names
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import CONFIG, EVALUATION_DAY, merged

pytest.importorskip("optuna")


def _workspace(factory: pytest.TempPathFactory, folder: Path, **changes: Any) -> Workspace:
    return open_workspace(worlds.built_world(factory).copy(folder, {"training": {"epochs": 2}, **changes}))


def _request(trials: int, **changes: Any) -> StudyRequest:
    return StudyRequest(**{"name": "tuned", "ds": EVALUATION_DAY, "trials": trials, "seed": 3, **changes})


def _ignore(trials: Sequence[Trial]) -> None:
    del trials


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, tuning.StudyResult]:
    workspace = _workspace(tmp_path_factory, tmp_path_factory.mktemp("study") / "world")
    return workspace, run_study(workspace, _request(3), _ignore)


def test_the_first_trial_is_the_configuration_and_all_are_experiments(studied: tuple[Workspace, tuning.StudyResult]) -> None:
    workspace, result = studied
    assert [trial.name for trial in result.trials] == ["tuned_0000", "tuned_0001", "tuned_0002"]
    assert result.trials[0].changes == {}
    assert all(trial.changes for trial in result.trials[1:])
    assert experiment_names(workspace.tables.partitions) == [trial.name for trial in result.trials]
    assert all(trial.hit_rate is not None and 0 <= trial.hit_rate <= 1 for trial in result.trials)
    regular = workspace.need("dssm_model", EVALUATION_DAY)
    assert "experiments" not in regular.key


def test_the_winner_is_a_configuration_that_loads(studied: tuple[Workspace, tuning.StudyResult]) -> None:
    workspace, result = studied
    source = workspace.loaded.path
    assert source is not None
    assert result.config_path == source.with_name("config.tuned.yaml")
    tuned = load_config(result.config_path, workspace.loaded.home).config
    for key, value in result.best.changes.items():
        section, _, name = key.partition(".")
        if name != "poolings":
            assert getattr(getattr(tuned, section), name) == value
    # The world has no validation days, so the number of epochs is part of what was found; trials' own days are not.
    assert tuned.training.epochs == result.best.epoch
    assert (tuned.training.validation_days, tuned.training.refit) == (0, True)
    assert all(trial.name in result.config_path.read_text() for trial in result.trials)
    assert all(trial.name in result.table_path.read_text() for trial in result.trials)
    raw = yaml.safe_load(source.read_text())
    assert raw["training"]["epochs"] == 2


def test_a_stopped_study_goes_on_as_if_it_had_not_stopped(
    studied: tuple[Workspace, tuning.StudyResult], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = _workspace(tmp_path_factory, tmp_path_factory.mktemp("stopped") / "world")
    plain, fits = tuning.fit_scored, 0

    def stop_in_the_second(*arguments: Any) -> Any:
        nonlocal fits
        fits += 1
        if fits == 2:
            raise KeyboardInterrupt
        return plain(*arguments)

    monkeypatch.setattr(tuning, "fit_scored", stop_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        run_study(workspace, _request(3), _ignore)
    seen: list[str] = []
    result = run_study(workspace, _request(3), lambda trials: seen.append(trials[-1].name))
    assert fits == 4  # the first one is not fitted again, the second one is
    assert seen == ["tuned_0000", "tuned_0001", "tuned_0002"]
    whole = studied[1]
    assert [(one.changes, one.hit_rate, one.state) for one in result.trials] == [
        (one.changes, one.hit_rate, one.state) for one in whole.trials
    ]
    assert result.config_path.read_bytes() == whole.config_path.read_bytes()


def test_the_command_says_what_it_will_do_before_the_first_fit_and_how_long_the_rest_takes(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = _workspace(tmp_path_factory, tmp_path_factory.mktemp("said") / "world").loaded
    plain = tuning.fit_scored
    monkeypatch.setattr(tuning, "fit_scored", lambda *arguments: (print("FIT"), plain(*arguments))[1])
    assert main(["tune", "--trials", "2", "--config", str(loaded.path), "--home", str(loaded.home)]) == 0
    lines = capsys.readouterr().out.splitlines()
    before = lines[1 : lines.index("FIT")]
    assert before[0].startswith(
        f"study tuned: 0 of 2 trials are done. Each fits the towers of {EVALUATION_DAY}, up to epoch 2, and scores them on the days "
        "before (validation days: 1); training.learning_rate, "
    )
    assert before[1] == "trial 1 of 2, tuned_0000: nothing changed"
    first, second = (line for line in lines if re.match(r"[12]/2 tuned_000[01]: ", line))
    seconds = re.search(r", complete, (\d+) s, best \d\.\d+, ETA (\d+) s$", first)
    assert seconds is not None
    assert seconds[1] == seconds[2], "one trial is left, and it takes as long as the first"
    assert second.endswith(", ETA 0 s")
    assert any(line.startswith("search: step ") for line in lines), "progress within a trial"


def test_a_study_does_not_go_on_with_another_seed(studied: tuple[Workspace, tuning.StudyResult]) -> None:
    with pytest.raises(ConfigError, match=r"study tuned: expected .* it began with, got seed\. To fix"):
        run_study(studied[0], _request(3, seed=4), _ignore)


def test_a_bad_epoch_ends_a_trial(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    import optuna

    workspace = _workspace(tmp_path_factory, tmp_path_factory.mktemp("pruned") / "world")
    prunes = iter([False, False, True])
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda trial: next(prunes))
    result = run_study(workspace, _request(2), _ignore)
    assert [str(trial.state) for trial in result.trials] == ["complete", "pruned"]
    assert result.trials[1].epoch == 1
    assert result.best.name == "tuned_0000"
    assert not list(workspace.artifacts.cache.glob("fit_state/**/*tuned_0001*"))


def test_a_day_without_a_model_is_refused(studied: tuple[Workspace, tuning.StudyResult]) -> None:
    with pytest.raises(ConfigError, match=r"dssm_model of 2020-01-01: expected a regular model"):
        run_study(studied[0], _request(1, ds="2020-01-01"), _ignore)


TRIALS = (
    Trial("a_0000", {}, TrialState.COMPLETE, 0.25, 3, 9.0),
    Trial("a_0001", {"model.temperature": 0.05}, TrialState.PRUNED, 0.5, 1, 2.0),
    Trial("a_0002", {"model.output_dim": 96}, TrialState.COMPLETE, 0.3, 2, 8.0),
    Trial("a_0003", {"model.num_sample": 4}, TrialState.COMPLETE, 0.3, 2, 8.0),
    Trial("a_0004", {"model.num_sample": 9}, TrialState.FAIL, None, None, 1.0, "no room"),
)


def test_the_first_of_the_best_complete_trials_wins() -> None:
    best = best_trial(TRIALS)
    assert best is not None
    assert best.name == "a_0002"
    assert best_trial([TRIALS[1], TRIALS[4]]) is None


def test_table_is_ordered_by_hit_rate_with_unscored_trials_last() -> None:
    lines = trials_markdown(TRIALS, 200).splitlines()
    assert lines[0] == "| trial | hit_rate@200 | best epoch | state | changed |"
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| a_0001", "| a_0002", "| a_0003", "| a_0000", "| a_0004"]
    assert lines[3] == "| a_0002 | 0.3000 | 2 | complete | model.output_dim=96 |"
    assert lines[-1] == "| a_0004 |  |  | failed | model.num_sample=9; no room |"


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


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model.num_sample": 4096, "model.output_dim": 96, "model.embedding_dropout": 0.0},
            ["model.num_sample", "4096", "highest"],
        ),
        ({"model.temperature": 0.19}, ["model.temperature", "0.19", "highest"]),  # of .05 to .2
        ({"model.recency_half_life_days": 2.0}, ["model.recency_half_life_days", "2", "lowest"]),
        ({"model.recency_half_life_days": 8.0, "model.poolings": [{"kind": "root", "length": 9}]}, []),
    ],
)
def test_a_best_value_at_an_end_of_what_was_tried_is_named(changes: dict[str, Any], expected: list[str]) -> None:
    config = _config(window={"days": 8}, model={"history_length": 9, "output_dim": 96}, training={"epochs": 3})
    found = find_borders(replace(TRIALS[2], changes=changes, epoch=2), config)
    assert [word in found[0] for word in expected] == [True] * len(expected) if expected else not found


def test_every_choice_is_a_valid_setting() -> None:
    config = _config(model={"history_length": 300})
    for key, one in search_space(config).items():
        for value in one.choices if isinstance(one, CategoricalDistribution) else (one.low, one.high):
            changes = changes_of({key: value}, config)
            assert changes.keys() <= {key}
            apply_changes(config, changes)


def test_values_become_settings() -> None:
    config = _config(model={"history_length": 300}, window={"days": 8})
    found = changes_of({"model.poolings": "root and mean", "model.recency_half_life_days": 2.0}, config)
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
