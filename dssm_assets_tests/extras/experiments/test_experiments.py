"""Experiments in real runs: refused without a name; stored apart, tagged and compared with one; regular partitions unchanged."""

import json

import dagster as dg
import pytest
import yaml

from dssm_assets.core.errors import ConfigError
from dssm_assets.definitions import build_definitions
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.runs import QUIET_CONSOLE
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.experiments.experiments import Experiment, open_experiment
from dssm_assets.extras.experiments.forms import settings_form
from dssm_assets.extras.experiments.runs import requested_experiment
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

EXPERIMENT_ASSETS = [
    "dssm_model",
    "item_vectors",
    "user_vectors",
    "hit_counts",
    "hit_rate_detail",
    "total_hit_rate",
    "experiments",
]


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


def run_refused(loaded, names, settings):
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(ConfigError) as error:
        run(loaded, instance, names, settings)
    return [str(fault) for fault in error.value.faults]


@pytest.fixture(scope="module")
def experiment(world, tmp_path_factory):
    """Returns (configuration, instance, digests before, run) of an experiment with a high temperature, in a copy of the world."""
    loaded = world.copy(tmp_path_factory.mktemp("experiment") / "world")
    instance = dg.DagsterInstance.ephemeral()
    # The copy has an instance of its own, which must know the regular partitions too.
    worlds.materialize(loaded, ["dssm_model", "item_vectors"], [EVALUATION_DAY], instance)
    before = worlds.every_digest(open_workspace(loaded))
    settings = {"dssm_model": {"experiment": "hot", "temperature": 5.0, "epochs": 1}, "total_hit_rate": {"k": [3, 10]}}
    return loaded, instance, before, run(loaded, instance, EXPERIMENT_ASSETS, settings)


def metadata(result, name):
    (event,) = result.asset_materializations_for_node(name)
    return event.metadata


def test_changed_setting_without_name_is_refused_with_both_remedies(world):
    (fault,) = run_refused(world.loaded, ["dssm_model"], {"dssm_model": {"epochs": 3}})
    assert fault == (
        "run settings, training.epochs: expected 10, as configured, or an experiment's name, got 3 without a name. To fix: "
        "either enter a name as `experiment`: the results go to experiments/<name> and the regular partition does not change; "
        "or set training.epochs in config.yaml and materialize again: that replaces the regular partition"
    )


def test_all_changed_settings_are_named_at_once(world):
    forms = {"dssm_model": {"learning_rate": 0.5, "num_sample": 1}, "total_hit_rate": {"k": [3]}}
    faults = run_refused(world.loaded, ["dssm_model", "total_hit_rate"], forms)
    assert [fault.split(": ")[0] for fault in faults] == [
        "run settings, evaluation.k",
        "run settings, model.num_sample",
        "run settings, training.learning_rate",
    ]


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ({"epochs": 0}, "key training.epochs"),
        ({"learning_rate": 10.5}, "key training.learning_rate"),
        ({"temperature": 0.0}, "key model.temperature"),
        ({"num_sample": -1}, "key model.num_sample"),
        ({"experiment": "Not a name"}, "experiment"),
        ({"experiment": "regular"}, "experiment"),
    ],
)
def test_settings_out_of_bounds_are_refused(world, form, where):
    (fault,) = run_refused(world.loaded, ["dssm_model"], {"dssm_model": {"experiment": "hot", **form}})
    assert fault.startswith(f"run settings, {where}: expected ")


def test_two_names_in_one_run_are_refused(world):
    forms = {"dssm_model": {"experiment": "one"}, "item_vectors": {"experiment": "two"}}
    (fault,) = run_refused(world.loaded, ["dssm_model", "item_vectors"], forms)
    assert "expected one, as elsewhere in the run, got two" in fault


def test_asset_without_settings_is_refused_in_an_experiment(world, tmp_path):
    loaded = world.copy(tmp_path / "world")
    forms = {"total_hit_rate": {"experiment": "hot"}}
    (fault,) = run_refused(loaded, ["training_window", "total_hit_rate"], forms)
    assert fault.endswith("got training_window. To fix: remove it from the run")


