"""Days without anything to evaluate are skipped before anything is trained for them; a span of days has the truth of the span."""

import shutil

import dagster as dg
import pytest

from dssm_assets.core.errors import ConfigError, DaysFailedError
from dssm_assets.defs.asset_factory import SKIPPED
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.defs.run_plan import needed_days
from dssm_assets.defs.scene import Scene
from dssm_assets.materialize import plan_runs, run_plan
from dssm_assets.steps.evaluation import ground_truth
from dssm_assets.steps.sample import training_window
from dssm_assets.steps.workspace import open_workspace, reason_to_skip
from dssm_assets_tests import worlds
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, WINDOW_DAYS

EMPTY = DAYS[9]
SPAN = {"evaluation": {"span_days": 2}}


@pytest.fixture(scope="module")
def with_empty_day(world, tmp_path_factory):
    """Returns the configuration of a world in which nothing happened on the tenth day."""
    folder = tmp_path_factory.mktemp("empty") / "world"
    loaded = world.copy(folder, {"tables": {"behavior": {"allow_empty_days": True}}})
    worlds.write_rows(folder / "source" / "behavior.parquet", worlds.log_rows([day for day in range(12) if day != 9]))
    worlds.run_steps(loaded, worlds.DAILY, [EMPTY])
    return loaded


def test_a_day_without_truth_is_skipped_before_training_and_the_other_days_run(with_empty_day, tmp_path):
    # The empty day comes first; of the day before it everything is made.
    scene, recorder = Scene(with_empty_day), worlds.Recorder()
    first = plan_runs(scene, "train_and_evaluate", EMPTY, EMPTY)
    second = plan_runs(scene, "train_and_evaluate", DAYS[8], DAYS[8])
    plan = type(first)(scene, (*first.runs, *second.runs))
    run_plan(plan, recorder, tmp_path / "instance")
    reason = f"there is no positive event on the day {EMPTY}, so there is nothing to find"
    assert set(recorder.skipped) == {(EMPTY, reason)}
    assert {ds for _, ds in recorder.partitions} == {DAYS[8]}
    assert {name for name, _ in recorder.partitions} == set(worlds.WINDOWED)
    workspace = open_workspace(with_empty_day)
    assert all(workspace.find(name, EMPTY) is None for name in worlds.WINDOWED)
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance:
        assert {run.status for run in instance.get_runs()} == {dg.DagsterRunStatus.SUCCESS}
        for name in worlds.WINDOWED:  # no day is missing, and the empty one says why it is empty
            events = instance.fetch_materializations(dg.AssetKey(name), limit=10).records
            found = {event.partition_key: event.asset_materialization.metadata.get(SKIPPED) for event in events}
            assert (found[EMPTY].value, found[DAYS[8]]) == (reason, None), name
        keys = [
            dg.AssetCheckKey(dg.AssetKey(row.name), check.name)
            for row in all_rows()
            if row.name in worlds.WINDOWED
            for check in row.checks
        ]
        found = instance.event_log_storage.get_asset_check_partition_info(keys)
        assert {(info.partition_key, info.latest_execution_status.value) for info in found} == {
            (EMPTY, "SUCCEEDED"),
            (DAYS[8], "SUCCEEDED"),
        }
        assert all(info.is_current for info in found)


def test_days_that_fail_do_not_stop_the_others_and_are_all_reported(world, tmp_path, monkeypatch):
    loaded = world.copy(tmp_path / "world")
    tables = tmp_path / "world" / "home" / "tables"
    for day in (DAYS[8], DAYS[10]):
        shutil.rmtree(tables / "item_features_fg" / f"ds={worlds.DAYS[worlds.DAYS.index(day) - 1]}")
    recorder = worlds.Recorder()
    plan = plan_runs(Scene(loaded), "negative_items", DAYS[8], DAYS[10])
    with pytest.raises(DaysFailedError, match="2 days failed") as caught:
        run_plan(plan, recorder, tmp_path / "instance")
    assert sorted(caught.value.errors) == [DAYS[8], DAYS[10]]
    assert f"{DAYS[8]}: PartitionMissingError: table item_features_fg" in str(caught.value)
    assert recorder.partitions == [("negative_items", DAYS[9])]


