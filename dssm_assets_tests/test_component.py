"""The component in another project: made by `dg scaffold defs`, loaded next to its assets and executor, materialized."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from click import ClickException
from dagster.components.component_scaffolding import scaffold_object
from dagster.components.core.component_tree import ComponentTree

from dssm_assets.cli import main
from dssm_assets.component import DssmRecall, StarterTables
from dssm_assets.core.errors import ConfigError
from dssm_assets.defs.asset_table import all_rows
from dssm_assets_tests import programs, worlds
from dssm_assets_tests.worlds import DAYS

pytestmark = programs.needs_extras("starter", "bundle_delta", "retention")

ROOT = Path(__file__).parent.parent
TYPE = "dssm_assets.DssmRecall"
# The layout that `create-dagster project host` writes.
PYPROJECT = """\
[project]
name = "host"
version = "0.1.0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "{module}"

[tool.dg.cli.telemetry]
enabled = false
"""
DEFINITIONS = """\
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""
OWN_ASSETS = """\
import dagster as dg

daily = dg.DailyPartitionsDefinition("2023-12-01", timezone="Asia/Shanghai")


@dg.asset(key=["warehouse", "log"], partitions_def=daily)
def log():
    "A table of the project."


@dg.asset(deps=[["shop", "user_table"]], partitions_def=daily)
def downstream(context: dg.AssetExecutionContext):
    import dssm_assets

    table = dssm_assets.open_table("user_table", context.partition_key, config=CONFIG, home=HOME)
    return dg.MaterializeResult(metadata={"users": table.to_arrow().num_rows})


@dg.definitions
def own():
    return dg.Definitions(assets=[log, downstream], executor=dg.multiprocess_executor)
"""


def write_host(folder, module="host"):
    """Writes a project with assets and an executor of its own; returns the folder of its definitions."""
    worlds.write_sources(folder)
    defs = folder / "src" / module / "defs"
    defs.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(PYPROJECT.format(module=module))
    (defs.parent / "definitions.py").write_text(DEFINITIONS)
    for package in (defs.parent, defs):
        (package / "__init__.py").touch()
    paths = {"CONFIG": str(defs / "shop" / "config.yaml"), "HOME": str(folder / ".dssm" / "shop")}
    (defs / "own.py").write_text(OWN_ASSETS + "".join(f"\n{name} = {path!r}" for name, path in paths.items()) + "\n")
    return defs


def options(folder):
    """Returns the options of scaffolding for the tables of the tiny world."""
    named = (("behavior", "behavior"), ("user", "users"), ("item", "items"))
    return {"timezone": worlds.TIMEZONE} | {option: str(folder / "source" / f"{file}.parquet") for option, file in named}


def scaffold(folder, path):
    scaffold_object(path, TYPE, json.dumps(options(folder)), "yaml", folder)


def load(folder, defs, module, monkeypatch):
    monkeypatch.syspath_prepend(str(folder / "src"))
    tree = ComponentTree.for_project(defs.parent)
    return tree.build_defs()


