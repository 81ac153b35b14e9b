"""The page of `dssm-assets explore`: every view on a wide and on a narrow screen, in a browser that reaches nothing else.

`DSSM_PICTURES_HOME` (see conftest.py) writes the pictures of the pages from a home with the demo.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets_tests import worlds
from dssm_assets_tests.browser.conftest import PATIENCE_MS, PICTURES_HOME
from dssm_assets_tests.browser.processes import ROOT
from dssm_assets_tests.deploy.graphql import wait_for
from dssm_assets_tests.deploy.services import HOST, free_ports
from dssm_assets_tests.service.bundle.published_bundles import publish_bundle

pytest.importorskip("dssm_assets.extras.explore.command")
VIEWS = ["A person", "Two lists", "A session", "An item", "The day"]
WIDTHS = [1600, 900]
PICTURES = {("A person", 1600): "explore_person", ("The day", 1600): "explore_day"}
SHOWN_PERSON = "1771"
"""On the picture: a household of the demo that was away for 57 days."""
_OVERHANG = """() => Math.max(...[document.documentElement, ...document.querySelectorAll('[data-testid="stMain"]')].map(
    (box) => box.scrollWidth - box.clientWidth))"""


def _open_home(tmp_path_factory: pytest.TempPathFactory) -> LoadedConfig:
    if named := os.environ.get(PICTURES_HOME):
        return load_config(Path(named) / "config.yaml", Path(named))
    loaded = worlds.built_world(tmp_path_factory).copy(tmp_path_factory.mktemp("explored") / "world")
    publish_bundle(open_workspace(loaded))
    return loaded


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yields the address of the page, started by its command."""
    loaded, (port,) = _open_home(tmp_path_factory), free_ports(1)
    options = [f"--config={loaded.path}", f"--home={loaded.home}", f"--port={port}"]
    process = subprocess.Popen([str(Path(sys.executable).parent / "dssm-assets"), "explore", *options])
    try:
        address = f"http://{HOST}:{port}"
        wait_for("the page", lambda: urlopen(f"{address}/_stcore/health", timeout=5).status == 200, 60)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def _wait_until_shown(page: Page) -> None:
    expect(page.locator('[data-testid="stApp"][data-test-script-state="notRunning"]')).to_have_count(1, timeout=PATIENCE_MS)
    expect(page.locator('[data-testid="stSpinner"]')).to_have_count(0)
    page.wait_for_load_state("networkidle")


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("view", VIEWS)
def test_every_view_is_whole(browser: Browser, url: str, tmp_path: Path, view: str, width: int) -> None:
    asked: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900})
    for event in ("request", "websocket"):
        page.on(event, lambda one: asked.append(one.url))
    is_picture = (view, width) in PICTURES and PICTURES_HOME in os.environ
    page.goto(f"{url}/?view={view}" + f"&user={SHOWN_PERSON}" * is_picture, timeout=PATIENCE_MS)
    expect(page.locator('[data-testid="stDataFrame"]').first).to_be_visible(timeout=PATIENCE_MS)
    _wait_until_shown(page)
    picture = ROOT / "docs" / f"{PICTURES[view, width]}.png" if is_picture else tmp_path / f"{view} {width}.png"
    page.screenshot(path=picture, animations="disabled")
    if is_picture:  # in few colors it takes a third of the bytes
        with Image.open(picture) as image:
            image.convert("RGB").quantize(48).save(picture, optimize=True)
    for kind in ("stException", "stAlertContentError", "stAlertContentWarning"):
        expect(page.locator(f'[data-testid="{kind}"]')).to_have_count(0)
    assert page.evaluate(_OVERHANG) <= 0, f"{view} is wider than {width} pixels"
    assert {one for one in asked if not one.startswith((url, url.replace("http", "ws"), "data:", "blob:"))} == set()
    page.close()
