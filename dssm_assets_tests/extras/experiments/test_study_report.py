"""The table of trials and the winner's configuration."""

from __future__ import annotations

import yaml

from dssm_assets.extras.experiments.study_report import Trial, TrialState, best_trial, trials_markdown, tuned_yaml

TRIALS = (
    Trial("a_0000", {}, TrialState.COMPLETE, 0.25, 3, 9.0),
    Trial("a_0001", {"model.temperature": 0.05}, TrialState.PRUNED, 0.5, 1, 2.0),
    Trial("a_0002", {"model.output_dim": 96}, TrialState.COMPLETE, 0.3, 2, 8.0),
    Trial("a_0003", {"model.num_sample": 4}, TrialState.COMPLETE, 0.3, 2, 8.0),
    Trial("a_0004", {"model.num_sample": 9}, TrialState.FAILED, None, None, 1.0, "no room"),
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


def test_tuned_file_has_the_changes_and_keeps_the_rest() -> None:
    raw = {"name": "shop", "model": {"temperature": 0.1, "skip": True}, "window": {"days": 30}}
    text = tuned_yaml(raw, {"model.temperature": 0.05, "training.epochs": 2}, "| a |\n", ["Written by a study."])
    assert text.startswith("# Written by a study.\n#\n# | a |\n\n")
    assert yaml.safe_load(text) == {**raw, "model": {"temperature": 0.05, "skip": True}, "training": {"epochs": 2}}
    assert raw["model"] == {"temperature": 0.1, "skip": True}
