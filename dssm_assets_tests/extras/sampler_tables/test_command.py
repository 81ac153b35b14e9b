"""`dssm-assets sampler-tables`: a day's window as text, and the text as tables again."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dssm_assets.cli import main
from dssm_assets.extras.sampler_tables.command import KINDS
from dssm_assets.extras.sampler_tables.sampler_tables import HARD_EDGE_SPEC, SPECS, read_tsv, write_sampler_tables
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.steps.test_hard_negatives import shown_items, shown_world
from dssm_assets_tests.worlds import DAYS, EVALUATION_DAY, WINDOW_DAYS

EXPOSURE = {"events": {"funnel": ["click", "buy"], "positive": ["buy"], "exposure": ["click"]}}


def test_a_window_is_written_and_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ("items", *SPECS) == KINDS
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path / "world", EXPOSURE)
    monkeypatch.setenv("DSSM_CONFIG", str(loaded.path))
    monkeypatch.setenv("DSSM_HOME", str(loaded.home))
    texts = tmp_path / "texts"
    assert main(["sampler-tables", "write", "--day", EVALUATION_DAY, "--into", str(texts)]) == 0
    printed = capsys.readouterr().out
    attrs = printed.splitlines()[-1].removeprefix("attrs: ")
    read = {}
    for kind in KINDS:
        out = tmp_path / f"{kind}.parquet"
        words = ["--kind", kind, "--into", str(out), *(["--attrs", attrs] if kind == "items" else [])]
        assert main(["sampler-tables", "read", str(texts / f"{kind}.txt"), *words]) == 0
        read[kind] = pq.read_table(out)
        assert f"{texts / kind}.txt: {read[kind].num_rows:,} rows" in printed
    workspace = open_workspace(loaded)
    negatives = workspace.tables.read(workspace.need("negative_items", EVALUATION_DAY))
    assert read["items"].column("item_id").to_pylist() == negatives.column("item_id").to_pylist()
    assert read["items"].column("weight").to_pylist() == negatives.column("weight").to_pylist()
    window = range(len(DAYS) - 1 - WINDOW_DAYS, len(DAYS) - 1)
    bought = Counter((user, item) for day in window for user in worlds.users() for item in worlds.bought(user, day))
    edges = {(row["user_id"], row["item_id"]): row["weight"] for row in read["positive_edges"].to_pylist()}
    assert edges == bought
    assert sum(read["users"].column("weight").to_pylist()) == sum(bought.values())
    assert read["hard_edges"].num_rows == 0  # in this world all that is clicked on is bought
    plain = open_workspace(worlds.built_world(tmp_path_factory).copy(tmp_path / "plain"))
    written, _ = write_sampler_tables(plain, EVALUATION_DAY, texts)
    assert {path.stem for path in texts.iterdir()} == set(written) == {"items", "users", "positive_edges"}


def test_a_fault_of_a_text_is_told_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "users.txt"
    text.write_text("id:int64\tweight:float\n1\t-2\n")
    words = ["--kind", "users", "--into", str(tmp_path / "out.csv")]
    assert main(["sampler-tables", "read", str(text), *words]) == 1
    assert "user table, column weight" in capsys.readouterr().err
    assert main(["sampler-tables", "read", str(tmp_path / "none.txt"), *words]) == 1
    assert "expected a file that can be read" in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_hard_edges_text_has_the_number_of_exposures(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> None:
    root = shown_world(tmp_path_factory)
    workspace = open_workspace(load_config(root / "config.yaml", root / "home"))
    rows, _ = write_sampler_tables(workspace, EVALUATION_DAY, tmp_path)
    window = range(len(DAYS) - 1 - WINDOW_DAYS, len(DAYS) - 1)
    bought = {(user, item) for day in window for user in worlds.users() for item in worlds.bought(user, day)}
    shown = Counter((user, item) for day in window for user in worlds.users() for item in shown_items(user, day))
    expected = {edge: float(count) for edge, count in shown.items() if edge not in bought}
    found = read_tsv((tmp_path / "hard_edges.txt").read_bytes(), HARD_EDGE_SPEC).to_pylist()
    assert {(row["user_id"], row["item_id"]): row["weight"] for row in found} == expected
    assert rows["hard_edges"] == len(expected) > 0
    assert max(expected.values()) > 1
