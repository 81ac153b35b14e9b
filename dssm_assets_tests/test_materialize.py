"""`dssm-assets materialize --with-upstream`: exactly what a day needs, nothing twice."""

from __future__ import annotations

import dataclasses
import uuid
from pathlib import Path

import dagster as dg
import pytest

from dssm_assets.cli import main
from dssm_assets.core.errors import ConfigError
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.automation import PUBLISH, TRAIN_AND_EVALUATE, find_job, job_assets
from dssm_assets.defs.run_plan import PlannedRun, RunPlan, Wanted, needed_days, plan_upstream
from dssm_assets.defs.runs import open_instance
from dssm_assets.defs.scene import Scene
from dssm_assets.demo import plan_demo
from dssm_assets.deployment.run_owner import RunOwner
from dssm_assets.materialize import describe_rest, plan_runs, run_plan
from dssm_assets.storage.config_choice import UI_LOCATION
from dssm_assets.storage.layout import manifest_path
from dssm_assets.storage.manifest import Manifest
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, days_between

WINDOW_DAYS = 3
SHORT = {"window": {"days": WINDOW_DAYS}, "training": {"epochs": 1}}


@pytest.fixture(scope="module")
def late(tmp_path_factory):
    """An empty home in which the hit rate of one day, not the last one, was made with all that it needs."""
    loaded = worlds.write_world(tmp_path_factory.mktemp("late"), SHORT)
    arguments = ["--from", DAYS[8], "--with-upstream", "--config", str(loaded.path), "--home", str(loaded.home)]
    assert main(["materialize", "total_hit_rate", *arguments]) == 0
    return loaded


def test_stored_days_are_exactly_those_that_the_day_needs(late):
    workspace = worlds.open_workspace(late)
    needed = needed_days(all_rows(), ["total_hit_rate"], DAYS[8], DAYS[0], WINDOW_DAYS)
    expected = {name: days_between(*days) for name, days in needed.daily.items()}
    expected |= {name: [DAYS[8]] for name in needed.windowed}
    stored = {row.name: workspace.tables.partitions.days(row.name) for row in all_rows()}
    assert {name: days for name, days in stored.items() if days} == expected


def test_what_is_made_equals_what_a_full_history_of_runs_makes(late, tmp_path_factory):
    whole = worlds.built_world(tmp_path_factory).workspace
    workspace = worlds.open_workspace(late)
    for name in ("user_features_fg", "item_features_fg", "user_history_fg"):
        assert workspace.need(name, DAYS[7]).digest == whole.need(name, DAYS[7]).digest
    assert workspace.need("positive_sample", DAYS[8]).digest == whole.need("positive_sample", DAYS[8]).digest


def test_second_call_makes_only_what_is_named(late):
    plan = plan_runs(Scene(late), "total_hit_rate", DAYS[8], DAYS[8], with_upstream=True)
    assert [(run.names, run.days) for run in plan.runs] == [(("total_hit_rate",), (DAYS[8],))]
    again = plan_upstream(Scene(late), [Wanted(("total_hit_rate",), (DAYS[8],))], is_remaking=False)
    assert again.days_by_asset == {}


def test_next_day_makes_one_day_of_each_daily_table(late):
    plan = plan_runs(Scene(late), "total_hit_rate", DAYS[9], DAYS[9], with_upstream=True)
    *daily, windowed = plan.runs
    assert {name: run.days for run in daily for name in run.names} == {
        **dict.fromkeys(["user_table", "item_table", "behavior_table", "behavior"], (DAYS[9],)),
        **dict.fromkeys(["sample", "sample_fg", "positive_sample"], (DAYS[9],)),
        **dict.fromkeys(["user_history", "user_history_fg", "numeric_value_counts", "category_value_counts"], (DAYS[8],)),
        **dict.fromkeys(["user_activity", "item_activity", "pair_activity", "user_preferences"], (DAYS[8],)),
        **dict.fromkeys(["user_all_feature", "item_all_feature", "user_features_fg", "item_features_fg"], (DAYS[8],)),
    }
    assert windowed.days == (DAYS[9],)
    assert windowed.names[0] == "training_window"


def test_a_rewritten_input_makes_what_was_built_from_it_again(tmp_path_factory, tmp_path):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world")
    workspace = worlds.open_workspace(loaded)
    stored = workspace.need("item_vectors", EVALUATION_DAY)
    workspace.tables.partitions.publish(
        asset="item_vectors", ds=EVALUATION_DAY, staged=[], columns=stored.columns, inputs=stored.inputs
    )
    plan = plan_runs(Scene(loaded), "total_hit_rate", EVALUATION_DAY, EVALUATION_DAY, with_upstream=True)
    assert [run.names for run in plan.runs] == [("hit_counts", "hit_rate_detail", "total_hit_rate")]