def test_experiment_without_a_regular_partition_is_refused(world, tmp_path):
    loaded = worlds.write_config(tmp_path / "world")
    (fault,) = run_refused(loaded, ["dssm_model"], {"dssm_model": {"experiment": "hot", "epochs": 1}})
    assert fault.endswith(f"run dssm-assets materialize dssm_model --from {EVALUATION_DAY} --with-upstream")


def test_regular_partitions_do_not_change(experiment):
    loaded, _, before, result = experiment
    assert result.success
    after = worlds.every_digest(open_workspace(loaded))
    assert {key: digest for key, digest in after.items() if not key.startswith("experiments/")} == {
        key: digest for key, digest in before.items() if not key.startswith("experiments/")
    }


def test_partitions_of_an_experiment_are_stored_under_its_name(experiment):
    loaded, _, _, result = experiment
    root = f"{loaded.root}/experiments/hot"
    for name in EXPERIMENT_ASSETS[:-1]:
        found = metadata(result, name)
        assert found["dagster/uri"].value == f"{root}/{name}/ds={EVALUATION_DAY}"
    regular = open_workspace(loaded)
    figures = metadata(result, "dssm_model")["experiment_figures"].value
    assert figures["seconds"] >= 0
    assert metadata(result, "dssm_model")["size"].value
    assert metadata(result, "dssm_model")["digest"].value != regular.need("dssm_model", EVALUATION_DAY).digest


def test_run_tags_and_metadata_name_the_changes(experiment):
    _, instance, _, result = experiment
    changed = "evaluation.k=[3, 10] model.temperature=5.0 training.epochs=1"
    tags = instance.get_run_by_id(result.run_id).tags
    assert (tags["dssm/experiment"], tags["dssm/changed"]) == ("hot", changed)
    for name in EXPERIMENT_ASSETS[:-1]:
        found = metadata(result, name)
        assert (found["experiment"].value, found["changed"].value) == ("hot", changed)
        assert next(iter(found)) == "experiment"


def test_figures_of_an_experiment_are_not_numeric_metadata(experiment):
    _, _, _, result = experiment
    found = metadata(result, "total_hit_rate")
    assert [key for key, value in found.items() if isinstance(value, (dg.IntMetadataValue, dg.FloatMetadataValue))] == []
    assert 0 <= found["experiment_figures"].value["hit_rate@10"] <= 1


def test_stored_training_config_is_the_trained_one(experiment):
    loaded, _, _, _ = experiment
    workspace, known = open_experiment(open_workspace(loaded), Experiment("hot", {}), "total_hit_rate", EVALUATION_DAY)
    manifest = workspace.need("training_config", EVALUATION_DAY)
    document = yaml.safe_load(workspace.artifacts.read_bytes(manifest, "training_config.yaml"))
    assert (document["training"]["epochs"], document["model"]["temperature"]) == (1, 5.0)
    assert known.changes == {"training.epochs": 1, "model.temperature": 5.0, "evaluation.k": [3, 10]}
    losses = json.loads(workspace.artifacts.read_bytes(workspace.need("dssm_model", EVALUATION_DAY), "loss_by_step.json"))
    regular = open_workspace(loaded)
    steps = json.loads(regular.artifacts.read_bytes(regular.need("dssm_model", EVALUATION_DAY), "loss_by_step.json"))
    assert len(steps) == 10 * len(losses)


def test_engine_of_an_experiment_uses_the_duckdb_section(world, tmp_path):
    section = {"memory": "300MB", "threads": 1, "scratch": "{home}/spilled"}
    regular = open_workspace(world.copy(tmp_path / "world", {"duckdb": section}))
    workspace, _ = open_experiment(regular, Experiment("cold", {"training.epochs": 3}), "total_hit_rate", EVALUATION_DAY)
    engine = workspace.engine
    assert (engine.memory, engine.threads, engine.scratch) == ("300MB", 1, regular.loaded.home / "spilled")
    assert engine.store is workspace.tables


