"""Dagster's UI in the words of a user: open the graph, choose days, launch, read a partition.

Elements are found by what a user reads. A missing one fails by the page's timeout; nothing waits for a fixed time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from playwright.sync_api import FloatRect, Locator, Page, Response, expect

from dssm_assets_tests.deploy.graphql import Client, wait_for

_GROUP = "svg foreignObject.group"
_EDITOR = ".CodeMirror"
_KEYS = "table tr td:first-child"
_EDGES = """(group) => [...document.querySelectorAll(group)].map((box) => {
    const left = Number(box.getAttribute("x"));
    return [box.textContent.trim(), left, left + Number(box.getAttribute("width"))];
})"""
_STANDS_STILL = """(group) => {
    const now = JSON.stringify([...document.querySelectorAll(group)].map((box) => box.getBoundingClientRect()));
    const before = window.lastSeen;
    window.lastSeen = now;
    return now === before;
}"""


class Ui:
    """A page of the browser on a running webserver."""

    def __init__(self, page: Page, url: str, pictures: Path) -> None:
        self.page = page
        self._url = url
        self._client = Client(url)
        self._pictures = pictures

    def open(self, path: str) -> None:
        self.page.goto(self._url + path)

    def picture(self, name: str, *, of: Locator | None = None, from_heading: str = "") -> Path:
        """Returns the PNG file of a screenshot.

        Args:
            name: of the file.
            of: only this element, as far as it is on the screen.
            from_heading: crop everything left of this heading, such as the navigation.
        """
        path = self._pictures / f"{name}.png"
        size = self.page.viewport_size
        assert size is not None
        box = {"x": 0.0, "y": 0.0, "width": float(size["width"]), "height": float(size["height"])}
        if of is not None:
            found = of.bounding_box()
            assert found is not None
            box |= {"x": found["x"], "width": found["width"], "y": found["y"], "height": box["height"] - found["y"]}
        if from_heading:
            found = self.page.get_by_text(from_heading).first.bounding_box()
            assert found is not None
            box |= {"x": found["x"] - 20, "width": box["width"] - found["x"] + 20}
        clip = FloatRect(x=box["x"], y=box["y"], width=box["width"], height=box["height"])
        self.page.screenshot(path=path, clip=clip, animations="disabled")
        return path

    def wait_until_still(self, selector: str) -> None:
        """Waits until the elements of a selector have stopped moving."""
        self.page.wait_for_function(_STANDS_STILL, arg=selector, polling=200)

    def open_graph(self, groups: int) -> None:
        """Opens the graph of all assets, waits for a number of groups, and expands them."""
        self.open("/asset-groups")
        expect(self.page.locator(_GROUP)).to_have_count(groups)
        self.page.keyboard.press("Alt+e")
        for group in self.page.locator(_GROUP).all():
            expect(group).not_to_have_text("")

        self.wait_until_still(_GROUP)
        self.page.wait_for_load_state("networkidle")

    def groups(self) -> dict[str, tuple[float, float]]:
        """Returns the groups of the graph, with the left and right edge of each in the graph's own units."""
        found: list[tuple[str, float, float]] = self.page.evaluate(_EDGES, _GROUP)
        return {name: (left, right) for name, left, right in found}

    def select_in_graph(self, asset: str) -> None:
        self.page.get_by_placeholder("Jump to…").fill(asset)
        self.page.get_by_role("menuitem").filter(has_text=asset).first.click()

    def launch(self, button: str, days: str) -> str:
        """Clicks a materialize button, chooses days as `2024-01-01` or `[2024-01-01...2024-01-03]`, and launches.

        Returns:
            The id of the run or the backfill.
        """
        self.page.get_by_role("button", name=button).first.click()
        box = self.dialog.get_by_placeholder("ex: ")
        box.fill(days)
        box.press("Enter")
        return self.confirm("Launch")

    def confirm(self, button: str) -> str:
        """Clicks the launch button of the open dialog; returns the id of the run or the backfill."""
        with self.page.expect_response(_is_launch) as answer:
            self.dialog.get_by_role("button", name=button).click()
        (launched,) = answer.value.json()["data"].values()
        expect(self.dialog).to_have_count(0)
        return str(launched["backfillId"] if "backfillId" in launched else launched["run"]["id"])

    def open_launchpad(self, button: str) -> str:
        """Opens the Launchpad of a materialize button; returns its pre-filled form, as YAML."""
        # A day that is typed before the page has loaded the days gives an empty list of choices.
        with self.page.expect_response(lambda response: _request_variables(response, "ConfigPartitions") is not None):
            self.page.get_by_role("button", name=button).first.click(modifiers=["Shift"])
        expect(self.dialog.get_by_text("Launchpad")).to_be_visible()
        expect(self.dialog.locator(_EDITOR)).to_contain_text("config:")
        return str(self.dialog.locator(_EDITOR).evaluate("editor => editor.CodeMirror.getValue()"))

    def fill_launchpad(self, form: str, ds: str) -> None:
        """Chooses a day in the open Launchpad, replaces its form and waits for the page to check it.

        The page requests the day's run configuration and overwrites day and form with it, whatever was typed meanwhile. It
        checks a form a second after the last key press, and until then shows the result for the previous form.
        """
        self.dialog.get_by_placeholder("Partition").fill(ds)
        with self.page.expect_response(lambda response: _request_variables(response, "ConfigPartitionForAsset") is not None):
            self.page.get_by_role("menuitem", name=ds).click()
        expect(self.dialog.get_by_text(f"partition: {ds}")).to_be_visible()
        self.dialog.locator(_EDITOR).click()
        self.page.keyboard.press("Control+a")
        with self.page.expect_response(lambda response: _is_check(response, form)):
            self.page.keyboard.insert_text(form)

    @property
    def dialog(self) -> Locator:
        return self.page.locator(".dagster-dialog")

    def open_partition(self, asset: str, ds: str) -> None:
        self.open(f"/assets/{asset}?view=partitions&partition={ds}")
        expect(self.page.get_by_text("Latest materialization")).to_be_visible()

    def metadata(self, first: str) -> list[str]:
        """Returns the shown metadata keys from top to bottom, once the first one is visible."""
        expect(self.page.locator(_KEYS).first).to_have_text(first)
        # In one call: the page fills the table while it is read.
        keys: list[str] = self.page.locator(_KEYS).all_inner_texts()
        return [key.strip() for key in keys]

    def show(self, key: str) -> Locator:
        """Opens the text of a metadata entry; returns the dialog that shows it."""
        row = self.page.locator("table tr").filter(has=self.page.get_by_text(key, exact=True))
        row.get_by_text("[Show Markdown]").click()
        return self.dialog

    def wait_for_run(self, run: str, seconds: float) -> None:
        """Waits until a run has succeeded; its page shows it."""
        self._wait_for(f"run {run}", lambda: self._client.run_status(run) == "SUCCESS", seconds)
        self.open(f"/runs/{run}")
        expect(self.page.get_by_text("Success", exact=True).first).to_be_visible()

    def wait_for_runs(self, backfill: str, count: int, seconds: float) -> None:
        """Waits until a backfill has a number of successful runs; its page lists them."""
        self._wait_for(f"{count} runs", lambda: len(self._client.runs(backfill, "SUCCESS")) == count, seconds)
        self.open(f"/runs/b/{backfill}?tab=runs")
        expect(self.page.get_by_text("Success", exact=True)).to_have_count(count)

    def _wait_for(self, what: str, holds: Callable[[], bool], seconds: float) -> None:
        """Waits with an empty page: an open one takes as much of a core as the run."""
        self.page.goto("about:blank")
        wait_for(what, holds, seconds)


def _request_variables(response: Response, query: str) -> dict[str, Any] | None:
    """Returns the variables of a GraphQL request whose operation's name starts with `query`, None for any other response."""
    body = response.request.post_data_json if "/graphql" in response.url else None
    return body["variables"] if body and str(body.get("operationName")).startswith(query) else None


def _is_launch(response: Response) -> bool:
    # Dialogs send queries whose names start with Launch, too.
    return _request_variables(response, "Launch") is not None and response.request.post_data_json["query"].lstrip().startswith(
        "mutation"
    )


def _is_check(response: Response, form: str) -> bool:
    variables = _request_variables(response, "PreviewConfig")
    return variables is not None and yaml.safe_load(variables["runConfigData"]) == yaml.safe_load(form)