def plan_again(tmp_path_factory, tmp_path, changes):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world", changes)
    return loaded, plan_runs(Scene(loaded), "total_hit_rate", EVALUATION_DAY, EVALUATION_DAY, with_upstream=True)


def test_other_settings_of_a_windowed_asset_make_it_and_what_follows_again(tmp_path_factory, tmp_path):
    _, plan = plan_again(tmp_path_factory, tmp_path, {"negative_items": {"alpha": 0.5}})
    assert plan.outdated == {"training_config": 1, "negative_items": 1, "train_samples": 1}
    (run,) = plan.runs
    assert run.names[:4] == ("training_config", "negative_items", "train_samples", "dssm_model")
    assert "feature_config" not in run.names


def test_other_settings_of_a_daily_table_make_its_days_and_what_follows_again(tmp_path_factory, tmp_path):
    loaded, plan = plan_again(tmp_path_factory, tmp_path, SHORT | {"raw_features": {"preference_days": 2}})
    needed = needed_days(all_rows(), ["total_hit_rate"], EVALUATION_DAY, DAYS[0], WINDOW_DAYS).daily
    *daily, windowed = plan.runs
    made = {name: run.days for run in daily for name in run.names}
    expected = {"user_preferences", "user_all_feature", "user_features_fg", "sample_fg", "positive_sample"}
    assert set(made) - {"item_all_feature", "item_features_fg"} == {*expected, "numeric_value_counts", "category_value_counts"}
    assert made["user_preferences"] == tuple(days_between(*needed["user_preferences"]))
    assert windowed.names[0] == "training_window"
    run_plan(plan, Observer(), loaded.home)
    again = plan_runs(Scene(loaded), "total_hit_rate", EVALUATION_DAY, EVALUATION_DAY, with_upstream=True)
    assert again.days_by_asset == {"total_hit_rate": 1}
    assert again.outdated == {}


def test_states_of_another_first_day_of_the_calendar_are_made_again(tmp_path_factory, tmp_path):
    _, plan = plan_again(tmp_path_factory, tmp_path, {"calendar": {"start": DAYS[1]}})
    needed = needed_days(all_rows(), ["total_hit_rate"], EVALUATION_DAY, DAYS[1], worlds.WINDOW_DAYS).daily
    made = {name: run.days for run in plan.runs if not run.is_windowed for name in run.names}
    states = {"user_activity", "item_activity", "pair_activity", "user_preferences"}
    assert {name: made[name] for name in states} == {name: tuple(days_between(*needed[name])) for name in states}
    assert not {"behavior_table", "behavior", "user_history", "sample"} & set(made)
    assert "dssm_model" in plan.runs[-1].names


def test_partitions_that_record_no_settings_are_taken_as_they_are(tmp_path_factory, tmp_path):
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world", {"negative_items": {"alpha": 0.5}})
    for name in ("training_config", "negative_items", "train_samples"):
        path = Path(manifest_path(loaded.root, name, EVALUATION_DAY))
        manifest = Manifest.from_json(path.read_bytes())
        path.write_text(dataclasses.replace(manifest, settings="").to_json())
    plan = plan_runs(Scene(loaded), "total_hit_rate", EVALUATION_DAY, EVALUATION_DAY, with_upstream=True)
    assert plan.days_by_asset == {"total_hit_rate": 1}


def test_day_whose_window_begins_before_the_calendar_is_refused(late):
    with pytest.raises(ConfigError, match=rf"the first evaluation day: {DAYS[WINDOW_DAYS]} or later, got {DAYS[2]}"):
        plan_runs(Scene(late), "total_hit_rate", DAYS[2], DAYS[2], with_upstream=True)


def test_a_day_that_is_evaluated_and_published_is_evaluated_once(tmp_path):
    """The demo evaluates several days and publishes the last: what the bundle needs of that day is made before."""
    rows = all_rows()
    evaluated = Wanted(tuple(job_assets(rows, TRAIN_AND_EVALUATE)), (DAYS[8], EVALUATION_DAY))
    published = Wanted(tuple(job_assets(rows, PUBLISH)), (EVALUATION_DAY,))
    plan = plan_upstream(Scene(worlds.write_world(tmp_path)), [evaluated, published], is_remaking=False)
    last = [name for run in plan.runs if run.is_windowed and run.days == (EVALUATION_DAY,) for name in run.names]
    assert len(last) == len(set(last))
    assert {"dssm_model", "total_hit_rate", "serving_bundle"} <= set(last)
    assert last[-1] == "serving_bundle"


def test_a_day_that_was_evaluated_is_published_without_being_evaluated_again(late):
    """The bundle is as of the end of the day; what the evaluation read is of the days before."""
    plan = plan_runs(Scene(late), PUBLISH, DAYS[8], DAYS[8], with_upstream=True)
    *daily, windowed = plan.runs
    assert windowed.names == ("serving_bundle",)
    assert {name: run.days for run in daily for name in run.names} == dict.fromkeys(
        [
            *("user_activity", "item_activity", "pair_activity", "user_preferences", "user_history"),
            *("user_all_feature", "item_all_feature", "user_features_fg", "item_features_fg", "user_history_fg"),
        ],
        (DAYS[8],),
    )


