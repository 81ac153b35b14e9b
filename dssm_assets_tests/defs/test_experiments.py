"""Experiments in real runs: refused without a name, kept apart with one, tagged, compared; what stands is not touched."""

import json

import dagster as dg
import pytest
import yaml

from dssm_assets.core.config.pipeline import KEYS, parse_config, value_of
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.experiments import Experiment, changed_config
from dssm_assets.definitions import build_definitions
from dssm_assets.defs.experiments import EvaluationSettings, TrainingSettings, experiment_of, form_of
from dssm_assets.defs.runs import QUIET_CONSOLE
from dssm_assets.defs.scene import Scene
from dssm_assets.steps.experiments import open_experiment
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

FAMILY = ["dssm_model", "item_vectors", "user_vectors", "hit_counts", "hit_rate_detail", "total_hit_rate", "experiments"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return worlds.built_world(tmp_path_factory)


def run(loaded, instance, names, settings):
    """Runs assets of the evaluation day with settings: op -> its form."""
    config = {"ops": {op: {"config": form} for op, form in settings.items()}, **QUIET_CONSOLE}
    job = build_definitions(loaded).resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in names]
    return job.execute_in_process(
        instance=instance, run_config=config, asset_selection=keys, partition_key=EVALUATION_DAY, raise_on_error=True
    )


def refused(loaded, names, settings):
    """Returns the faults for which a run is refused."""
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(ConfigError) as error:
        run(loaded, instance, names, settings)
    return [str(fault) for fault in error.value.faults]


@pytest.fixture(scope="module")
def tried(world, tmp_path_factory):
    """Returns (the copy's configuration, its instance, digests before, the run) of an experiment with a hot softmax."""
    loaded = world.copy(tmp_path_factory.mktemp("experiment") / "world")
    instance = dg.DagsterInstance.ephemeral()
    # The standing partitions of the copy are told to its own instance.
    worlds.materialize(loaded, ["dssm_model", "item_vectors"], [EVALUATION_DAY], instance)
    before = worlds.every_digest(open_workspace(loaded))
    settings = {"dssm_model": {"experiment": "hot", "temperature": 5.0, "epochs": 1}, "total_hit_rate": {"k": [3, 10]}}
    return loaded, instance, before, run(loaded, instance, FAMILY, settings)


def metadata(result, name):
    (event,) = result.asset_materializations_for_node(name)
    return event.metadata


def test_a_changed_setting_without_a_name_is_refused_with_both_ways(world):
    (fault,) = refused(world.loaded, ["dssm_model"], {"dssm_model": {"epochs": 3}})
    assert fault == (
        "run settings, training.epochs: expected 10, as configured, or an experiment's name, got 3 without a name. To fix: "
        "either name an `experiment` beside it: its results then lie in experiments/<name> and the standing partition stays; "
        "or set training.epochs in config.yaml and materialize again: the standing partition is then made anew"
    )


def test_every_changed_setting_is_named_at_once(world):
    forms = {"dssm_model": {"learning_rate": 0.5, "num_sample": 1}, "total_hit_rate": {"k": [3]}}
    faults = refused(world.loaded, ["dssm_model", "total_hit_rate"], forms)
    assert [fault.split(": ")[0] for fault in faults] == [
        "run settings, evaluation.k",
        "run settings, model.num_sample",
        "run settings, training.learning_rate",
    ]


def test_a_setting_that_says_what_is_configured_changes_nothing(world, tmp_path):
    loaded = world.copy(tmp_path / "world")
    before = worlds.every_digest(open_workspace(loaded))
    result = run(loaded, dg.DagsterInstance.ephemeral(), ["dssm_model"], {"dssm_model": {"epochs": 10, "temperature": 0.1}})
    assert result.success
    assert "experiment" not in metadata(result, "dssm_model")
    assert worlds.every_digest(open_workspace(loaded)) == before


@pytest.mark.parametrize(
    ("form", "place"),
    [
        ({"epochs": 0}, "dssm_model.epochs"),
        ({"learning_rate": 10.5}, "dssm_model.learning_rate"),
        ({"temperature": 0.0}, "dssm_model.temperature"),
        ({"num_sample": -1}, "dssm_model.num_sample"),
        ({"experiment": "Not a name"}, "dssm_model.experiment"),
        ({"experiment": "standing"}, "experiment"),
    ],
)
def test_bounds_hold_before_anything_runs(world, form, place):
    (fault,) = refused(world.loaded, ["dssm_model"], {"dssm_model": {"experiment": "hot", **form}})
    assert fault.startswith(f"run settings, {place}: expected ")