def test_two_instances_share_a_project_with_its_assets_and_its_executor(tmp_path, monkeypatch, capsys):
    defs = write_host(tmp_path, "host_of_two")
    scaffold(tmp_path, defs / "shop")
    assert sorted(path.name for path in (defs / "shop").iterdir()) == ["config.yaml", "defs.yaml", "fg.json"]
    written = yaml.safe_load((defs / "shop" / "defs.yaml").read_text())
    assert written == {"type": TYPE, "attributes": {"config": "config.yaml"}}
    shutil.copytree(defs / "shop", defs / "news")  # the same configuration, with the same name
    changed = {
        "type": TYPE,
        "attributes": {"key_prefix": "news", "source_assets": {"behavior": "warehouse/log"}},
        "post_processing": {"assets": [{"target": "group:news_evaluation", "attributes": {"tags": {"tier": "gold"}}}]},
    }
    (defs / "news" / "defs.yaml").write_text(yaml.safe_dump(changed))
    found = load(tmp_path, defs, "host_of_two", monkeypatch)
    dg.Definitions.validate_loadable(found)
    assert found.executor is dg.multiprocess_executor
    jobs = {job.name: job.executor_def for job in found.resolve_all_job_defs()}
    assert jobs["__ASSET_JOB"] is dg.multiprocess_executor
    ours = {
        f"{scene}_{job}"
        for scene in ("shop", "news")
        for job in ("daily_tables", "train_and_evaluate", "publish", "daily_chain")
    }
    assert {jobs[name] for name in ours} == {dg.in_process_executor}
    graph = found.resolve_asset_graph()
    names = {key.to_user_string() for key in graph.get_all_asset_keys()}
    own = {
        "warehouse/log",
        "downstream",
        *(f"{scene}/{name}" for scene in ("shop", "news") for name in ("bundle_delta", "cleanup")),
    }
    assert names == own | {f"{prefix}/{row.name}" for prefix in ("shop", "news") for row in all_rows()}
    upstream = {key.to_user_string() for key in graph.get(dg.AssetKey(["news", "behavior_table"])).parent_keys}
    assert upstream == {"warehouse/log"}
    assert not graph.get(dg.AssetKey(["shop", "behavior_table"])).parent_keys
    tiers = {key.to_user_string(): graph.get(key).tags.get("tier") for key in graph.get_all_asset_keys()}
    gold = {row.name for row in all_rows() if row.group == "evaluation"}
    assert {name for name, tier in tiers.items() if tier} == {f"news/{name}" for name in gold}

    keys = [dg.AssetKey([prefix, "user_table"]) for prefix in ("shop", "news")] + [dg.AssetKey("downstream")]
    job = found.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        runs = [job.execute_in_process(instance=instance, partition_key=DAYS[0], asset_selection=[key]) for key in keys]
    # 12 users have events, all but a7 have a row.
    assert runs[-1].asset_materializations_for_node("downstream")[0].metadata["users"].value == 11
    assert all((tmp_path / ".dssm" / prefix / "tables" / "user_table").is_dir() for prefix in ("shop", "news"))


def survey(printed):
    """Returns what is printed of the tables, and the lines of the next commands. In between are the path and the cost of the first command."""
    found, _, commands = printed.partition("\n\nNext:\n")
    return found[found.index("Recipe ") :].splitlines()[:-2], [line.strip() for line in commands.splitlines()]


def test_scaffolding_prints_the_survey_of_init_and_commands_for_its_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    defs = write_host(tmp_path, "host_that_reads")
    scaffold(tmp_path, defs / "shop")
    printed, commands = survey(capsys.readouterr().out)
    given = [part for option, value in options(tmp_path).items() for part in (f"--{option}", value)]
    assert main(["init", *given, "--out", str(tmp_path / "out"), "--name", "shop"]) == 0
    found, of_init = survey(capsys.readouterr().out)
    assert (printed, commands[-4:-2]) == (found, of_init[-3:-1])
    assert "  users of the log: 12, 11 of them with a row in user_table" in printed
    assert commands == [
        f"cd {tmp_path}",
        f"export DSSM_CONFIG={defs}/shop/config.yaml DSSM_HOME={tmp_path}/.dssm/shop",
        f"mkdir -p {tmp_path}/.dssm/instance && export DAGSTER_HOME={tmp_path}/.dssm/instance  # where Dagster records runs",
        f"dg launch --job shop_train_and_evaluate --partition {DAYS[-1]}",
        "dssm-assets hit-rates",
        f"dg launch --job shop_publish --partition {DAYS[-1]}  # what recall and serve answer from",
        "dssm-assets recall --user-id a0 -k 20",
        "dssm-assets serve --port 8000  # lists over HTTP: http://127.0.0.1:8000/docs",
        "dg dev  # the UI: http://127.0.0.1:3000",
        "# The project's definitions, for what is launched without a job in one process: dg.Definitions(executor=dg.in_process_executor)",
    ]
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    scaffold(tmp_path, defs / "news")
    assert "DAGSTER_HOME" not in capsys.readouterr().out  # the project has one


def test_scaffolding_without_a_log_says_what_to_give_and_leaves_nothing(tmp_path):
    path = tmp_path / "shop"
    with pytest.raises(ClickException, match=r"To fix: dg scaffold defs dssm_assets\.DssmRecall shop --behavior LOG"):
        scaffold_object(path, TYPE, None, "yaml", tmp_path)
    assert not path.exists()


