"""The package as others install it: sdist and wheel hold what they need, and the demo runs from the wheel."""

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
_BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(kind, source, target):
    """Returns the path of a distribution that the build backend makes of a source folder."""
    command = [sys.executable, "-c", _BUILD, f"build_{kind}", str(target)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=True)
    return target / done.stdout.splitlines()[-1]


def test_demo_runs_from_a_wheel_that_was_built_from_the_sdist(tmp_path):
    pytest.importorskip("setuptools")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    for name in tracked:  # not in the repository, where building leaves files
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_bytes((ROOT / name).read_bytes())
    with tarfile.open(build("sdist", tmp_path / "source", tmp_path)) as sdist:
        sdist.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = build("wheel", unpacked, tmp_path)
    with zipfile.ZipFile(wheel) as found:
        names = {name for name in found.namelist() if ".dist-info/" not in name}
        found.extractall(tmp_path / "site")  # as pip would, but for the scripts
    assert names == {name for name in tracked if name.startswith("dssm_assets/")}
    assert "dssm_assets/py.typed" in names
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    run = "import dssm_assets, sys; from dssm_assets.cli import main; print(dssm_assets.__file__); sys.exit(main(sys.argv[1:]))"
    printed = subprocess.run(
        [sys.executable, "-c", run, "configuration"], cwd=tmp_path, env=environment, capture_output=True, check=True
    )
    assert printed.stdout.endswith((ROOT / "docs" / "configuration.md").read_bytes().rstrip() + b"\n")
    command = [sys.executable, "-c", run, "demo", "--days", "1", "--home", "home"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert "merged list" in done.stdout
    current = json.loads((tmp_path / "home" / "tables" / "serving" / "current.json").read_text())
    assert current
