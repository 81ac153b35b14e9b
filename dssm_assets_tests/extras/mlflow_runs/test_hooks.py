"""Runs of Dagster in MLflow's own store, in a file: what a fit leaves there, what hit rates add, and MLflow that is away or not installed."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import dagster as dg
import pytest

from dssm_assets.core.errors import ConfigError, ProvenanceError
from dssm_assets.core.file_names import ModelFile
from dssm_assets.extras.mlflow_runs import tracking
from dssm_assets.extras.mlflow_runs.model_runs import log_fit, log_hit_rates
from dssm_assets.extras.mlflow_runs.tracking import open_tracking
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.overlay import OverlayStore
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import EVALUATION_DAY

FILE = "sqlite:///{home}/mlflow.db"
FIT, RATES = "dssm_model", "total_hit_rate"


class World:
    """A built world whose runs MLflow gets."""

    def __init__(self, loaded):
        self.loaded, self.workspace = loaded, open_workspace(loaded)
        self.uri = FILE.replace("{home}", str(loaded.home))

    def materialize(self, *names):
        """Returns the id of the run in Dagster, and the MLflow run that its asset names, or None."""
        with dg.DagsterInstance.ephemeral() as instance:
            worlds.materialize(self.loaded, names, [EVALUATION_DAY], instance)
            (event,) = instance.fetch_materializations(dg.AssetKey(names[-1]), limit=1).records
        link = event.asset_materialization.metadata.get("mlflow_run")
        return event.run_id, None if link is None else link.value

    def open(self):
        return open_tracking(self.uri, "tiny")

    def runs(self):
        with self.open() as opened:
            return opened.client.search_runs([opened.experiment_id])


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    built = worlds.built_world(tmp_path_factory)
    return World(built.copy(tmp_path_factory.mktemp("mlflow") / "world", {"platform": {"mlflow_uri": FILE}}))


@pytest.fixture(scope="module")
def fitted(world):
    """Returns the id of the run in Dagster, and of the run in MLflow, of a fit and of the hit rates after it."""
    return [*world.materialize(FIT), *world.materialize(RATES)]


def read(world, name):
    return json.loads(world.workspace.artifacts.read_bytes(world.workspace.need(FIT, EVALUATION_DAY), name))


def test_fit_is_a_run_that_says_what_it_is_of(world, fitted):
    (run,) = world.runs()
    assert (run.info.run_name, run.info.status, run.info.run_id) == (EVALUATION_DAY, "FINISHED", fitted[1])
    assert run.info.end_time >= run.info.start_time
    own = {name: value for name, value in run.data.tags.items() if not name.startswith("mlflow.")}
    assert own.pop("dssm.version")
    assert own == {
        "dssm.day": EVALUATION_DAY,
        "dssm.model": world.workspace.need(FIT, EVALUATION_DAY).digest,
        "dssm.experiment": "regular",
        "dagster.dssm_model": fitted[0],
        "dagster.total_hit_rate": fitted[2],
    }
    expected = {"seed": "7", "window.days": "6", "training.epochs": "10", "training.batch_size": "32", "model.output_dim": "8"}
    assert {name: run.data.params[name] for name in expected} == expected
    assert int(run.data.params["features.user"]) >= 1


def test_each_epoch_has_its_loss(world, fitted):
    losses = read(world, ModelFile.LOSSES)
    steps = len(losses) // 10
    with world.open() as opened:
        history = opened.client.get_metric_history(fitted[1], "loss")
    means = [sum(losses[epoch * steps : (epoch + 1) * steps]) / steps for epoch in range(10)]
    assert [metric.step for metric in history] == list(range(1, 11))
    assert [metric.value for metric in history] == pytest.approx(means)


def test_hit_rates_are_added_to_the_run_of_their_model(world, fitted):
    assert fitted[3] == fitted[1]
    rows = world.workspace.tables.read(world.workspace.need(RATES, EVALUATION_DAY)).to_pylist()
    (rate,) = [
        row["hit_rate"]
        for row in rows
        if (row["scorer"], row["scope"], row["population"], row["k"]) == ("model", "all", "warm", 10)
    ]
    (run,) = world.runs()
    assert run.data.metrics["hit_rate_10_warm/vectors"] == rate
    assert {"hit_rate_10_warm/popularity", "hit_rate_10_all/vectors", "hit_rate_10_all/merged"} <= set(run.data.metrics)


def test_what_is_made_again_stays_one_run_with_the_newest_hit_rates(world, fitted):
    (before,) = world.runs()
    name = "hit_rate_10_warm/vectors"
    with world.open() as opened:
        opened.client.log_metric(fitted[1], name, 2.0)  # higher, and older
    time.sleep(0.002)
    again = [*world.materialize(FIT), *world.materialize(RATES)]
    (run,) = world.runs()
    assert (again[1], again[3]) == (fitted[1], fitted[1])
    assert run.data.metrics == before.data.metrics
    assert run.data.params == before.data.params
    assert (run.data.tags["dagster.dssm_model"], run.data.tags["dagster.total_hit_rate"]) == (again[0], again[2])
    with world.open() as opened:
        assert len(opened.client.get_metric_history(fitted[1], "loss")) == 10


@pytest.fixture
def without_runs(world, fitted) -> Iterator[World]:
    """Deletes the runs until the end of the test."""
    deleted = world.runs()
    with world.open() as opened:
        for run in deleted:
            opened.client.delete_run(run.info.run_id)
        yield world
        for run in world.runs():
            opened.client.delete_run(run.info.run_id)
        for run in deleted:
            opened.client.restore_run(run.info.run_id)


def test_hit_rates_whose_model_has_no_run_make_it(without_runs, fitted):
    world = without_runs
    _, run_id = world.materialize(RATES)
    (run,) = world.runs()
    assert run.info.run_id == run_id != fitted[1]
    assert run.info.status == "FINISHED"
    assert {"loss", "hit_rate_10_warm/vectors"} <= set(run.data.metrics)
    assert run.data.params["training.epochs"] == "10"


def test_run_that_lost_its_server_is_completed(without_runs):
    world = without_runs
    model = world.workspace.need(FIT, EVALUATION_DAY)
    with world.open() as opened:
        tags = {"dssm.day": EVALUATION_DAY, "dssm.model": model.digest, "dssm.experiment": "regular"}
        begun = opened.client.create_run(opened.experiment_id, tags=tags)
    _, run_id = world.materialize(RATES)
    (run,) = world.runs()
    assert run_id == run.info.run_id == begun.info.run_id
    assert run.info.status == "FINISHED"
    assert {"loss", "hit_rate_10_warm/vectors"} <= set(run.data.metrics)


def test_experiments_have_runs_of_their_own(without_runs):
    world = without_runs
    hot = world.workspace.over(world.loaded, OverlayStore(world.workspace.tables.partitions, "hot"))
    with world.open() as opened:
        for workspace in (world.workspace, hot):
            log_fit(opened, workspace, workspace.need(FIT, EVALUATION_DAY), 1_700_000_002_000, seconds=2.0)
            log_hit_rates(opened, workspace, workspace.need(RATES, EVALUATION_DAY), 1_700_000_003_000)
    names = {run.data.tags["dssm.experiment"]: run.info.run_name for run in world.runs()}
    assert names == {"regular": EVALUATION_DAY, "hot": f"{EVALUATION_DAY} hot"}
    assert {(run.info.start_time, run.info.end_time) for run in world.runs()} == {(1_700_000_000_000, 1_700_000_002_000)}


def test_hit_rates_of_inputs_that_are_gone_are_of_no_run(world, fitted):
    rates = world.workspace.need(RATES, EVALUATION_DAY)
    other = dataclasses.replace(rates, inputs={**rates.inputs, f"hit_counts/{EVALUATION_DAY}": "0" * 64})
    with world.open() as opened, pytest.raises(ProvenanceError, match=f"total_hit_rate/{EVALUATION_DAY}, input hit_counts"):
        log_hit_rates(opened, world.workspace, other, 0)


def test_global_state_of_mlflow_stays(world, fitted):
    import mlflow

    address = mlflow.get_tracking_uri()
    with world.open():
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"
    assert not set(tracking.SETTINGS) & set(os.environ)
    assert mlflow.get_tracking_uri() == address
    assert mlflow.active_run() is None


def at(world, uri):
    """Returns the world with another address of MLflow."""
    platform = world.loaded.config.platform.model_copy(update={"mlflow_uri": uri})
    config = world.loaded.config.model_copy(update={"platform": platform})
    return World(dataclasses.replace(world.loaded, config=config))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@pytest.mark.parametrize("answers", [False, True], ids=["down", "silent"])
def test_fit_succeeds_without_its_server_and_says_so(world, fitted, silent_port, answers, monkeypatch):
    assert int(tracking.SETTINGS["MLFLOW_HTTP_REQUEST_TIMEOUT"]) <= 5
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # nothing listens
        port = silent_port if answers else free.getsockname()[1]
        away = at(world, f"http://127.0.0.1:{port}")
        logged: list[str] = []
        monkeypatch.setattr(dg.DagsterLogManager, "info", lambda self, text, *_: logged.append(text))
        begin = time.monotonic()
        assert away.materialize(FIT)[1] is None
        assert time.monotonic() - begin < 10
    (line,) = [text for text in logged if "MLflow" in text]
    assert line.startswith("stored, but not logged to MLflow: MlflowException: API request to http://127.0.0.1:")
    assert "\n" not in line


def test_without_the_library_a_run_fails_before_it_works(world, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # as if it were not installed
    with pytest.raises(
        ConfigError, match=r"platform.mlflow_uri: expected the package mlflow-skinny.*pip install 'dssm-assets\[mlflow\]'"
    ):
        world.materialize(FIT)


def test_without_the_key_mlflow_is_not_imported(world, fitted, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    assert at(world, None).materialize(FIT)[1] is None


@pytest.mark.slow
def test_mlflow_is_imported_with_its_reports_switched_off():
    code = (
        "import os, sys\n"
        "from dssm_assets.extras.mlflow_runs.tracking import open_tracking\n"
        "sys.addaudithook(lambda event, arguments: event == 'import' and arguments[0] == 'mlflow.telemetry'"
        " and print(os.environ.get('MLFLOW_DISABLE_TELEMETRY')))\n"
        "try:\n"
        "    with open_tracking('http://127.0.0.1:9', 'tiny'): pass\n"
        "except Exception: pass\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert set(found.stdout.split()) == {"true"}


@pytest.mark.parametrize(
    "uri", ["http://me:pa55word@mlflow.example", "postgresql://me:pa55word@db/mlflow", "mlflow.example:5000/pa55word", ""]
)
def test_address_with_a_password_or_of_another_kind_is_refused_and_not_shown(tmp_path, uri):
    with pytest.raises(ConfigError, match=r"key platform.mlflow_uri: .* MLFLOW_TRACKING_USERNAME") as error:
        worlds.write_config(tmp_path, {"platform": {"mlflow_uri": uri}})
    assert "pa55word" not in str(error.value)


@pytest.mark.parametrize("uri", ["https://mlflow.example/team/", "http://127.0.0.1:5000", FILE])
def test_addresses(tmp_path, uri):
    assert worlds.write_config(tmp_path, {"platform": {"mlflow_uri": uri}}).config.platform.mlflow_uri == uri


def test_url_of_a_run():
    opened = tracking.Tracking(None, "https://mlflow.example/team/", "3")
    assert opened.build_url("ab") == "https://mlflow.example/team/#/experiments/3/runs/ab"
    assert dataclasses.replace(opened, uri="sqlite:////tmp/mlflow.db").build_url("ab") == "ab"
