"""A built world with an instance on disk, its UI, and a browser. All of it ends with the tests of this folder.

The browser is Debian's Chromium, driven by Playwright; nothing is downloaded when tests run.

    DSSM_PICTURES_HOME=HOME pytest dssm_assets_tests/browser/test_looking.py

looks at another home instead (a copy of the demo's: the webserver writes into its instance), and puts the pictures that it
takes on the way into docs/.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from dssm_assets.defs.asset_table import all_rows
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.browser.processes import ROOT, Processes, running
from dssm_assets_tests.browser.ui import Ui
from dssm_assets_tests.programs import find_program

PICTURES_HOME = "DSSM_PICTURES_HOME"
VIEWPORT = (1600, 1000)
PATIENCE_MS = 90_000
"""For what should appear at once: other work on the machine is no failure."""


@pytest.fixture(scope="package")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedConfig]:
    """Yields the configuration of a home of one's own, everything built, whose instance knows what was built."""
    named = os.environ.get(PICTURES_HOME)
    if named:
        yield load_config(Path(named) / "config.yaml", Path(named))
        return
    world = worlds.built_world(tmp_path_factory)
    with tempfile.TemporaryDirectory(prefix="dssm-browser-", dir=_quick_folder()) as folder:
        loaded = world.copy(Path(folder) / "world")
        shutil.copy(ROOT / "deploy" / "dagster.yaml", loaded.home / "dagster.yaml")
        with dg.DagsterInstance.from_config(str(loaded.home)) as instance:
            _repeat_events(world.instance, instance)
            worlds.materialize(
                loaded, ["total_hit_rate"], [worlds.EVALUATION_DAY], instance
            )  # another test may have built it without charts
        yield loaded


def _quick_folder() -> str | None:
    """Returns a folder in memory if there is room, for SQLite waits for a disk at every event; None: the usual one."""
    memory = Path("/dev/shm")
    return str(memory) if memory.is_dir() and shutil.disk_usage(memory).free > 1 << 30 else None


def _repeat_events(source: dg.DagsterInstance, target: dg.DagsterInstance) -> None:
    """Records in one instance what another recorded of its assets; runs are left behind."""
    for row in all_rows():
        records = source.fetch_materializations(dg.AssetKey(row.name), limit=1000).records
        for record in reversed(records):
            assert record.asset_materialization is not None
            target.report_runless_asset_event(record.asset_materialization)


@pytest.fixture(scope="package")
def processes(home: LoadedConfig) -> Iterator[Processes]:
    """Yields the home's webserver; the daemon is not started."""
    with running(home) as made:
        yield made


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    path = find_program("chromium")
    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield made
        made.close()


@pytest.fixture
def ui(browser: Browser, processes: Processes, tmp_path: Path) -> Iterator[Ui]:
    """Yields a page of its own in the browser, and where its pictures go."""
    width, height = VIEWPORT
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    yield Ui(page, processes.url, ROOT / "docs" if os.environ.get(PICTURES_HOME) else tmp_path)
    page.close()
