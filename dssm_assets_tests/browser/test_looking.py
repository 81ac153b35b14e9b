"""What the UI shows: the graph, the metadata of a partition, the report, the plots."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import expect

from dssm_assets.cli import main
from dssm_assets.defs.asset_table import ASSET_TABLE
from dssm_assets.steps.workspace import open_workspace
from dssm_assets.storage.config_choice import UI_LOCATION
from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests.browser.conftest import PICTURES_HOME
from dssm_assets_tests.browser.ui import Ui

GROUPS = [*ASSET_TABLE]
_RIGHT_OF_TEXT = """(cell) => {
    const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT), range = document.createRange(), rights = [];
    while (texts.nextNode()) {
        range.selectNodeContents(texts.currentNode);
        rights.push(...[...range.getClientRects()].map((box) => box.right));
    }
    return Math.max(...rights);
}"""


@pytest.fixture
def last_day(home: LoadedConfig) -> str:
    return open_workspace(home).tables.partitions.days("total_hit_rate")[-1]


@pytest.fixture
def top_k(home: LoadedConfig) -> int:
    return max(home.config.evaluation.k)


def _colours(path: Path) -> int:
    with Image.open(path) as image:
        return len(image.convert("RGB").resize((200, 200)).getcolors(200 * 200) or ())


@pytest.mark.slow
def test_graph_shows_groups_from_left_to_right(ui: Ui) -> None:
    ui.page.set_viewport_size({"width": 2250, "height": 1150})
    ui.open_graph(len(GROUPS))
    edges = ui.groups()
    assert sorted(edges) == sorted(GROUPS)
    lefts = [edges[name][0] for name in GROUPS if name not in ("sample", "statistics", "config", "training")]
    assert lefts == sorted(lefts), "source, features_raw, fg, vectors, evaluation, serving"
    for earlier, later in (("fg", "statistics"), ("sample", "config"), ("statistics", "config"), ("fg", "training")):
        assert edges[earlier][0] < edges[later][0]
        assert edges[earlier][1] < edges[later][1]
    assert edges["training"][1] <= edges["vectors"][0] <= edges["evaluation"][0] < edges["serving"][0]
    assert _colours(ui.picture("asset_graph", from_heading="Global asset lineage")) > 3


@pytest.mark.heavy
def test_partition_shows_the_rate_and_the_report_with_chart_and_table_first(ui: Ui, last_day: str, top_k: int) -> None:
    ui.open_partition("total_hit_rate", last_day)
    expect(ui.page.get_by_text("Materialized", exact=True)).to_be_visible()
    keys = ui.metadata(first="day")
    assert keys.index(f"hit_rate@{top_k}") == 1
    assert keys.index("gate") < keys.index("report") < keys.index("hit_rate_trend") < keys.index("dagster/row_count")
    report = ui.show("report")
    expect(report.get_by_role("heading", name=f"Recall on {last_day}")).to_be_visible()
    chart = report.locator("img").first
    expect(chart).to_be_visible()
    assert chart.evaluate("image => image.decode().then(() => image.naturalWidth)") > 600
    table = report.locator("table").first
    expect(table.locator("tr").first).to_contain_text(f"hit_rate@{top_k}")
    assert table.locator("tbody tr").count() >= 2, "the merged list and the vectors alone"
    rows = [
        report.locator("table").nth(number).locator("tbody tr").count() for number in range(report.locator("table").count())
    ]
    assert max(rows) >= 5, "the model and the baselines"
    box, window = table.bounding_box(), report.bounding_box()
    assert box is not None
    assert window is not None
    assert box["x"] + box["width"] <= window["x"] + window["width"], "no table is wider than its window"
    assert _colours(ui.picture("total_hit_rate", of=report)) > 8


@pytest.mark.slow
def test_runs_of_a_command_are_in_the_timeline_and_their_rows_show_no_process(
    ui: Ui, home: LoadedConfig, last_day: str
) -> None:
    if not os.environ.get(PICTURES_HOME):
        command = ["materialize", "ground_truth", "--from", last_day, "--config", str(home.path), "--home", str(home.home)]
        assert main(command) == 0
    ui.open("/overview/timeline")
    expect(ui.page.get_by_text(UI_LOCATION, exact=True)).to_be_visible()
    expect(ui.page.get_by_role("link", name="train_and_evaluate")).to_be_visible()
    ui.open("/runs")
    expect(ui.page.get_by_role("link", name="train_and_evaluate").first).to_be_visible()
    expect(ui.page.get_by_text("dssm/scene").first).to_be_visible()
    expect(ui.page.get_by_text("process")).to_have_count(0)


@pytest.mark.slow
def test_hit_rate_is_plotted_over_the_days(ui: Ui, top_k: int) -> None:
    ui.open("/assets/total_hit_rate?view=overview")
    expect(ui.page.get_by_text("One row per scorer, scope, population and k.")).to_be_visible()
    plots = ui.page.get_by_role("button", name="Plots")
    shown = ui.page.locator("tr").filter(has=ui.page.get_by_text("gate", exact=True)).locator("td").last
    expect(shown).to_be_visible()
    right, edge = shown.evaluate(_RIGHT_OF_TEXT), plots.bounding_box()
    assert edge is not None and 0 < right <= edge["x"] + edge["width"], "the gate's verdict is not cut off"
    plots.click()
    title = ui.page.get_by_text(f"hit_rate@{top_k}", exact=True)
    title.evaluate("title => title.scrollIntoView({block: 'start'})")
    expect(title).to_be_visible()
    assert 8 <= ui.page.locator("canvas").count() <= 12
    other = ui.page.get_by_text(f"item_coverage@{top_k} of the vectors", exact=True)
    places = [title.bounding_box(), other.bounding_box()]
    assert places[0] is not None and places[1] is not None and places[0]["y"] < places[1]["y"], "plots are sorted by name"
    ui.wait_until_still("canvas")
    assert _colours(ui.picture("hit_rate_by_partition")) > 8