def test_only_days_that_are_known_to_have_nothing_are_skipped(world, with_empty_day, tmp_path):
    assert reason_to_skip(world.workspace, EVALUATION_DAY) is None
    assert reason_to_skip(open_workspace(with_empty_day), EMPTY) is not None
    # Nothing is known of a span of which one day is empty and the other is not stored.
    shutil.copytree(with_empty_day.path.parent, tmp_path / "world")
    loaded = worlds.write_config(tmp_path / "world", {**SPAN, "tables": {"behavior": {"allow_empty_days": True}}})
    shutil.rmtree(tmp_path / "world" / "home" / "tables" / "positive_sample" / f"ds={DAYS[10]}")
    assert reason_to_skip(open_workspace(loaded), EMPTY) is None


def test_a_window_without_positives_is_skipped(world, tmp_path):
    loaded = world.copy(tmp_path / "world", {"window": {"days": 1}, "tables": {"behavior": {"allow_empty_days": True}}})
    worlds.write_rows(tmp_path / "world" / "source" / "behavior.parquet", worlds.log_rows([0]))
    worlds.run_steps(loaded, worlds.DAILY, [EMPTY])
    reason = reason_to_skip(open_workspace(loaded), DAYS[10])
    assert reason == "there is no positive event in its window of 1 days, so there is nothing to learn from"


def test_the_truth_of_a_span_is_that_of_its_days(world, tmp_path):
    loaded = world.copy(tmp_path / "span", SPAN)
    workspace = open_workspace(loaded)
    list(ground_truth(workspace, [DAYS[10]]))
    manifest = workspace.need("ground_truth", DAYS[10])
    found = {row["user_id"]: row["gt_items"] for row in workspace.tables.read(manifest).to_pylist()}
    assert found == {user: sorted({*worlds.bought(user, 10), *worlds.bought(user, 11)}) for user in worlds.users()}
    assert {len(items) for items in found.values()} == {6}  # three items a day, none twice in two days
    assert [key for key in manifest.inputs if key.startswith("positive_sample/")] == [
        f"positive_sample/{day}" for day in DAYS[10 - WINDOW_DAYS : 12]
    ]


def test_nothing_of_the_span_is_trained_on(world, tmp_path):
    workspace = open_workspace(world.copy(tmp_path / "span", SPAN))
    (result,) = training_window(workspace, [DAYS[10]])
    days = set(workspace.tables.read(result.manifest).column("day").to_pylist())
    assert max(days) == DAYS[9]


def test_a_day_whose_span_has_not_ended_is_no_day_to_evaluate(world, tmp_path):
    scene = Scene(world.copy(tmp_path / "span", SPAN))
    assert scene.windowed.get_partition_keys() == DAYS[WINDOW_DAYS:-1]
    with pytest.raises(
        ConfigError, match=rf"from the last evaluation day on: {DAYS[10]} or earlier, got {DAYS[11]}\. To fix: evaluate"
    ):
        plan_runs(scene, "total_hit_rate", DAYS[10], DAYS[11])


def test_a_span_with_one_event_is_evaluated(world, with_empty_day):
    # The tenth day alone has nothing to find, together with the next it has.
    loaded = worlds.write_config(with_empty_day.path.parent, {**SPAN, "tables": {"behavior": {"allow_empty_days": True}}})
    assert reason_to_skip(open_workspace(loaded), EMPTY) is None
    worlds.write_config(with_empty_day.path.parent, {"tables": {"behavior": {"allow_empty_days": True}}})


def test_upstream_of_a_span_has_the_samples_of_all_its_days():
    def needed(span):
        return needed_days(all_rows(), ["total_hit_rate"], DAYS[8], DAYS[0], WINDOW_DAYS, span)

    assert needed(1).daily["positive_sample"] == (DAYS[2], DAYS[8])
    assert needed(3).daily["positive_sample"] == (DAYS[2], DAYS[10])
    assert needed(3).daily["behavior"] == (DAYS[0], DAYS[10])