def test_lists_that_do_not_ascend_are_refused_as_in_the_file(world, tmp_path):
    loaded = world.copy(tmp_path / "world")
    (fault,) = refused(loaded, ["hit_counts"], {"hit_counts": {"experiment": "lists", "k": [10, 3]}})
    assert "k must be positive, ascending and distinct" in fault


def test_two_names_in_one_run_are_refused(world):
    forms = {"dssm_model": {"experiment": "one"}, "item_vectors": {"experiment": "two"}}
    (fault,) = refused(world.loaded, ["dssm_model", "item_vectors"], forms)
    assert "expected one, as elsewhere in the run, got two" in fault


def test_an_asset_that_takes_no_part_is_refused(world, tmp_path):
    loaded = world.copy(tmp_path / "world")
    forms = {"total_hit_rate": {"experiment": "hot"}}
    (fault,) = refused(loaded, ["training_window", "total_hit_rate"], forms)
    assert fault.endswith("got training_window. To fix: take it out of the run")


def test_without_a_standing_partition_there_is_nothing_to_compare_with(world, tmp_path):
    loaded = worlds.write_config(tmp_path / "world")
    (fault,) = refused(loaded, ["dssm_model"], {"dssm_model": {"experiment": "hot", "epochs": 1}})
    assert fault.endswith(f"got none. To fix: dssm-assets materialize dssm_model --from {EVALUATION_DAY}")


def test_what_stands_is_not_touched(tried):
    loaded, _, before, result = tried
    assert result.success
    after = worlds.every_digest(open_workspace(loaded))
    assert {key: digest for key, digest in after.items() if not key.startswith("experiments/")} == {
        key: digest for key, digest in before.items() if not key.startswith("experiments/")
    }


def test_the_experiments_partitions_lie_below_its_name(tried):
    loaded, _, _, result = tried
    root = f"{loaded.root}/experiments/hot"
    for name in FAMILY[:-1]:
        told = metadata(result, name)
        assert told["dagster/uri"].value == f"{root}/{name}/ds={EVALUATION_DAY}"
    standing = open_workspace(loaded)
    figures = metadata(result, "dssm_model")["experiment_figures"].value
    assert figures["bytes"] > 0
    assert metadata(result, "dssm_model")["digest"].value != standing.need("dssm_model", EVALUATION_DAY).digest


def test_the_run_and_every_materialization_say_what_was_changed(tried):
    _, instance, _, result = tried
    changed = "evaluation.k=[3, 10] model.temperature=5.0 training.epochs=1"
    tags = instance.get_run_by_id(result.run_id).tags
    assert (tags["dssm/experiment"], tags["dssm/changed"]) == ("hot", changed)
    for name in FAMILY[:-1]:
        told = metadata(result, name)
        assert (told["experiment"].value, told["changed"].value) == ("hot", changed)
        assert next(iter(told)) == "experiment"


def test_no_figure_of_an_experiment_is_drawn_among_the_standing_ones(tried):
    _, _, _, result = tried
    told = metadata(result, "total_hit_rate")
    assert [key for key, value in told.items() if isinstance(value, (dg.IntMetadataValue, dg.FloatMetadataValue))] == []
    assert 0 <= told["experiment_figures"].value["hit_rate@10"] <= 1


def test_what_was_trained_is_what_is_told(tried):
    loaded, _, _, _ = tried
    workspace, known = open_experiment(open_workspace(loaded), Experiment("hot", {}), "total_hit_rate", EVALUATION_DAY)
    manifest = workspace.need("training_config", EVALUATION_DAY)
    document = yaml.safe_load(workspace.artifacts.read_bytes(manifest, "training_config.yaml"))
    assert (document["training"]["epochs"], document["model"]["temperature"]) == (1, 5.0)
    assert known.changes == {"training.epochs": 1, "model.temperature": 5.0, "evaluation.k": [3, 10]}
    losses = json.loads(workspace.artifacts.read_bytes(workspace.need("dssm_model", EVALUATION_DAY), "loss_by_step.json"))
    standing = open_workspace(loaded)
    steps = json.loads(standing.artifacts.read_bytes(standing.need("dssm_model", EVALUATION_DAY), "loss_by_step.json"))
    assert len(steps) == 10 * len(losses)


