"""A project with a loss, a sampler, a pooling, a baseline and an operator of its own: every command, and the processes that commands start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from dssm_assets.cli import main
from dssm_assets.core.file_names import BundleFile
from dssm_assets.service.bundle.bundle_store import open_bundles
from dssm_assets_tests import programs, worlds
from dssm_assets_tests.own_project import CHANGES, copy_project
from dssm_assets_tests.test_component import load, scaffold, write_host
from dssm_assets_tests.worlds import EVALUATION_DAY, PUBLISHED

COMMAND = "import sys; from dssm_assets.cli import main; sys.exit(main())"
FEW_STEPS = {"training": {"epochs": 1}}
SEVERAL = {"training": {"epochs": 1, "num_processes": 2}, "evaluation": {"num_processes": 2}}
NEW_USER = [
    "--features",
    '{"city": "city1"}',
    "--history",
    json.dumps({"item_ids": ["a_01"], "category": ["cat_a"], "event_times_ms": [1_704_099_600_000]}),
]


def test_its_names_are_trained_scored_and_served(own_project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worlds.write_sources(own_project)
    loaded = worlds.write_config(own_project, worlds.merged(CHANGES, FEW_STEPS))
    workspace = worlds.build_all(loaded)
    worlds.run_steps(loaded, PUBLISHED, [EVALUATION_DAY])
    items = workspace.tables.read(workspace.need("item_features_fg", EVALUATION_DAY))
    assert items.column("category_length").to_pylist() == [5] * 20  # cat_a, cat_b
    rates = workspace.tables.read(workspace.need("total_hit_rate", EVALUATION_DAY)).to_pylist()
    # The 8 users of group a buy each of its items more often than the 4 users of group b theirs: the list has the 10 items of group b.
    cell = {"scorer": "least_popular", "scope": "all", "population": "all", "k": 10}
    assert [(row["hits"], row["truth_count"]) for row in rates if cell.items() <= row.items()] == [(4 * 3, 12 * 3)]
    store = open_bundles(loaded)
    towers = json.loads(store.fs.cat_file(f"{store.folder(store.current_id())}/{BundleFile.TOWERS}"))
    assert towers["history"]["poolings"][0]["rule"] == "halving"
    assert "2 ** -r" in towers["rules"]["halving"]
    assert main(["hit-rates", "--home", str(loaded.home), "--config", "config.yaml"]) == 0
    assert "least popular" in capsys.readouterr().out
    assert main(["recall", *NEW_USER, "-k", "3", "--home", str(loaded.home), "--config", "config.yaml"]) == 0
    assert "source features" in capsys.readouterr().out


def test_a_component_loads_it(own_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    defs = write_host(own_project, "host_of_plugins")
    scaffold(own_project, defs / "shop")
    path = defs / "shop" / "config.yaml"
    changes = {key: CHANGES[key] for key in ("plugins", "model", "evaluation")}
    path.write_text(yaml.safe_dump(worlds.merged(yaml.safe_load(path.read_text()), changes)))
    dg.Definitions.validate_loadable(load(own_project, defs, "host_of_plugins", monkeypatch))


@pytest.mark.slow
@programs.needs_extras("starter", "experiments", "spark")
def test_every_command_finds_it(tmp_path: Path) -> None:
    """In processes that find modules as the console script does, which does not search the current folder."""
    site = copy_project(tmp_path)
    worlds.write_sources(tmp_path)
    write_yaml(tmp_path / "config.yaml", worlds.merged(worlds.CONFIG, worlds.merged(CHANGES, SEVERAL)))
    spark = {
        "engine": "spark",
        "spark": {"master": "local[1]", "conf": {"spark.ui.enabled": "false", "spark.sql.shuffle.partitions": "1"}},
    }
    write_yaml(tmp_path / "spark.yaml", worlds.merged(worlds.CONFIG, worlds.merged(CHANGES, spark)))
    day = ["--from", EVALUATION_DAY]

    def run(*arguments: str, launcher: tuple[str, ...] = ()) -> str:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("DSSM_", "DAGSTER_"))}
        searched = os.pathsep.join((str(Path(__file__).parent.parent), str(site)))
        command = [sys.executable, *launcher, *(["-P"] if not launcher else [sys.executable, "-P"]), "-c", COMMAND, *arguments]
        environment = kept | {"PYTHONPATH": searched, "COLUMNS": "200"}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "matches its data" in run("validate")
    assert "least popular" in run("materialize", "train_and_evaluate", *day, "--with-upstream", "--processes", "2")
    run("materialize", "publish", *day, "--with-upstream")
    assert "source features" in run("recall", *NEW_USER)
    assert "wide: model.sampler=weighted" in run("experiment", "wide", "--set", "model.sampler=weighted", *day)
    assert "tuned_0000" in run("tune", "--trials", "1")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "--no-python")
    assert "published dssm_model" in run("fit", "--day", EVALUATION_DAY, launcher=torchrun)
    programs.find_program("java")
    assert "20 rows" in run("materialize", "item_features_fg", *day, "--config", "spark.yaml")


def write_yaml(path: Path, content: Any) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
