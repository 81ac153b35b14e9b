"""What Dagster's runs of given models and hit rates leave in MLflow's own store, in a file; and MLflow that is away."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from dataclasses import dataclass, field, replace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from dssm_assets.core.errors import ConfigError
from dssm_assets.core.evaluation.evaluation_tables import TOTAL_HIT_RATE
from dssm_assets.core.evaluation.rates import TOTAL_SCHEMA
from dssm_assets.core.file_names import ModelFile
from dssm_assets.defs.asset_factory import Observer, build_asset
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.scene import Scene
from dssm_assets.extras.mlflow_runs.hooks import VARIABLES, set_variables
from dssm_assets.steps.workspace import StepResult, each_day, open_workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets.storage.overlay import OverlayStore
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY, LocalStep

WARM = "hit_rate_10_warm/model"


@dataclass
class World(Observer):
    loaded: LoadedConfig
    instance: dg.DagsterInstance
    client: Any
    lines: list[str] = field(default_factory=list)

    def on_log(self, text):
        self.lines.append(text)

    def materialize(self, step):
        """Makes the asset of the step's name; returns the id of the run in Dagster, and the metadata mlflow_run, None if there is none."""
        row = next(row for row in all_rows() if row.name == step.__name__)
        own = replace(row, step=LocalStep("tests", row.name, each_day(step)), deps=(), checks=())
        asset = build_asset(own, Scene(self.loaded), self)
        run = dg.materialize([asset], partition_key=EVALUATION_DAY, instance=self.instance)
        (event,) = run.asset_materializations_for_node(row.name)
        return run.run_id, event.metadata.get("mlflow_run")

    def runs(self):
        return self.client.search_runs([self.client.get_experiment_by_name(self.loaded.config.name).experiment_id])

    def history(self, run, name):
        return [(metric.step, metric.value) for metric in self.client.get_metric_history(run.info.run_id, name)]

    def at(self, uri):
        changes = {"name": self.loaded.config.name, "platform": {"mlflow_uri": uri}}
        return replace(self, loaded=worlds.write_config(self.loaded.path.parent, changes))


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """MLflow's store takes two seconds to make."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    with set_variables():
        from mlflow import MlflowClient
    with dg.DagsterInstance.ephemeral() as instance:
        yield uri, instance, MlflowClient(uri)


@pytest.fixture
def world(tmp_path, servers) -> World:
    uri, instance, client = servers
    return World(worlds.write_config(tmp_path, {"name": tmp_path.name, "platform": {"mlflow_uri": uri}}), instance, client)


def fit(losses=(9.0, 8.0, 7.0, 3.0, 2.0, 1.0), scores=(), refit=True):
    """Returns a step that makes a model of two epochs; with scores, the second of three was the best."""

    def dssm_model(workspace, ds):
        configuration = {"model": {"similarity": "COSINE"}, "training": {"refit": refit, "epochs": 3}}
        report = {"epochs": 2, "samples": 1234, "validation_hit_rate": scores, "configuration": configuration}
        files = {ModelFile.REPORT: json.dumps(report).encode(), ModelFile.LOSSES: json.dumps(losses).encode()}
        return StepResult(workspace.artifacts.publish("dssm_model", ds, files, facts={"seed": 7}), {"seconds": 2.5})

    return dssm_model


def score(hit_rate=0.25, of_model=None):
    """Returns a step that makes hit rates of the stored model, or of the model with another digest."""

    def total_hit_rate(workspace, ds):
        model = workspace.need("dssm_model", ds)
        inputs = {model.key: of_model or model.digest}
        for name in ("item_vectors", "hit_counts"):
            made = workspace.artifacts.publish(name, ds, {"content": json.dumps(inputs).encode()}, inputs=inputs)
            inputs = {made.key: made.digest}
        cells = [("model", "warm", 10, hit_rate), ("model", "all", 10, 0.125), ("model", "warm", 5, 0.0)]
        cells += [("popularity", "warm", 10, 0.2), ("channel_popular", "warm", 10, 0.0)]
        other = [0.0] * (len(TOTAL_SCHEMA) - 5)
        rows = [(scorer, "all", *cell, *other) for scorer, *cell in cells]
        table = pa.Table.from_pylist([dict(zip(TOTAL_SCHEMA.names, row, strict=True)) for row in rows], TOTAL_SCHEMA)
        return StepResult(workspace.tables.write(TOTAL_HIT_RATE, ds, table, inputs=inputs))

    return total_hit_rate


def test_fit_is_a_run_and_gets_the_hit_rates_of_its_day(world):
    (fitted, link), (scored, same_link) = world.materialize(fit()), world.materialize(score())
    (run,) = world.runs()
    assert link.value == same_link.value == run.info.run_id
    assert (run.info.run_name, run.info.status) == (f"{EVALUATION_DAY} regular", "FINISHED")
    assert run.info.end_time - run.info.start_time >= 2500
    assert {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")} == {
        "dssm.day": EVALUATION_DAY,
        "dssm.model": open_workspace(world.loaded).need("dssm_model", EVALUATION_DAY).digest,
        "dssm.experiment": "regular",
        "dagster.dssm_model": fitted,
        "dagster.total_hit_rate": scored,
    }
    settings = {"model.similarity": "COSINE", "training.refit": "True", "training.epochs": "3"}
    assert run.data.params == {"seed": "7", "samples": "1234", **settings}
    assert world.history(run, "loss") == [(1, 8.0), (2, 2.0)]
    rates = {WARM: 0.25, "hit_rate_10_all/model": 0.125, "hit_rate_10_warm/popularity": 0.2}
    assert run.data.metrics == {"loss": 2.0, **rates}


@pytest.mark.parametrize(("refit", "losses"), [(True, [8.0, 2.0]), (False, [8.5, 5.0, 1.5])])
def test_search_has_a_score_for_each_epoch_and_the_loss_of_the_towers_that_are_kept(world, refit, losses):
    world.materialize(fit(scores=(0.1, 0.3, 0.2), refit=refit))
    (run,) = world.runs()
    assert world.history(run, "loss") == list(enumerate(losses, 1))
    assert world.history(run, "validation_hit_rate") == [(1, 0.1), (2, 0.3), (3, 0.2)]


def test_model_that_is_made_again_has_one_run_with_the_newest_hit_rates(world):
    world.materialize(fit())
    world.materialize(score(0.5))
    (before,) = world.runs()
    (fitted, _), (scored, _) = world.materialize(fit()), world.materialize(score(0.25))
    (run,) = world.runs()
    assert run.info.end_time == before.info.end_time
    assert (run.data.tags["dagster.dssm_model"], run.data.tags["dagster.total_hit_rate"]) == (fitted, scored)
    assert run.data.metrics[WARM] == 0.25
    assert world.history(run, "loss") == [(1, 8.0), (2, 2.0)]


def test_other_models_and_experiments_have_runs_of_their_own(world, monkeypatch):
    world.materialize(fit())
    world.materialize(fit(losses=(5.0, 4.0)))
    regular = open_workspace(world.loaded)
    hot = regular.over(world.loaded, OverlayStore(regular.tables.partitions, "hot"))
    monkeypatch.setattr(Scene, "open_workspace", lambda scene, log: hot)
    world.materialize(fit())
    runs = {(run.data.tags["dssm.experiment"], run.info.run_name, run.data.metrics["loss"]) for run in world.runs()}
    name = f"{EVALUATION_DAY} regular"
    assert runs == {("regular", name, 2.0), ("regular", name, 4.0), ("hot", f"{EVALUATION_DAY} hot", 2.0)}


def test_hit_rates_make_or_complete_the_run_of_their_model(world):
    world.materialize(fit())
    (before,) = world.runs()
    tags = {name: value for name, value in before.data.tags.items() if name.startswith("dssm.")}
    for is_begun in (False, True):
        for run in world.runs():
            world.client.delete_run(run.info.run_id)
        if is_begun:  # the server went away after its first answer
            world.client.create_run(before.info.experiment_id, tags=tags)
        world.materialize(score())
        (run,) = world.runs()
        assert (run.info.status, run.data.params) == ("FINISHED", before.data.params)
        assert before.data.metrics.items() < run.data.metrics.items()


def test_hit_rates_of_another_model_are_not_logged(world):
    world.materialize(fit())
    assert world.materialize(score(of_model="0" * 64))[1] is None
    assert WARM not in world.runs()[0].data.metrics
    assert any("not logged to MLflow: ProvenanceError" in line and "input dssm_model/" in line for line in world.lines)


def test_server_has_a_page_for_each_run_and_gets_short_requests(world, monkeypatch):
    during = {}
    monkeypatch.setattr("mlflow.MlflowClient", lambda uri: during.update(os.environ) or world.client)
    link = world.at("https://mlflow.example/team/").materialize(fit())[1]
    (run,) = world.runs()
    page = f"https://mlflow.example/team/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    assert link == dg.MetadataValue.url(page)
    assert VARIABLES.items() <= during.items()
    assert not VARIABLES.keys() & os.environ.keys()


@pytest.mark.parametrize("is_listening", [True, False], ids=["silent", "down"])
def test_fit_succeeds_without_its_server_and_says_so(world, is_listening, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    begin = time.monotonic()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_listening:
            server.listen()
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        assert world.at(address).materialize(fit())[1] is None
    assert time.monotonic() - begin < 10
    (line,) = [text for text in world.lines if "MLflow" in text]
    assert f"stored, but not logged to MLflow: MlflowException: API request to {address}" in line


def test_mlflow_is_needed_with_the_key_alone(world, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"platform.mlflow_uri: expected the package mlflow-skinny.*dssm-assets\[mlflow\]"):
        world.materialize(fit())
    assert open_workspace(world.loaded).find("dssm_model", EVALUATION_DAY) is None, "it fails before the fit"
    assert world.at(None).materialize(fit())[1] is None


@pytest.mark.slow
def test_real_model_and_its_hit_rates(tmp_path, tmp_path_factory):
    from mlflow import MlflowClient

    changes = {"platform": {"mlflow_uri": "sqlite:///{home}/mlflow.db"}}
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world", changes)
    with dg.DagsterInstance.ephemeral() as instance:
        worlds.materialize(loaded, ["dssm_model", "total_hit_rate"], [EVALUATION_DAY], instance)
        world = World(loaded, instance, MlflowClient(f"sqlite:///{loaded.home}/mlflow.db"))
    (run,) = world.runs()
    assert run.data.params["training.batch_size"] == "32"
    assert [step for step, _ in world.history(run, "loss")] == list(range(1, 11))
    assert {"loss", WARM} <= run.data.metrics.keys()