def test_its_engine_keeps_to_the_duckdb_section(world, tmp_path):
    section = {"memory": "300MB", "threads": 1, "scratch": "{home}/spilled"}
    standing = open_workspace(world.copy(tmp_path / "world", {"duckdb": section}))
    workspace, _ = open_experiment(standing, Experiment("cold", {"training.epochs": 3}), "total_hit_rate", EVALUATION_DAY)
    engine = workspace.engine
    assert (engine.memory, engine.threads, engine.scratch) == ("300MB", 1, standing.loaded.home / "spilled")
    assert engine.store is workspace.tables


def test_a_later_run_of_the_name_goes_on_with_its_settings(tried):
    loaded, instance, _, _ = tried
    result = run(loaded, instance, ["total_hit_rate"], {"total_hit_rate": {"experiment": "hot"}})
    assert "training.epochs=1" in metadata(result, "total_hit_rate")["changed"].value


def test_the_table_puts_it_beside_what_stands(tried):
    loaded, _, _, result = tried
    workspace = open_workspace(loaded)
    rows = workspace.tables.read(workspace.need("experiments", EVALUATION_DAY)).to_pylist()
    cells = {(row["experiment"], row["scope"], row["k"]): row for row in rows}
    # k of the configuration is 5 and 10, of the experiment 3 and 10: only at 10 can they be compared.
    assert {(name, k) for name, scope, k in cells if scope == "all"} == {
        ("standing", 5),
        ("standing", 10),
        ("hot", 3),
        ("hot", 10),
    }
    standing, hot = cells["standing", "all", 10], cells["hot", "all", 10]
    assert (standing["hit_rate"], standing["changed"], standing["gain"]) == (1.0, "", 0.0)
    assert hot["gain"] == pytest.approx(hot["hit_rate"] - 1.0)
    assert cells["hot", "all", 3]["gain"] is None
    assert hot["changed"] == "evaluation.k=[3, 10] model.temperature=5.0 training.epochs=1"
    assert "| hot | evaluation.k=[3, 10] model" in metadata(result, "experiments")["report"].value


def test_nothing_behind_becomes_stale(tried):
    _, instance, _, _ = tried
    records = instance.fetch_materializations(dg.AssetKey("dssm_model"), limit=2).records
    first, second = (record.event_log_entry.asset_materialization.tags["dagster/data_version"] for record in records)
    assert first == second
    assert records[0].asset_materialization.metadata["experiment"].value == "hot"


def test_checks_of_an_experiment_warn_and_say_whose_they_are(tried):
    _, _, _, result = tried
    found = {
        check.check_name: check
        for check in result.get_asset_check_evaluations()
        if check.asset_key.path[-1] == "total_hit_rate"
    }
    gate = found["hit_rate_gate"]
    assert gate.severity is dg.AssetCheckSeverity.WARN
    assert gate.description.startswith(f"experiment hot: {EVALUATION_DAY}: ")


def test_the_form_comes_filled_in_and_says_nothing_until_it_is_changed(world):
    scene = Scene(world.loaded)
    training, k = form_of(TrainingSettings, scene), form_of(EvaluationSettings, scene)
    filled = {name: field.default_value for name, field in training.config_type.fields.items()}
    assert filled == {"experiment": "", "epochs": 10, "learning_rate": 0.001, "temperature": 0.1, "num_sample": 16}
    assert all(field.description for field in training.config_type.fields.values())
    assert k.config_type.fields["k"].default_value == [5, 10]
    both = {"experiment": "", "k": [5, 10]}
    forms = {"dssm_model": filled, "hit_counts": both, "hit_rate_detail": both, "total_hit_rate": both}
    assert experiment_of({"ops": {op: {"config": form} for op, form in forms.items()}}, scene) is None
    forms |= {"dssm_model": filled | {"experiment": "hot", "epochs": 1}, "hit_counts": {**both, "k": [3, 10]}}
    found = experiment_of({"ops": {op: {"config": form} for op, form in forms.items()}}, scene)
    assert found == Experiment("hot", {"training.epochs": 1, "evaluation.k": [3, 10]})


def test_every_setting_changes_the_configuration_that_is_trained_and_scored():
    config = parse_config(worlds.CONFIG)
    values = {"epochs": 3, "learning_rate": 0.5, "temperature": 0.7, "num_sample": 5, "k": [7]}
    assert set(values) == set(KEYS)
    for setting, value in values.items():
        changed = changed_config(config, {KEYS[setting]: value})
        assert value_of(changed, KEYS[setting]) == value != value_of(config, KEYS[setting])
