"""`dssm-assets experiment`, `experiments` and `experiment adopt` on a copy of the small world."""

from __future__ import annotations

import pytest

from dssm_assets.cli import main
from dssm_assets.extras.experiments.experiment_runs import Adoption
from dssm_assets.extras.experiments.experiments import Experiment, open_experiment, reopen_experiment
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

SETTINGS = ["model.output_dim=6", "statistics.embedding_dim.item=6", "training.epochs=1"]


def command(loaded, capsys, *arguments):
    """Runs a command on a configuration; returns (exit status, stdout, stderr)."""
    status = main([*arguments, "--config", str(loaded.path), "--home", str(loaded.home)])
    printed = capsys.readouterr()
    return status, printed.out, printed.err


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """A copy of the world with the experiment `wide`."""
    copied = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("experiment") / "world")
    options = [part for text in SETTINGS for part in ("--set", text)]
    where = ["--config", str(copied.path), "--home", str(copied.home)]
    assert main(["experiment", "wide", *options, "--from", EVALUATION_DAY, *where]) == 0
    return copied


def own_assets(loaded, name):
    folders = (loaded.home / "tables" / "experiments" / name).iterdir()
    return {folder.name for folder in folders if not folder.name.startswith("_")}


def test_only_what_the_settings_reach_is_made(loaded, tmp_path_factory):
    before = worlds.every_digest(worlds.built_world(tmp_path_factory).workspace)
    after = worlds.every_digest(worlds.open_workspace(loaded))
    assert {key for key in before if after[key] != before[key]} == {f"experiments/{EVALUATION_DAY}"}
    assert own_assets(loaded, "wide") == {
        "settings",
        *("feature_binning", "feature_config", "step_config", "train_samples", "training_config"),
        *("dssm_model", "item_vectors", "user_vectors", "channel_weights", "hit_counts", "hit_rate_detail", "total_hit_rate"),
    }
    workspace = reopen_experiment(worlds.open_workspace(loaded), "wide", EVALUATION_DAY)
    vectors = workspace.tables.read(workspace.need("user_vectors", EVALUATION_DAY))
    assert len(vectors.column("user_tower_emb")[0].as_py()) == 6
    widths = workspace.tables.read(workspace.need("feature_config", EVALUATION_DAY)).to_pylist()
    assert '"embedding_dim":6' in next(row["feature_info"] for row in widths if row["feature"] == "item")


def test_table_and_command_compare_it_with_the_regular_run(loaded, capsys):
    status, out, _ = command(loaded, capsys, "experiments")
    assert status == 0
    assert f"{EVALUATION_DAY}  All items (12 users)" in out
    lines = [line.split() for line in out.splitlines()]
    assert ["regular", "two-tower", "model", "1.0000"] in lines
    # Both have every hit: the difference is 0 on every resample.
    assert ["wide", "two-tower", "model", "1.0000", "+0.0000", "+0.0000", "to", "+0.0000"] in lines
    assert "wide: model.output_dim=6 statistics.embedding_dim={'item': 6} training.epochs=1" in out
    assert max(map(len, out.splitlines()[1:-2])) < 100


def test_channel_setting_makes_no_towers(loaded, capsys):
    workspace = reopen_experiment(worlds.open_workspace(loaded), "wide", EVALUATION_DAY)
    model = workspace.need("dssm_model", EVALUATION_DAY).digest
    status, out, _ = command(
        loaded, capsys, "experiment", "wide", "--set", "channels.is_enabled=false", "--from", EVALUATION_DAY
    )
    assert status == 0
    assert "dssm_model" not in out
    assert f"experiment wide, {EVALUATION_DAY}: channels.is_enabled=False model.output_dim=6" in out
    again = reopen_experiment(worlds.open_workspace(loaded), "wide", EVALUATION_DAY)
    assert again.need("dssm_model", EVALUATION_DAY).digest == model


def test_faults_of_keys_names_and_days_are_told_together(loaded, capsys):
    arguments = ["--set", "model.pior=true", "--from", DAYS[10], "--to", EVALUATION_DAY]
    status, _, stderr = command(loaded, capsys, "experiment", "regular", *arguments)
    assert status == 1
    assert "ConfigError: 3 faults:" in stderr
    assert "the nearest is model.prior" in stderr
    assert f"dssm-assets materialize total_hit_rate --from {DAYS[10]} --with-upstream" in stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a", "b", "--from", EVALUATION_DAY], "one name"),
        (["a", "--set", "model.dropout=0.5"], "--from"),
        (["adopt", "a", "--set", "model.dropout=0.5"], "a name alone"),
        (["adopt", "unknown"], "none of this name"),
        (["a", "--set", "model.output_dim=8", "--from", EVALUATION_DAY], "a setting that differs from the configuration"),
        (["a", "--set", "model.prior=true", "--from", EVALUATION_DAY], "validation_days is 0"),
        (["a", "--set", "model.frozen_embedding=item", "--from", EVALUATION_DAY], "training.svd_init"),
    ],
)
def test_unusable_arguments_are_one_fault_and_write_nothing(loaded, capsys, arguments, message):
    status, _, stderr = command(loaded, capsys, "experiment", *arguments)
    assert status == 1
    assert message in stderr
    assert not (loaded.home / "tables" / "experiments" / "a").exists()


def test_samples_are_made_again_only_for_settings_that_they_follow(loaded):
    regular = worlds.open_workspace(loaded)
    stored = regular.need("train_samples", EVALUATION_DAY).digest
    changes = [
        {"model.recency_half_life_days": 2.0},
        {"negative_items.alpha": 0.2},
        {"model.prior": True, "training.validation_days": 1},
    ]
    found = [
        open_experiment(regular, Experiment(f"s{number}", change), "dssm_model", EVALUATION_DAY)[0]
        for number, change in enumerate(changes)
    ]
    assert [one.need("train_samples", EVALUATION_DAY).digest != stored for one in found] == [True, True, False]


def test_adopted_settings_are_in_the_configuration_with_its_comments(loaded, capsys):
    text = (
        loaded.path.read_text().replace("seed: 7\n", "seed: 7  # lucky\n").replace("  epochs: 10\n", "  epochs: 10  # enough\n")
    )
    loaded.path.write_text(text)
    status, out, _ = command(loaded, capsys, "experiment", "adopt", "wide")
    assert status == 0
    assert "training.epochs: 1 (was 10)" in out
    assert out.endswith(f"  dssm-assets materialize train_and_evaluate --from {EVALUATION_DAY} --with-upstream\n")
    adopted = loaded.path.read_text()
    assert "seed: 7  # lucky\n" in adopted
    assert "  # experiment wide; was 10\n  epochs: 1   # enough\n" in adopted
    config = load_config(loaded.path, loaded.home).config
    assert (config.model.output_dim, config.training.epochs, config.statistics.embedding_dim) == (6, 1, {"item": 6})
    status, _, stderr = command(loaded, capsys, "experiment", "adopt", "wide")
    assert status == 1
    assert "settings that differ from the configuration, got none" in stderr
    loaded.path.write_text(text)


@pytest.mark.parametrize(
    ("key", "remade"),
    [
        ("model.dropout", ["train_and_evaluate"]),
        ("channels.weights", ["channel_weights", "hit_counts", "hit_rate_detail", "total_hit_rate"]),
        ("evaluation.k", ["hit_counts", "hit_rate_detail", "total_hit_rate"]),
    ],
)
def test_what_follows_an_adoption_leaves_out_what_the_settings_do_not_reach(loaded, key, remade):
    assert Adoption(loaded.path, EVALUATION_DAY, {key: (None, None)}).remade == remade
