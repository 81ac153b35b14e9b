"""The asset, the sensor and the command that publish deltas of the served bundle."""

import datetime as dt

import dagster as dg
import pytest

from dssm_assets.cli import main
from dssm_assets.definitions import build_definitions
from dssm_assets.extras.bundle_delta import definitions as bundle_delta
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.steps.workspace import open_workspace
from dssm_assets_tests import worlds
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle

SENSOR = "bundle_delta_sensor"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle_delta") / "world"
    found = open_workspace(worlds.built_world(tmp_path_factory).copy(folder))
    publish_bundle(found)
    return found


@pytest.fixture(autouse=True)
def today(monkeypatch):
    """The tiny world ends in January 2024: until today's date there would be a thousand empty days."""
    monkeypatch.setattr(bundle_delta, "today_in", lambda _: dt.date(2024, 1, 15))


def tick(loaded, cursor=None, instance=None):
    defs, instance = build_definitions(loaded), instance or dg.DagsterInstance.ephemeral()
    repository = defs.get_repository_def()
    with dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository) as context:
        return defs.resolve_sensor_def(SENSOR).evaluate_tick(context)


def test_sensor_is_off_until_it_has_an_interval(tmp_path):
    def sensor(**changes):
        return build_definitions(worlds.write_config(tmp_path, changes)).resolve_sensor_def(SENSOR)

    assert sensor().default_status is dg.DefaultSensorStatus.STOPPED
    found = sensor(serving={"delta_minutes": 3})
    assert (found.default_status, found.minimum_interval_seconds) == (dg.DefaultSensorStatus.RUNNING, 180)


def test_sensor_waits_for_a_bundle(tmp_path):
    found = tick(worlds.write_world(tmp_path))
    assert found.run_requests == []
    assert "a bundle to refresh, got none" in found.skip_message


def test_a_delta_that_fails_is_asked_for_again_three_times_in_all(workspace):
    def run(status, found):
        (request,) = found.run_requests
        instance.add_run(dg.DagsterRun("publish_delta", status=status, tags=request.tags))
        return tick(workspace.loaded, found.cursor, instance)

    instance, failure, nothing = (
        dg.DagsterInstance.ephemeral(),
        dg.DagsterRunStatus.FAILURE,
        "no source has changed since the last look",
    )
    found = run(failure, tick(workspace.loaded, None, instance))
    assert run(dg.DagsterRunStatus.STARTED, found).skip_message == nothing, "it may end well"
    found = run(failure, run(failure, run(failure, tick(workspace.loaded, "another state", instance))))
    assert found.run_requests == []
    assert found.skip_message.startswith(
        "the last 3 runs failed: see their error, correct the cause and launch the job publish_delta"
    )
    instance.add_run(dg.DagsterRun("publish_delta", status=dg.DagsterRunStatus.SUCCESS, tags=instance.get_runs()[0].tags))
    assert tick(workspace.loaded, found.cursor, instance).skip_message == nothing


def test_an_item_of_the_source_is_published_by_the_run_that_the_sensor_starts(workspace, capsys):
    loaded, source = workspace.loaded, workspace.loaded.home.parent / "source/items.parquet"
    first = tick(loaded)
    assert len(first.run_requests) == 1, "the bundle is new"
    again = tick(loaded, first.cursor)
    assert (again.run_requests, again.skip_message) == ([], "no source has changed since the last look")
    worlds.write_rows(source, [*worlds.item_rows(), {"item_id": "z_00", "category": "cat_a", "stock": 5}])
    changed = tick(loaded, first.cursor)
    assert len(changed.run_requests) == 1

    defs, instance = build_definitions(loaded), dg.DagsterInstance.ephemeral()
    result = defs.resolve_job_def("publish_delta").execute_in_process(instance=instance)
    (event,) = result.asset_materializations_for_node("bundle_delta")
    store = open_bundles(workspace.loaded)
    pointer = store.pointer()
    assert event.metadata["bundle_id"].value == pointer.bundle_id
    assert event.metadata["refreshed_bundle"].value == pointer.previous
    assert event.metadata["new_items"].value == 1
    assert store.manifest(pointer.bundle_id)["items"] == 21
    assert tick(loaded, changed.cursor).run_requests == [], "a delta is not a reason for the next one"

    worlds.write_rows(source, worlds.item_rows())
    undone = tick(loaded, changed.cursor)
    assert [request.run_key for request in undone.run_requests] == [None], "a key of the first state would start no second run"
    config = str(loaded.path)
    assert main(["publish", "--delta", "--config", config, "--home", str(loaded.home)]) == 0
    printed = capsys.readouterr().out
    assert "is served now, a delta of" in printed
    assert "new items: 0" in printed
    assert main(["publish", "--config", config, "--home", str(loaded.home)]) == 0
    assert store.pointer().bundle_id == pointer.previous, "the whole bundle is served again"
    assert main(["publish", "--delta", "--config", config, "--home", str(loaded.home)]) == 0
    assert "nothing has changed since 2024-01-12" in capsys.readouterr().out
