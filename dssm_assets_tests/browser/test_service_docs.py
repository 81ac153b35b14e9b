"""The recall service's page /docs in a browser that reaches nothing but the service: its scripts, its keys, a request from the page."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from dssm_assets.service.engine.live import LiveEngine
from dssm_assets_tests.service.bundles import write_bundle
from dssm_assets_tests.service.http.servers import key_line, serving, write_keys

KEY = "key-of-the-shop-1"


def test_a_list_is_asked_for_on_the_page_with_a_key(browser: Browser, tmp_path: Path) -> None:
    write_bundle(tmp_path)
    errors: list[str] = []
    asked: list[str] = []
    with serving(LiveEngine(str(tmp_path)), keys=write_keys(tmp_path, key_line(KEY))) as port:
        url = f"http://127.0.0.1:{port}"
        page = browser.new_page(viewport={"width": 1200, "height": 1000})
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        expect(page).to_have_title("dssm-assets recall")
        page.locator("#operations-lists-recall").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_placeholder("user_id").fill("u")
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table")).to_contain_text("UnauthorizedError")
        page.get_by_role("button", name="Authorize", exact=True).first.click()
        page.get_by_label("auth-bearer-value").fill(KEY)
        page.get_by_role("button", name="Apply credentials").first.click()
        page.get_by_role("button", name="Close").first.click()
        page.get_by_role("button", name="Execute").click()
        expect(page.locator(".live-responses-table")).to_contain_text('"n0"')
        page.screenshot(path=tmp_path / "docs.png")
        page.close()
    assert not errors
    assert {one.partition("?")[0] for one in asked if not one.startswith(("data:", url))} == set()
    assert f"{url}/docs/ui/swagger-ui-bundle.js" in asked
