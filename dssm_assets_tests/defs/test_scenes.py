"""Several scenes in one code location: two whole graphs from two files, and the same inside another project."""

import dagster as dg
import pytest

from dssm_assets.cli import main
from dssm_assets.core.errors import ConfigError
from dssm_assets.definitions import build_definitions, load_configured, load_scene
from dssm_assets.defs.asset_table import all_rows
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.defs.graph import asset_graph
from dssm_assets_tests.worlds import DAYS


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Returns the files of two scenes in folders of their own; their calendars end on different days."""
    folder = tmp_path_factory.mktemp("scenes")
    shop = worlds.write_world(folder / "shop", {"name": "shop"})
    news = worlds.write_world(folder / "news", {"name": "news", "calendar": {"end": "2024-01-10"}})
    return [shop.path, news.path]


@pytest.fixture(scope="module")
def defs(scenes):
    return build_definitions(scenes)


def names(graph, prefix):
    return {name.removeprefix(f"{prefix}/"): asset for name, asset in graph.items() if name.startswith(f"{prefix}/")}


def test_each_scene_has_the_whole_graph(defs, scenes):
    graph = asset_graph(defs)["assets"]
    single = asset_graph(build_definitions(scenes[0]))["assets"]
    assert len(graph) == 2 * len(single) == 2 * (len(all_rows()) + 2)
    for prefix in ("shop", "news"):
        found = names(graph, prefix)
        assert set(found) == set(single)
        for name, asset in found.items():
            assert asset["deps"] == [f"{prefix}/{dep}" for dep in single[name]["deps"]]
            assert asset["group"] == f"{prefix}_{single[name]['group']}"
            assert asset["checks"] == single[name]["checks"]


def test_names_do_not_clash_and_the_location_loads(defs):
    dg.Definitions.validate_loadable(defs)
    jobs = {job.name for job in defs.resolve_all_job_defs()} - {"__ASSET_JOB"}
    plain = ["daily_tables", "train_and_evaluate", "publish", "publish_delta", "daily_chain", "forget"]
    assert jobs == {f"{prefix}_{job}" for prefix in ("shop", "news") for job in plain}
    repository = defs.get_repository_def()
    assert {schedule.name for schedule in repository.schedule_defs} == {
        "shop_daily_chain_schedule",
        "news_daily_chain_schedule",
    }
    assert {sensor.name for sensor in repository.sensor_defs} == {
        f"{prefix}_{sensor}"
        for prefix in ("shop", "news")
        for sensor in ("source_landed_sensor", "bundle_delta_sensor", "failure_sensor")
    }


def test_scenes_share_the_trainer_pool_and_nothing_else(defs):
    graph = asset_graph(defs)["assets"]
    pools = {name: asset["pool"] for name, asset in graph.items() if asset["pool"]}
    assert pools == {
        "shop/dssm_model": "trainer",
        "news/dssm_model": "trainer",
        "shop/feature_importance": "trainer",
        "news/feature_importance": "trainer",
        "shop/serving_bundle": "shop_publisher",
        "news/serving_bundle": "news_publisher",
        "shop/bundle_delta": "shop_publisher",
        "news/bundle_delta": "news_publisher",
        "shop/vector_store": "shop_publisher",
        "news/vector_store": "news_publisher",
    }


def test_run_of_one_scene_writes_only_that_scene(defs, scenes):
    instance = dg.DagsterInstance.ephemeral()
    job = defs.resolve_job_def("news_daily_tables")
    keys = [dg.AssetKey(["news", name]) for name in ("user_table", "item_table")]
    assert job.execute_in_process(instance=instance, partition_key=DAYS[0], asset_selection=keys).success
    assert instance.get_materialized_partitions(keys[0]) == {DAYS[0]}
    stored = {
        path.parent.name: open_workspace(load_config(path, path.parent)).tables.partitions.days("user_table") for path in scenes
    }
    assert stored == {"shop": [], "news": [DAYS[0]]}


def test_scenes_with_the_same_name_or_root_are_refused(tmp_path):
    one = worlds.write_config(tmp_path / "one")
    (tmp_path / "one" / "again.yaml").write_text((tmp_path / "one" / "config.yaml").read_text())
    with pytest.raises(ConfigError) as error:
        build_definitions([one, load_config(tmp_path / "one" / "again.yaml", one.home)])
    where = [fault.where for fault in error.value.faults]
    assert where == [
        "configurations config.yaml and again.yaml, key name",
        "configurations config.yaml and again.yaml, key storage.root",
    ]


def test_environment_may_name_several_files(scenes, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("DSSM_HOME", str(tmp_path))
    monkeypatch.setenv("DSSM_CONFIG", ":".join(map(str, scenes)))
    with pytest.raises(ConfigError, match=r"both|a different root"):
        build_definitions()  # one home: both would write to its folder tables
    monkeypatch.setenv("DSSM_CONFIG", str(scenes[0]))
    assert load_scene().loaded.config.name == "shop"


def test_command_asks_which_scene(monkeypatch, tmp_path, capsys):
    files = []
    for name in ("a", "b"):
        worlds.write_world(tmp_path / name, {"name": name, "storage": {"root": "{home}/{name}/tables"}})
        files.append(str(tmp_path / name / "config.yaml"))
    monkeypatch.setenv("DSSM_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DSSM_CONFIG", ":".join(files))
    assert load_scene("b").key("sample") == dg.AssetKey(["b", "sample"])
    assert main(["materialize", "user_table", "--from", DAYS[0]]) == 1
    assert capsys.readouterr().err == (
        "ConfigError: scene: expected one of: a, b, got none. To fix: name one with --scene, or only its file with --config or DSSM_CONFIG\n"
    )
    assert main(["materialize", "user_table", "--from", DAYS[0], "--scene", "b"]) == 0
    assert (tmp_path / "home" / "b" / "tables" / "user_table" / f"ds={DAYS[0]}").is_dir()
    assert not (tmp_path / "home" / "a").exists()


def test_code_location_without_a_configuration_loads_the_demo_s_and_says_so(monkeypatch, tmp_path, caplog):
    for name in ("DSSM_CONFIG", "DSSM_HOME", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    (loaded,) = load_configured(checks_features=False)
    assert (loaded.config.name, loaded.home) == ("demo", tmp_path / ".dssm")
    (warning,) = caplog.messages
    assert warning.startswith("No configuration is named or found: the packaged demo's, on home ")
    worlds.write_config(tmp_path)
    (loaded,) = load_configured(checks_features=False)
    assert (loaded.config.name, loaded.home) == ("tiny", tmp_path)
    assert len(caplog.messages) == 1
