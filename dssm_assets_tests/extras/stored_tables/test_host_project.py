"""The project in `fixtures/host_project`: assets and a notebook that read item vectors of three days, launched as their users launch them."""

import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pytest

import dssm_assets
import dssm_assets_tests
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import programs, worlds
from dssm_assets_tests.test_component import ROOT, TYPE, dg_command, environment, options
from dssm_assets_tests.worlds import DAYS

SOURCE = Path(dssm_assets_tests.__file__).parent / "fixtures" / "host_project"


@pytest.mark.slow
@programs.needs_extras("starter", "iceberg_catalog")
def test_assets_and_a_notebook_read_the_vectors_of_three_days(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    shutil.copytree(SOURCE, tmp_path, dirs_exist_ok=True)
    worlds.write_sources(tmp_path)
    (tmp_path / "instance").mkdir()
    env = environment(tmp_path, ROOT, tmp_path / "src")
    given = [part for option, value in options(tmp_path).items() for part in (f"--{option}", value)]
    dg_command(tmp_path, env, "scaffold", "defs", TYPE, "shop", *given)
    shop = {"config": tmp_path / "src" / "host" / "defs" / "shop" / "config.yaml", "home": tmp_path / ".dssm" / "shop"}
    with shop["config"].open("a") as config:
        config.write("storage: {iceberg: {}}\n")
    loaded = load_config(shop["config"], shop["home"])
    worlds.run_steps(loaded, worlds.DAILY, DAYS)
    worlds.run_steps(loaded, worlds.WINDOWED[: worlds.WINDOWED.index("item_vectors") + 1], DAYS[-3:])
    code = "import sys; from dssm_assets.cli import main; sys.exit(main(sys.argv[1:]))"
    named = ["--config", str(shop["config"]), "--home", str(shop["home"])]
    subprocess.run([sys.executable, "-c", code, "catalog", *named], env=env, check=True)
    dg_command(tmp_path, env, "launch", "--assets", "vector_lengths,vector_counts,catalog_counts", "--partition", DAYS[-1])
    dg_command(tmp_path, env, "launch", "--assets", "items_by_day")

    stored = {ds: dssm_assets.open_table("item_vectors", ds, **shop).to_pandas().item_tower_emb for ds in DAYS[-3:]}
    counts = {ds: len(vectors) for ds, vectors in stored.items()}
    assert all(counts.values())
    with dg.DagsterInstance.from_config(str(tmp_path / "instance")) as instance:
        events = {
            name: instance.get_latest_materialization_event(dg.AssetKey(name))
            for name in ("vector_lengths", "vector_counts", "catalog_counts")
        }
    found = {name: {ds: event.asset_materialization.metadata[ds].value for ds in DAYS[-3:]} for name, event in events.items()}
    assert found["vector_counts"] == found["catalog_counts"] == counts
    for ds, vectors in stored.items():
        assert found["vector_lengths"][ds] == pytest.approx(np.mean([np.linalg.norm(vector) for vector in vectors]))

    for name, value in env.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(tmp_path / "reading.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert notebook.cells[1].outputs[-1].data["text/plain"] == repr(counts)
