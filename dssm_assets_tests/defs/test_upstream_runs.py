"""A run that is launched in Dagster makes first what it needs and lacks, and nothing else."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from pathlib import Path

import dagster as dg
import pytest

from dssm_assets.core.errors import DssmError, EmptyDayError
from dssm_assets.definitions import scene_definitions
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.run_plan import needed_days
from dssm_assets.defs.runs import open_instance
from dssm_assets.defs.scene import MADE_FOR_TAG, Scene
from dssm_assets.storage.local_files import folder_lock
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, days_between

WINDOW_DAYS = 2
SHORT = {"window": {"days": WINDOW_DAYS}, "training": {"epochs": 1}}
DAY, NEXT, CHAINED = DAYS[4:7]
"""The day that is evaluated first; one day of the log is before its window and its features."""


def launch(loaded, instance, job, ds, assets=None, prefix="", tags=None):
    """Runs a job, or some assets, of a day as a launched run does."""
    scene = Scene(loaded, prefix)
    defs = scene_definitions(scene, Observer())
    found = defs.resolve_job_def(scene.name(job)) if job else defs.resolve_implicit_global_asset_job_def()
    selection = None if assets is None else [scene.key(name) for name in assets]
    return found.execute_in_process(instance=instance, partition_key=ds, asset_selection=selection, tags=tags)


def made_for(instance, run):
    """Returns (assets, first day, last day) of the runs that were made for another, in order."""
    runs = instance.get_runs(dg.RunsFilter(tags={MADE_FOR_TAG: run.run_id[:8]}))
    return [(sorted(key.path[-1] for key in one.asset_selection), *_days(one.tags)) for one in reversed(runs)]


def _days(tags):
    day = tags.get("dagster/partition")
    names = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")
    return (day, day) if day else tuple(tags[name] for name in names)


def stored_days(loaded):
    workspace = worlds.open_workspace(loaded)
    found = {row.name: workspace.tables.partitions.days(row.name) for row in all_rows()}
    return {name: days for name, days in found.items() if days}


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Returns a home of sources alone in which one click evaluated a day and then the next one, and what the clicks made."""
    loaded = worlds.write_world(tmp_path_factory.mktemp("fresh"), SHORT)
    with open_instance(tmp_path_factory.mktemp("events")) as instance:
        first = launch(loaded, instance, "train_and_evaluate", DAY)
        after_first = stored_days(loaded)
        second = launch(loaded, instance, "", NEXT, ["training_window", "ground_truth"])
        yield loaded, instance, (first, after_first), second


def test_a_day_on_a_home_of_sources_alone_is_evaluated_by_one_run_of_the_job(fresh):
    _, instance, (run, stored), _ = fresh
    needed = needed_days(all_rows(), ["total_hit_rate"], DAY, DAYS[0], WINDOW_DAYS)
    expected = {name: days_between(*days) for name, days in needed.daily.items()}
    assert run.success
    assert stored == expected | {name: [DAY] for name in worlds.WINDOWED}
    assert {name for names, _, _ in made_for(instance, run) for name in names} == set(expected)


@pytest.mark.slow
def test_the_hit_rate_alone_makes_what_leads_to_it_under_the_names_of_its_scene(tmp_path):
    loaded = worlds.write_world(tmp_path, SHORT)
    with open_instance(tmp_path / "home") as instance:
        run = launch(loaded, instance, "", DAY, ["total_hit_rate"], "shop")
        assert instance.get_materialized_partitions(dg.AssetKey(["shop", "dssm_model"])) == {DAY}
        made = [name for names, first, _ in made_for(instance, run) for name in names if first == DAY]
    assert run.success
    windowed = Counter(name for name in made if name in worlds.WINDOWED)
    assert windowed == Counter(name for name in worlds.WINDOWED if name not in ("total_hit_rate", "experiments"))


def test_daily_tables_of_late_days_make_the_log_and_the_features_before_them(tmp_path):
    loaded = worlds.write_world(tmp_path)
    with open_instance(tmp_path / "home") as instance:
        run = launch(loaded, instance, "daily_tables", DAYS[2])
        found = made_for(instance, run)
    assert run.success
    logs = ["behavior", "behavior_table", "item_table", "user_table"]
    made = {name: (first, last) for names, first, last in found for name in names}
    assert {name: made[name] for name in logs} == dict.fromkeys(logs, (DAYS[0], DAYS[1]))
    assert made["user_features_fg"] == (DAYS[1], DAYS[1])
    assert "sample" not in made


def test_a_run_waits_while_another_of_the_home_makes_days(tmp_path):
    """Days of a backfill start together; the second finds what the first has made."""
    loaded = worlds.write_world(tmp_path)
    loaded.home.mkdir()
    instance = dg.DagsterInstance.ephemeral()
    thread = threading.Thread(target=launch, args=(loaded, instance, "", DAYS[3], ["sample"]))
    with folder_lock(loaded.home):
        thread.start()
        thread.join(timeout=3)
        assert (thread.is_alive(), stored_days(loaded)) == (True, {})
        worlds.run_steps(loaded, worlds.DAILY[:4], DAYS[:4])
    thread.join(timeout=60)
    assert stored_days(loaded)["sample"] == [DAYS[3]]
    assert len(instance.get_runs()) == 1