def test_the_run_of_a_killed_command_ends_with_the_next_command(tmp_path):
    """Else it stays STARTED in the home, and blocks the queue and its pool."""
    loaded = worlds.write_world(tmp_path)
    here = RunOwner.from_this_process()
    with open_instance(loaded.home) as instance:
        left = instance.create_run_for_job(dg.job(name="left")(lambda: None))
        instance.add_run_tags(left.run_id, RunOwner(here.host, here.pid, "1", here.machine).to_tags(left.run_id))
        instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "left"), left.run_id)
        assert instance.get_run_by_id(left.run_id).status is dg.DagsterRunStatus.STARTED
    assert main(["materialize", "user_table", "--from", DAYS[0], "--config", str(loaded.path), "--home", str(loaded.home)]) == 0
    with open_instance(loaded.home) as instance:
        assert {run.status for run in instance.get_runs() if run.run_id == left.run_id} == {dg.DagsterRunStatus.FAILURE}


def test_runs_of_a_command_belong_to_their_job_and_code_location(late):
    """Else Overview > Timeline shows none of them, and Runs links them to no job. The table of runs hides tags of .dagster/."""
    with open_instance(late.home) as instance:
        runs = instance.get_runs()
    assert {run.job_name for run in runs} == {"daily_tables", "train_and_evaluate"}
    assert {run.remote_job_origin.location_name for run in runs} == {UI_LOCATION}
    assert {run.remote_job_origin.job_name for run in runs} == {run.job_name for run in runs}
    tags = {tag for run in runs for tag in run.tags if not tag.startswith((".dagster/", "dagster/"))}
    assert tags == {"dssm/scene"}


def test_a_run_belongs_to_the_code_location_of_the_last_run_of_its_job(tmp_path):
    """A project of its own has a code location of another name, which runs of its UI carry."""
    loaded = worlds.write_world(tmp_path)
    (loaded.home / "dagster.yaml").parent.mkdir(parents=True, exist_ok=True)
    (loaded.home / "dagster.yaml").write_text("run_retries: {enabled: true, max_retries: 3}\n")
    command = ["materialize", "user_table", "--from", DAYS[0], "--config", str(loaded.path), "--home", str(loaded.home)]
    assert main(command) == 0
    with open_instance(loaded.home) as instance:
        (first,) = instance.get_runs()
        theirs = dg.deserialize_value(dg.serialize_value(first.remote_job_origin).replace(UI_LOCATION, "shop"))
        instance.add_run(first.with_job_origin(theirs)._replace(run_id=str(uuid.uuid4())))
    assert main(command) == 0
    with open_instance(loaded.home) as instance:
        last = instance.get_runs(limit=1)[0]
    assert (first.remote_job_origin.location_name, last.remote_job_origin.location_name) == (UI_LOCATION, "shop")
    assert last.tags["dagster/max_retries"] == "0", "the daemon does not make again what a command has reported as failed"


def test_assets_that_no_job_has_together_are_materialized_ad_hoc():
    jobs = [find_job(all_rows(), names) for names in (["sample"], ["dssm_model", "hit_counts"], ["serving_bundle"])]
    assert jobs == ["daily_tables", "train_and_evaluate", "publish"]
    assert find_job(all_rows(), ["hit_counts", "serving_bundle"]) is None, "the chain has them, but its runs are the schedule's"
    assert find_job(all_rows(), ["feature_importance"]) is None


def test_the_demo_makes_days_in_their_order(late):
    """The UI shows the results of a check, and plots its figures, in the order of their runs."""
    days = DAYS[8:11]
    reports = [run.days[0] for run in plan_demo(late, days).runs if "total_hit_rate" in run.names]
    assert reports == days[1:], "the first is stored already"


def test_an_interrupted_command_goes_on_with_the_first_day_that_is_left(late):
    runs = [
        PlannedRun(("behavior",), ("d1", "d2"), False),
        *(PlannedRun(("model", "hits"), (day,), True) for day in ("d3", "d4")),
    ]
    plan = RunPlan(Scene(late), tuple(runs))
    made = {("behavior", "d1"), ("behavior", "d2"), ("model", "d3")}
    assert describe_rest(plan, made) == "3 of 6 partitions are stored; the same command makes the others"
    made |= {("hits", "d3"), ("model", "d4")}
    assert describe_rest(plan, made) == "5 of 6 partitions are stored; the same command with --from d4 makes the others"
    assert describe_rest(plan, made, is_remaking=False) == "5 of 6 partitions are stored; the same command makes the others"
