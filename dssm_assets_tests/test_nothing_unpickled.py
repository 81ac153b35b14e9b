"""Nothing that is read from storage is unpickled: every process of the chain runs where unpickling is forbidden."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dssm_assets_tests import worlds
from dssm_assets_tests.service import bundles

PACKAGE, FORBIDDING = Path(__file__).parents[1] / "dssm_assets", Path(__file__).parent / "fixtures" / "no_pickle"
COMMAND = "import sys; from dssm_assets.cli import main; sys.exit(main(sys.argv[1:]))"
RESUME = """
import sys
from pathlib import Path
from dssm_assets_tests.steps.fit_jobs import EVERY_STEP, run, write_job

job = write_job(Path(sys.argv[1]), {}, {"checkpoint_minutes": EVERY_STEP})
assert run(job).report["resumed_at_step"] is None
assert run(job).report["resumed_at_step"] > 0
"""
UNPICKLE = """
import io, pickle, sys
import numpy, pandas, torch

for read in (
    lambda: pickle.load(io.BytesIO()),
    lambda: pickle.loads(pickle.dumps(1)),
    lambda: pickle.Unpickler(io.BytesIO()),
    lambda: numpy.load(io.BytesIO(pickle.dumps(1)), allow_pickle=True),
    lambda: pandas.read_pickle(io.BytesIO()),
    lambda: torch.load(io.BytesIO(), weights_only=True),
):
    try:
        read()
        sys.exit("it was read")
    except Exception as error:
        assert "something is unpickled" in f"{error} {error.__cause__} {error.__context__}", repr(error)
"""


def run_forbidden(folder: Path, code: str, *arguments: str) -> tuple[int, str]:
    """Returns the status of a program in which unpickling is forbidden, and where it was tried."""
    log = folder / "unpickled.txt"
    paths = [str(FORBIDDING), *filter(None, [os.environ.get("PYTHONPATH")]), str(PACKAGE.parent)]
    places = {"DSSM_CONFIG": str(folder / "config.yaml"), "DAGSTER_HOME": str(folder / "home"), "UNPICKLED": str(log)}
    environment = {**os.environ, **places, "PYTHONPATH": os.pathsep.join(paths)}
    ended = subprocess.run([sys.executable, "-W", "ignore", "-c", code, *arguments], env=environment, check=False)
    return ended.returncode, log.read_text() if log.exists() else ""


def test_unpickling_is_forbidden(tmp_path: Path) -> None:
    status, tried = run_forbidden(tmp_path, UNPICKLE)
    assert (status, tried.count("in refuse")) == (0, 6)


def test_a_bundle_is_read(tmp_path: Path) -> None:
    bundles.write_bundle(tmp_path, has_channels=True, stores_inputs=True)
    asked = ("recall", "--bundle", str(tmp_path), "--user-id", "u", "--features", '{"city": "x"}')
    assert run_forbidden(tmp_path, COMMAND, *asked) == (0, "")


@pytest.mark.slow
def test_the_whole_chain_is_read(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    worlds.write_world(tmp_path, {"evaluation": {"num_processes": 2}, "channels": {"is_enabled": True}})
    first, last = worlds.DAYS[0], worlds.EVALUATION_DAY
    for asked in (
        ("materialize", "daily_tables", "--from", first, "--to", last),
        ("materialize", "train_and_evaluate", "--from", last),
        ("materialize", "publish", "--from", last),
        ("recall", "--user-id", "a1", "--features", '{"city": "x"}'),
        ("hit-rates",),
    ):
        assert run_forbidden(tmp_path, COMMAND, *asked) == (0, ""), asked
    assert run_forbidden(tmp_path, RESUME, str(tmp_path / "fit")) == (0, "")


def test_the_source_unpickles_only_what_spark_s_tasks_return() -> None:
    unpickling = re.compile(
        r"^\s*(?:import|from) (?:pickle|shelve|marshal|joblib|dill|cloudpickle)\b|torch\.load|read_pickle", re.M
    )
    found = {path.name for path in PACKAGE.rglob("*.py") if unpickling.search(path.read_text(encoding="utf-8"))}
    assert found == {"spark.py"}
    assert not [path for path in PACKAGE.rglob("*.py") if "allow_pickle=True" in path.read_text(encoding="utf-8")]
