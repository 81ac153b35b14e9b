"""Forgetting users while it is killed, while another request runs, while tables are made again, with deltas and a vector store, on S3."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from dssm_assets.definitions import build_definitions
from dssm_assets.defs.asset_factory import run_step
from dssm_assets.extras.retention.forget import forget
from dssm_assets.extras.retention.forget import on_run_start as run_start
from dssm_assets.installed_extras import load_extra, tell_served
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets.steps import features_raw, source
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.extras.retention import auditor
from dssm_assets_tests.extras.retention.forgetting import (
    GONE,
    MARK,
    OWN,
    built_world,
    find_marks,
    let_an_hour_pass,
    write_log,
)
from dssm_assets_tests.programs import needs_extras
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY

pytestmark = needs_extras("bundle_delta", "vector_stores")

IDS = pa.array(sorted(GONE.values()))
TODAY = "2024-01-13"
KILLED = """
import os, sys, signal
from pathlib import Path
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from dssm_assets.extras.retention.forget import forget
from dssm_assets.extras.retention.forget import on_run_start as run_start
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage import locations
from dssm_assets.storage.config_file import load_config

left = int(sys.argv[2])

def counted(change):
    def call(*arguments, **options):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return change(*arguments, **options)
    return call

locations.write_atomic = counted(locations.write_atomic)
LocalFileSystem.rm_file = counted(LocalFileSystem.rm_file)
Path.replace = counted(Path.replace)
folder = Path(sys.argv[1])
forget(open_workspace(load_config(folder / "config.yaml", folder / "home")), pa.array(sys.argv[3:]))
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A world with a delta of its bundle, which a vector store has."""
    folder = tmp_path_factory.mktemp("marked") / "world"
    shutil.copytree(built_world(tmp_path_factory), folder, symlinks=True)
    workspace = open_workspace(worlds.write_config(folder, worlds.merged(OWN, {"vector_store": {"tables": ["item", "user"]}})))
    assert publish_vectors(workspace).checks[0].is_passed
    write_log(folder, len(DAYS) + 1)
    assert publish_delta(workspace, TODAY).counts.refreshed_users == 12
    tell_served(workspace.loaded, workspace.log)
    return folder


def publish_vectors(workspace):
    (result,) = load_extra("vector_stores", "publish").vector_store(workspace, [EVALUATION_DAY])
    return result


def publish_delta(workspace, today):
    return load_extra("bundle_delta", "delta").publish_delta(workspace, today)


@pytest.fixture
def world(built, tmp_path):
    shutil.copytree(built, tmp_path / "world", symlinks=True)
    return load_config(tmp_path / "world" / "config.yaml", tmp_path / "world" / "home")


def check_whole(world):
    """Checks that nothing of the users is left, and that everything else can be read."""
    assert find_marks(world.home) == []
    workspace, bundles = open_workspace(world), open_bundles(world)
    store = workspace.tables.partitions
    for asset in store.assets():
        for ds in store.days(asset):
            manifest = store.need(asset, ds)
            assert all(Path(store.file_path(manifest, file)).stat().st_size == file.bytes for file in manifest.files)
    pointer = bundles.pointer()
    assert {folder.name for folder in Path(bundles.root, "bundles").iterdir()} == set(pointer.stored)
    whole, delta = (bundles.fetch(bundle_id).manifest for bundle_id in pointer.stored)
    assert (delta["delta"]["base"], whole["users"]) == (pointer.stored[0], 10)
    assert load_extra("vector_stores", "store").open_configured(world).find_versions() == {whole["was"][0]: pointer.stored[1]}


def test_bundle_delta_and_vector_store_lose_them_together(world):
    workspace = open_workspace(world)
    before = open_bundles(world).pointer()
    receipt = forget(workspace, IDS)
    check_whole(world)
    after = open_bundles(world).pointer()
    assert [receipt.bundles[bundle_id] for bundle_id in before.trail] == list(after.trail)
    assert publish_vectors(workspace).facts["is_served"]
    again = publish_delta(workspace, TODAY)
    assert (again.base, again.counts.refreshed_users) == (after.stored[0], 10)
    bundles = open_bundles(world)
    # The ids that the whole bundle had are not its own: stores would take its vectors for those that they have.
    assert ("was" in bundles.manifest(again.base), "was" in bundles.manifest(bundles.pointer().bundle_id)) == (True, False)


@pytest.mark.slow
def test_request_that_is_killed_is_whole_after_the_next(world, tmp_path):
    whole = tmp_path / "world"
    for point in [0, 1, 2, 5, 20, 60, 110, 160, 210, 250, 270, 280, *range(284, 300, 2)]:
        folder = tmp_path / str(point)
        shutil.copytree(whole, folder)
        ended = subprocess.run([sys.executable, "-c", KILLED, str(folder), str(point), *IDS.to_pylist()], check=False)
        assert ended.returncode in (-signal.SIGKILL, 0)
        again = load_config(folder / "config.yaml", folder / "home")
        forget(open_workspace(again), IDS)
        check_whole(again)
        shutil.rmtree(folder)


@pytest.mark.slow
def test_two_requests_and_a_materialization_at_once_bring_nothing_back(world):
    problems = []

    def run(work):
        try:
            work()
        except Exception as error:
            problems.append(error)

    def make_again():
        workspace = open_workspace(world)
        for step in (source.behavior_table, source.user_table, features_raw.behavior, features_raw.user_history):
            list(run_step(step, workspace, DAYS))

    works = [lambda user=user: forget(open_workspace(world), pa.array([user])) for user in IDS.to_pylist()] + [make_again] * 2
    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    check_whole(world)


def test_job_writes_the_receipt_and_no_id_into_dagster(world, tmp_path):
    ids = world.home / "ids.txt"  # a relative path is below the home
    ids.write_text("\n".join(IDS.to_pylist()), encoding="utf-8")
    job = build_definitions(world).get_job_def("forget")
    history = tmp_path / "instance"
    history.mkdir()
    with dg.DagsterInstance.local_temp(str(history)) as instance:
        run_config = {"ops": {"forget_users": {"config": {"user_ids": "ids.txt"}}}}
        assert job.execute_in_process(run_config=run_config, instance=instance).success
    ids.unlink()
    check_whole(world)
    assert find_marks(history) == []
    assert len(list((world.home / "receipts").glob("*.json"))) == 1


def test_store_that_is_away_holds_up_neither_runs_nor_the_rest(world):
    """Its folder is a file meanwhile."""
    lines, folder = [], Path(open_workspace(world).tables.partitions.root) / "lancedb"
    workspace = open_workspace(world, lines.append)
    folder.rename(folder.with_suffix(".aside"))
    folder.write_text("")
    receipt = forget(workspace, IDS)
    assert any("vector store lancedb" in fault for fault in receipt.faults)
    assert receipt.rows > 1000
    assert {path.split("/")[1] for path in find_marks(world.home)} == {"lancedb.aside"}
    (fault,) = (line for line in receipt.describe() if "stores that follow the served bundle" in line)
    assert fault.endswith(f"To fix: see to the store, then materialize vector_store of {EVALUATION_DAY}")
    before, told = workspace.tables.partitions.hidden.read(), len(lines)
    run_start(workspace)
    waits = "a request to forget users has not ended; runs try it once an hour, dssm-assets forget at once"
    assert [line for line in lines[told:] if "request" in line] == [waits], "no store is asked"
    let_an_hour_pass(workspace)
    run_start(workspace)
    assert any(
        line.startswith("the request to forget users goes on later, and this run begins: UnfinishedRequestError: ")
        for line in lines
    )
    assert before.request and workspace.tables.partitions.hidden.read().state == before.state, "runs beside it go on"
    folder.unlink()
    folder.with_suffix(".aside").rename(folder)
    run_start(workspace)
    assert workspace.tables.partitions.hidden.read().request, "the hour has begun again"
    let_an_hour_pass(workspace)
    run_start(workspace)
    assert workspace.tables.partitions.hidden.read().request == ""
    check_whole(world)


def test_store_that_the_configuration_names_no_more_is_named(world):
    """The store of the home is where that is now; another one is named though no partition tells of it."""
    other = world.home.parent / "other"
    chosen = OWN | {"vector_store": {"uri": f"lancedb://{other}", "tables": ["user"]}}
    tell_served(worlds.write_config(world.home.parent, chosen), print)
    renamed = worlds.write_config(world.home.parent, chosen | {"name": "renamed"})
    noted = f"vector store lancedb://{other}, tables {world.config.name}_*"
    assert noted in load_extra("vector_stores", "publish").list_unreached(open_workspace(renamed))
    former = worlds.write_config(world.home.parent, OWN)
    folder = Path(former.root) / "lancedb"
    for ds in (store := open_workspace(former).tables.partitions).days("vector_store"):
        store.remove("vector_store", ds)  # as a cleanup does
    receipt = forget(open_workspace(former), IDS)
    assert sorted(receipt.elsewhere) == sorted([f"vector store lancedb://{folder}", noted])
    assert any(
        f"lancedb://{folder} may still have their rows, but this configuration does not reach it" in line
        for line in receipt.describe()
    )
    assert {path.split("/")[1] for path in find_marks(world.home)} == {"lancedb"}
    assert auditor.find_marks(other, [MARK])