def test_later_run_of_the_same_name_keeps_its_settings(experiment):
    loaded, instance, _, _ = experiment
    result = run(loaded, instance, ["total_hit_rate"], {"total_hit_rate": {"experiment": "hot"}})
    assert "training.epochs=1" in metadata(result, "total_hit_rate")["changed"].value


def test_table_compares_the_experiment_with_the_regular_run(experiment):
    loaded, _, _, result = experiment
    workspace = open_workspace(loaded)
    rows = workspace.tables.read(workspace.need("experiments", EVALUATION_DAY)).to_pylist()
    cells = {(row["experiment"], row["scope"], row["k"]): row for row in rows if row["scorer"] == "model"}
    # k of the configuration is 5 and 10, of the experiment 3 and 10: only k = 10 can be compared.
    assert {(name, k) for name, scope, k in cells if scope == "all"} == {
        ("regular", 5),
        ("regular", 10),
        ("hot", 3),
        ("hot", 10),
    }
    regular, hot = cells["regular", "all", 10], cells["hot", "all", 10]
    assert (regular["hit_rate"], regular["changed"], regular["gain"]) == (1.0, "", 0.0)
    assert hot["gain"] == pytest.approx(hot["hit_rate"] - 1.0)
    assert hot["gain_low"] <= hot["gain"] <= hot["gain_high"] <= 0
    assert {row["scorer"] for row in rows} == {"model", "merged"}
    assert cells["hot", "all", 3]["gain"] is None
    assert hot["changed"] == "evaluation.k=[3, 10] model.temperature=5.0 training.epochs=1"
    assert "| hot | evaluation.k=[3, 10] model" in metadata(result, "experiments")["report"].value


def test_experiment_makes_no_downstream_asset_stale(experiment):
    _, instance, _, _ = experiment
    records = instance.fetch_materializations(dg.AssetKey("dssm_model"), limit=2).records
    first, second = (record.event_log_entry.asset_materialization.tags["dagster/data_version"] for record in records)
    assert first == second
    assert records[0].asset_materialization.metadata["experiment"].value == "hot"


def test_checks_of_an_experiment_only_warn_and_name_it(experiment):
    _, _, _, result = experiment
    found = {
        check.check_name: check
        for check in result.get_asset_check_evaluations()
        if check.asset_key.path[-1] == "total_hit_rate"
    }
    gate = found["hit_rate_gate"]
    assert gate.severity is dg.AssetCheckSeverity.WARN
    assert gate.description.startswith(f"experiment hot: {EVALUATION_DAY}: ")


def test_form_is_pre_filled_and_asks_for_nothing_until_changed(world):
    scene = Scene(world.loaded)
    rows = {row.name: row for row in all_rows()}
    training, k = (settings_form(rows[name], scene) for name in ("dssm_model", "total_hit_rate"))
    filled = {name: field.default_value for name, field in training.config_type.fields.items()}
    numbers = {"epochs": 10, "learning_rate": 0.001, "temperature": 0.1, "num_sample": 16, "output_dim": 8}
    others = {"embedding_dropout": 0.0, "prior": False, "validation_days": 0}
    assert filled == {"experiment": "", "changes": {}, **numbers, **others}
    assert all(field.description for field in training.config_type.fields.values())
    assert k.config_type.fields["k"].default_value == [5, 10]
    both = {"experiment": "", "k": [5, 10]}
    forms = {"dssm_model": filled, "hit_counts": both, "hit_rate_detail": both, "total_hit_rate": both}
    assert requested_experiment({"ops": {op: {"config": form} for op, form in forms.items()}}, scene) is None
    widths = {"changes": {"statistics.embedding_dim.item": 6}}
    forms |= {"dssm_model": filled | {"experiment": "hot", "epochs": 1} | widths, "hit_counts": {**both, "k": [3, 10]}}
    found = requested_experiment({"ops": {op: {"config": form} for op, form in forms.items()}}, scene)
    changes = {"training.epochs": 1, "evaluation.k": [3, 10], "statistics.embedding_dim": {"item": 6}}
    assert found == Experiment("hot", changes)
