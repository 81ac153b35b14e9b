"""The documentation: its examples give what they show, its commands, keys, links and benchmarks exist, no feature type is left out."""

from __future__ import annotations

import doctest
import os
import re
import shlex
from pathlib import Path

import pytest

from dssm_assets.cli import build_parser
from dssm_assets.core.config.pipeline import PipelineConfig
from dssm_assets.core.features.operators.registry import OPERATORS
from dssm_assets.core.features.operators.sequence_feature import SEQUENCE_FEATURE
from dssm_assets_tests.benchmarks.hostile_inputs import key_paths

ROOT = Path(__file__).parents[1]
PAGES = sorted(page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md") if ">>> " in page.read_text())


TEXTS = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in (ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"))
}


def _commands() -> list[str]:
    blocks = [block for text in TEXTS.values() for block in re.findall(r"```bash\n(.*?)```", text, flags=re.DOTALL)]
    lines = [part.split(" #")[0].strip() for block in blocks for line in block.splitlines() for part in line.split("&&")]
    return sorted({line.removeprefix("dssm-assets ") for line in lines if line.startswith("dssm-assets ")})


@pytest.mark.parametrize("command", _commands())
def test_every_command_parses(command: str) -> None:
    assert callable(build_parser().parse_args(shlex.split(command)).command)


def test_every_benchmark_exists() -> None:
    named = {name for text in TEXTS.values() for name in re.findall(r"dssm_assets_tests\.benchmarks\.(\w+)", text)}
    assert [name for name in named if not (ROOT / "dssm_assets_tests" / "benchmarks" / f"{name}.py").exists()] == []


@pytest.mark.parametrize("page", sorted(set(TEXTS) - {"CHANGELOG.md"}))
def test_every_key_exists(page: str) -> None:
    keys = {".".join(path) for path in key_paths(PipelineConfig)}
    sections = {key.partition(".")[0] for key in keys} - {"spark"}  # properties of Spark have the same form
    named = {name for name in re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)", TEXTS[page]) if name.partition(".")[0] in sections}
    assert sorted(named - keys - {"channels.json"}) == []


def _anchor(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_every_link_leads_somewhere(page: str) -> None:
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", TEXTS[page]):
        name, _, anchor = link.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), link
        assert not anchor or anchor in map(_anchor, re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)), link


def test_the_index_names_every_page() -> None:
    named = set(re.findall(r"\]\((\w+\.md)", TEXTS["docs/README.md"]))
    assert {Path(page).name for page in TEXTS if page.startswith("docs/")} - {"README.md"} == named


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


def test_each_of_these_words_has_one_spelling() -> None:
    other = re.compile("behav[i]our|bucketi[s][ei]", re.IGNORECASE)
    kinds = (".py", ".md", ".yaml", ".toml", ".json", ".ipynb", ".html")
    folders = (ROOT / name for name in ("dssm_assets", "dssm_assets_tests", "docs", "deploy"))
    files = [
        path for path in (*ROOT.iterdir(), *(path for folder in folders for path in folder.rglob("*"))) if path.suffix in kinds
    ]
    assert len(files) > 500
    assert [path for path in files if path.is_file() and other.search(path.read_text(encoding="utf-8"))] == []
