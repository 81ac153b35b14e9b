"""Experiments from the Launchpad: the form is pre-filled, and a named run leaves the regular partitions unchanged."""

from __future__ import annotations

import json

import pytest
import yaml
from playwright.sync_api import expect

from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests import worlds
from dssm_assets_tests.browser.processes import Processes
from dssm_assets_tests.browser.ui import Ui

pytest.importorskip("dssm_assets.extras.experiments.forms")
TAGS = "query($id:ID!){runOrError(runId:$id){... on Run{tags{key value}}}}"
MODEL = {"output_dim": 8, "num_sample": 16, "temperature": 0.1, "embedding_dropout": 0, "prior": False}
FILLED = {"experiment": "", "changes": {}, "epochs": 10, "learning_rate": 0.001, "validation_days": 0, **MODEL}
CHANGED = FILLED | {"experiment": "hot", "epochs": 1}


@pytest.mark.slow
def test_form_is_pre_filled_and_a_wrong_value_is_shown_before_a_run(ui: Ui) -> None:
    ui.open("/assets/dssm_model?view=overview")
    form = yaml.safe_load(ui.open_launchpad("Materialize…"))
    assert form["ops"] == {"dssm_model": {"config": FILLED}}
    ui.fill_launchpad(json.dumps({"ops": {"dssm_model": {"config": CHANGED}}}), worlds.EVALUATION_DAY)
    expect(ui.dialog.get_by_text("No errors")).to_be_visible()
    expect(ui.dialog.get_by_role("button", name="Materialize")).to_be_enabled()
    ui.fill_launchpad(json.dumps({"ops": {"dssm_model": {"config": {"epochs": "many"}}}}), worlds.EVALUATION_DAY)
    expect(ui.dialog.get_by_text("Invalid scalar at path root:ops:dssm_model:config:epochs").first).to_be_visible()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_experiment_is_tagged_and_leaves_the_regular_partitions_unchanged(
    ui: Ui, processes: Processes, home: LoadedConfig
) -> None:
    before = worlds.every_digest(open_workspace(home))
    processes.start_daemon()
    ui.open("/assets/dssm_model?view=overview")
    ui.open_launchpad("Materialize…")
    ui.fill_launchpad(json.dumps({"ops": {"dssm_model": {"config": CHANGED}}}), worlds.EVALUATION_DAY)
    expect(ui.dialog.get_by_text("No errors")).to_be_visible()
    run = ui.confirm("Materialize")
    ui.wait_for_run(run, 120)
    tags = {tag["key"]: tag["value"] for tag in processes.client.ask(TAGS, id=run)["runOrError"]["tags"]}
    assert (tags["dssm/experiment"], tags["dssm/changed"]) == ("hot", "training.epochs=1")
    ui.open_partition("dssm_model", worlds.EVALUATION_DAY)
    assert ui.metadata(first="experiment")[:3] == ["experiment", "changed", "regular_partition"]
    expect(ui.page.get_by_text("training.epochs=1").first).to_be_visible()
    assert worlds.every_digest(open_workspace(home)) == before
