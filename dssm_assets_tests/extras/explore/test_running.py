"""A bundle links to the page of its home as long as the page's process lives, also as another program."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from dssm_assets.extras.explore.running import find_page, on_materialized
from dssm_assets_tests.deploy.graphql import wait_for

PAGE = """\
import os, sys
from pathlib import Path
from dssm_assets.extras.explore.running import announce_page
announce_page(Path(sys.argv[1]), "http://127.0.0.1:8501")
os.execv(sys.executable, [sys.executable, "-c", "import sys; print('started', flush=True); sys.stdin.read()"])
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path / "home"


def find_links(home, asset="serving_bundle"):
    """Returns the metadata that a run of an asset gets."""
    added = []
    context = SimpleNamespace(add_asset_metadata=lambda link, key, partition_key: added.append((link, key, partition_key)))
    run = SimpleNamespace(row=SimpleNamespace(name=asset), scene=SimpleNamespace(key=lambda name: name))
    results = [SimpleNamespace(manifest=SimpleNamespace(ds="2024-01-12"))]
    on_materialized(context, run, SimpleNamespace(loaded=SimpleNamespace(home=home)), results)
    return [(link["page"].url, key, ds) for link, key, ds in added]


def test_a_bundle_links_to_the_page_of_its_home_while_that_runs(home):
    assert find_links(home) == []
    with subprocess.Popen(
        [sys.executable, "-c", PAGE, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "started\n"
        assert find_page(home) == "http://127.0.0.1:8501"
        assert find_links(home) == [("http://127.0.0.1:8501/?view=A%20session", "serving_bundle", "2024-01-12")]
        assert find_links(home, "dssm_model") == find_links(home.parent) == []
        process.kill()
    wait_for("the lock", lambda: find_page(home) is None, 10)
    assert find_links(home) == []
