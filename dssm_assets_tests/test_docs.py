"""The documentation: its examples give what they show, and it leaves no feature type out."""

from __future__ import annotations

import doctest
import os
import re
from pathlib import Path

import pytest

from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md") if ">>> " in page.read_text())


@pytest.mark.parametrize("page", PAGES)
def test_examples_give_what_they_show(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    outcome = doctest.testfile(str(ROOT / page), module_relative=False, encoding="utf-8")
    assert outcome.failed == 0, f"run python -m doctest {page}{os.linesep}to see the differences"


def test_pages_of_the_ui_have_the_names_that_it_shows() -> None:
    """In Dagster 1.13 Overview has Timeline and Resources, and runs have a page of their own; an asset's Overview has its Metadata."""
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "dssm_assets" / "terminal.py"]
    found = {name for page in pages for name in re.findall(r"\bOverview\W+> \W*(\w+)", page.read_text())}
    assert found == {"Timeline", "Metadata"}
    runs = {name for page in pages for name in re.findall(r"\bRuns\W+> \W*(\w+)", page.read_text())}
    assert runs <= {"All", "Backfills", "Queued", "In", "Failed"}


def test_every_feature_type_has_its_section() -> None:
    assert "docs/feature_generation.md" in PAGES
    headings = {
        line[3:] for line in (ROOT / "docs" / "feature_generation.md").read_text().splitlines() if line.startswith("## ")
    }
    assert {*OPERATORS, SEQUENCE_FEATURE} <= headings