def test_help_of_scaffolding_names_every_option():
    # dg prints the component's docstring, and none of the options.
    options = {f"--{name.replace('_', '-')}" for name in StarterTables.model_fields}
    assert set(re.findall(r"--[a-z-]+", DssmRecall.__doc__)) == options


def test_source_assets_name_source_tables(tmp_path, monkeypatch):
    defs = write_host(tmp_path, "host_with_fault")
    scaffold(tmp_path, defs / "shop")
    (defs / "shop" / "defs.yaml").write_text(yaml.safe_dump({"type": TYPE, "attributes": {"source_assets": {"log": "log"}}}))
    with pytest.raises(Exception, match="Error while building definitions") as error:
        load(tmp_path, defs, "host_with_fault", monkeypatch)
    assert isinstance(error.value.__cause__, ConfigError)
    assert error.value.__cause__.faults[0].expected == "keys among user, item, behavior"


def environment(folder, *paths):
    """Returns the variables of a process that finds the projects in these folders, and this project's entry point."""
    entry_points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    ((group, points),) = entry_points.items()
    metadata = folder / "site" / "dssm_assets-0.1.0.dist-info"
    metadata.mkdir(parents=True, exist_ok=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: dssm-assets\nVersion: 0.1.0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (metadata / "entry_points.txt").write_text(f"[{group}]\n{lines}\n")
    searched = os.pathsep.join(map(str, (metadata.parent, *paths)))
    cleared = {name: value for name, value in os.environ.items() if not name.startswith(("DSSM_", "DAGSTER_"))}
    return cleared | {"PYTHONPATH": searched, "DAGSTER_HOME": str(folder / "instance"), "COLUMNS": "200"}


def dg_command(folder, env, *arguments):
    command = [sys.executable, "-c", "from dagster_dg_cli.cli import main; main()", *arguments]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_dg_lists_scaffolds_checks_and_launches(tmp_path):
    write_host(tmp_path)
    (tmp_path / "instance").mkdir()
    env = environment(tmp_path, ROOT, tmp_path / "src")
    assert "dssm_assets.component.DssmRecall" in dg_command(tmp_path, env, "list", "components")
    given = [part for option, value in options(tmp_path).items() for part in (f"--{option}", value)]
    dg_command(tmp_path, env, "scaffold", "defs", TYPE, "shop", *given)
    assert "All definitions loaded successfully" in dg_command(tmp_path, env, "check", "defs")
    listed = json.loads(dg_command(tmp_path, env, "list", "defs", "--json"))
    assert len(listed["assets"]) == len(all_rows()) + 4  # bundle_delta, cleanup, and the host's two
    for asset in ("shop/user_table", "downstream"):  # their days differ, so they share no run
        dg_command(tmp_path, env, "launch", "--assets", asset, "--partition", DAYS[0])
    tables = tmp_path / ".dssm" / "shop" / "tables"
    assert (tables / "user_table" / f"ds={DAYS[0]}").is_dir()
    # From sources alone to the hit rate in one launch, under the project's executor, which starts a process per step.
    dg_command(tmp_path, env, "launch", "--assets", "shop/total_hit_rate", "--partition", DAYS[-1])
    assert (tables / "total_hit_rate" / f"ds={DAYS[-1]}").is_dir()
    with dg.DagsterInstance.from_config(str(tmp_path / "instance")) as instance:
        assert instance.get_materialized_partitions(dg.AssetKey(["shop", "dssm_model"])) == {DAYS[-1]}
        assert instance.get_materialized_partitions(dg.AssetKey(["shop", "behavior"])) == set(DAYS)


@pytest.mark.slow
def test_what_dg_scaffolds_in_this_project_is_loaded(tmp_path):
    shutil.copytree(ROOT / "dssm_assets", tmp_path / "dssm_assets", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "instance").mkdir()
    env = environment(tmp_path, tmp_path)
    dg_command(tmp_path, env, "scaffold", "defs", "dagster.asset", "extra.py")
    listed = json.loads(dg_command(tmp_path, env, "list", "defs", "--json"))
    assert len(listed["assets"]) == len(all_rows()) + 3  # bundle_delta, cleanup, and the scaffolded one
