"""The demo on the real year: figures, time, memory, reuse, same bytes twice."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.config_file import load_config
from dssm_assets_tests.steps.train_files import train_tables

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

_MEASURED_RUN = """\
import ctypes, json, os, resource, subprocess, sys
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: the fork server of the demo, which outlives it, is waited for here
status = subprocess.run(["dssm-assets", *sys.argv[1:]]).returncode
try:
    while True:
        os.wait()
except ChildProcessError:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
print("MEASURED " + json.dumps({"status": status, "cpu_seconds": used.ru_utime + used.ru_stime, "peak_kb": used.ru_maxrss}))
"""


def _demo(home: Path) -> tuple[dict[str, Any], float, str]:
    environment = {**os.environ, "COLUMNS": "160"}
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", _MEASURED_RUN, "demo", "--home", str(home)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout.rpartition("MEASURED ")[2])
    return measured, time.perf_counter() - begin, done.stdout


def _workspace(home: Path) -> Workspace:
    return open_workspace(load_config(home / "config.yaml", home))


def _digests(workspace: Workspace) -> dict[str, str]:
    root = Path(workspace.tables.partitions.root)
    assets = sorted(folder.name for folder in root.iterdir() if not folder.name.startswith("_"))
    return {
        f"{asset}/{ds}": workspace.need(asset, ds).digest for asset in assets for ds in workspace.tables.partitions.days(asset)
    }


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, dict[str, Any], float, str]]:
    folders = [tmp_path_factory.mktemp("first"), tmp_path_factory.mktemp("second")]
    return [(folder, *_demo(folder)) for folder in folders]


def test_demo_stays_within_its_time_and_memory(homes: list[tuple[Path, dict[str, Any], float, str]]) -> None:
    for _, measured, seconds, _ in homes:
        print(f"demo: {seconds:.0f} s, {measured['cpu_seconds']:.0f} CPU-s, larger process {measured['peak_kb'] / 1e6:.2f} GB")
        assert measured["status"] == 0
        assert measured["cpu_seconds"] < 600  # 363 on a busy machine (2 cores, AMD EPYC)
        assert measured["peak_kb"] < 3_000_000


def test_two_demos_have_equal_digests(homes: list[tuple[Path, dict[str, Any], float, str]]) -> None:
    first, second = (_digests(_workspace(home)) for home, *_ in homes)
    assert len(first) > 365 * 4
    assert first == second


def test_model_finds_new_items_and_the_merged_list_everything(homes: list[tuple[Path, dict[str, Any], float, str]]) -> None:
    workspace = _workspace(homes[0][0])
    days = workspace.tables.partitions.days("total_hit_rate")
    assert len(days) >= 2
    for ds in days:
        rows = workspace.tables.read(workspace.need("total_hit_rate", ds)).to_pylist()
        rates = {
            (row["scope"], row["scorer"]): row["hit_rate"] for row in rows if (row["population"], row["k"]) == ("warm", 200)
        }
        print(ds, rates)
        assert rates["all", "model"] >= 1.2 * rates["all", "popularity"]
        assert rates["unseen", "model"] >= 1.1 * rates["unseen", "popularity"]
        assert rates["all", "merged"] > max(
            rate for (scope, name), rate in rates.items() if (scope, name[:3]) == ("all", "own")
        )


def test_printed_table_names_every_baseline(homes: list[tuple[Path, dict[str, Any], float, str]]) -> None:
    printed = homes[0][3]
    for label in (
        "two-tower",
        "popularity",
        "co-occurrence",
        "own history, 30 days",
        "own history, all 36",
        "hit_rate@k",
        "@200",
        "DAGSTER_HOME=",
    ):
        assert label in printed


def test_second_demo_reuses_everything(homes: list[tuple[Path, dict[str, Any], float, str]]) -> None:
    home, first, _, _ = homes[0]
    before = _digests(_workspace(home))
    again, _, printed = _demo(home)
    assert "nothing to run" in printed
    assert again["cpu_seconds"] < first["cpu_seconds"] / 3
    assert _digests(_workspace(home)) == before


def test_no_sample_sees_its_own_day(homes: list[tuple[Path, dict[str, Any], float, str]]) -> None:
    """The demo's history ends with the day before the sample (`training.history: day`): the user's next event is of that day or later."""
    import numpy as np

    workspace = _workspace(homes[0][0])
    config = workspace.config
    ds = workspace.tables.partitions.days("train_samples")[-1]
    tables = train_tables(workspace, ds)
    samples, history, users = (tables[name] for name in ("samples", "history", "users"))
    names = ("history_end", "user_index", "event_time_ms", "day")
    end, user, when, day = (samples.column(name).to_numpy() for name in names)
    start, stop = (users.column(name).to_numpy()[user] for name in ("history_start", "history_end"))
    times = history.column("event_time_ms").to_numpy()
    midnight = dt.datetime.fromisoformat(ds).replace(tzinfo=ZoneInfo(config.calendar.timezone))
    before = [midnight - dt.timedelta(days=config.window.days - number) for number in range(config.window.days)]
    day_start = np.array([int(one.timestamp() * 1000) for one in before])[day]
    assert (day_start <= when).all() and (when < day_start + 25 * 3_600_000).all()
    has_past, has_next = end > start, end < stop
    assert has_past.any() and has_next.all()
    assert (times[end[has_past] - 1] < day_start[has_past]).all()
    assert (times[end] >= day_start).all()


def test_notebook_runs_on_what_the_demo_stored(homes: list[tuple[Path, dict[str, Any], float, str]]) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    home = homes[0][0]
    notebook = nbformat.read(Path(__file__).parents[1] / "docs" / "reading.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(home)}}).execute()
    printed, rates = notebook.cells[1].outputs
    assert printed.text.strip() == _workspace(home).tables.partitions.days("total_hit_rate")[-1]
    assert "merged" in rates.data["text/plain"]
