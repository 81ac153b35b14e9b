"""The reference of configuration keys: current, complete."""

from __future__ import annotations

import pytest

from dssm_assets.cli import main
from dssm_assets_tests.core.config.reference import PAGE, configuration_page


def test_page_in_docs_is_current_and_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert PAGE.read_text(encoding="utf-8") == configuration_page(), "run: python -m dssm_assets_tests.core.config.reference"
    assert main(["configuration"]) == 0
    assert capsys.readouterr().out == configuration_page()


def test_every_key_has_a_meaning() -> None:
    rows = [line for line in configuration_page().splitlines() if line.startswith("| `")]
    assert len(rows) > 130
    assert [row for row in rows if row.endswith("|  |")] == []