def test_a_run_that_lacks_no_daily_table_waits_for_nobody(tmp_path_factory, tmp_path):
    """Windowed assets may wait for a pool: a run that holds its slot must not wait for them."""
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world")
    instance = dg.DagsterInstance.ephemeral()
    with folder_lock(loaded.home):
        assert launch(loaded, instance, "", DAYS[10], ["feature_binning"]).success
    made = instance.get_runs(dg.RunsFilter(tags={MADE_FOR_TAG: instance.get_runs()[-1].run_id[:8]}))
    assert [[key.path[-1] for key in run.asset_selection] for run in made] == [["training_window"]]


def test_an_old_day_that_the_source_lacks_stays_a_gap(tmp_path_factory, tmp_path):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world")
    worlds.write_rows(tmp_path / "world" / "source" / "behavior.parquet", worlds.log_rows(range(1, 12)))
    for name in ("behavior_table", "behavior", "user_history", "user_history_fg"):
        shutil.rmtree(Path(loaded.root) / name / f"ds={DAYS[0]}")
    instance = dg.DagsterInstance.ephemeral()
    assert launch(loaded, instance, "", EVALUATION_DAY, ["training_window"]).success
    assert len(instance.get_runs()) == 1


def test_what_fails_on_the_way_is_the_error_of_the_run_and_of_its_own(tmp_path):
    loaded = worlds.write_world(tmp_path, SHORT)
    worlds.write_rows(tmp_path / "source" / "behavior.parquet", worlds.log_rows([day for day in range(12) if day != 3]))
    with open_instance(tmp_path / "home") as instance:
        with pytest.raises(DssmError, match=DAYS[3]) as caught:
            launch(loaded, instance, "train_and_evaluate", DAY)
        runs = instance.get_runs()
    assert isinstance(caught.value, EmptyDayError) or "has_rows" in str(caught.value)
    assert [run.status for run in runs] == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.FAILURE]


@pytest.mark.slow
def test_the_hit_rate_alone_of_a_day_with_nothing_to_evaluate_says_why_and_succeeds(tmp_path_factory, tmp_path):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "w", {"tables": {"behavior": {"allow_empty_days": True}}})
    worlds.write_rows(tmp_path / "w" / "source" / "behavior.parquet", worlds.log_rows([day for day in range(12) if day != 9]))
    worlds.run_steps(loaded, worlds.DAILY, [DAYS[9]])
    run = launch(loaded, dg.DagsterInstance.ephemeral(), "", DAYS[9], ["total_hit_rate"])
    (made,) = run.asset_materializations_for_node("total_hit_rate")
    assert made.metadata["skipped"].value == f"there is no positive event on the day {DAYS[9]}, so there is nothing to find"
    assert DAYS[9] not in stored_days(loaded).get("training_window", [])


@pytest.mark.parametrize(
    ("changes", "ds", "sentence"),
    [
        (
            {},
            DAYS[5],
            f"the first evaluation day: {DAYS[6]} or later, got {DAYS[5]}. To fix: evaluate a later day, or shorten window.days",
        ),
        (
            {"evaluation": {"span_days": 2}},
            DAYS[11],
            f"the last evaluation day on: {DAYS[10]} or earlier, got {DAYS[11]}. To fix: evaluate an earlier day",
        ),
    ],
)
def test_a_day_that_can_never_be_evaluated_is_refused_before_anything_is_recorded(tmp_path, changes, ds, sentence):
    """Its window begins before the calendar, or its truth ends after it."""
    loaded = worlds.write_world(tmp_path, changes)
    instance = dg.DagsterInstance.ephemeral()
    for job, assets in (("train_and_evaluate", None), ("publish", None), ("", ["total_hit_rate"])):
        with pytest.raises(dg.DagsterUnknownPartitionError, match=ds):
            launch(loaded, instance, job, ds, assets, prefix="shop")
    assert instance.get_runs() == []
    # Dagster starts a run again that was launched when the asset had the day; the sentence is its first and only error.
    job = scene_definitions(Scene(loaded, "shop"), Observer()).resolve_job_def("shop_train_and_evaluate")
    run = job.execute_in_process(instance=instance, tags={"dagster/partition": ds}, raise_on_error=False)
    (failure,) = run.filter_events(lambda event: event.is_step_failure)
    assert failure.step_failure_data.user_failure_data.description.endswith(sentence)
    assert stored_days(loaded) == {}


def test_the_chain_makes_the_tables_of_its_day_and_evaluates_and_publishes_it(fresh):
    loaded, instance, _, _ = fresh
    run = launch(loaded, instance, "daily_chain", CHAINED)
    assert run.success
    made = instance.get_runs(dg.RunsFilter(tags={MADE_FOR_TAG: run.run_id[:8]}))
    of_day = {key.path[-1] for one in made if one.job_name == "daily_tables" for key in one.asset_selection}
    assert of_day == set(worlds.DAILY), "those that only the next day reads are among them"
    assert {one.job_name for one in made} == {"daily_tables", "train_and_evaluate", "publish"}
    stored = stored_days(loaded)
    assert {name for name, days in stored.items() if CHAINED in days} == {*worlds.DAILY, *worlds.WINDOWED, *worlds.PUBLISHED}
    # A retry goes on where the first try has stopped: everything is made.
    assert launch(loaded, instance, "daily_chain", CHAINED, tags={"dagster/is_resume_retry": "true"}).success
    assert len(instance.get_runs(dg.RunsFilter(job_name="publish"))) == 1


def test_the_chain_of_a_day_before_the_first_evaluation_makes_tables_alone(tmp_path):
    loaded = worlds.write_world(tmp_path)
    with open_instance(tmp_path / "home") as instance:
        assert launch(loaded, instance, "daily_chain", DAYS[0]).success
    assert stored_days(loaded) == {name: [DAYS[0]] for name in worlds.DAILY}
