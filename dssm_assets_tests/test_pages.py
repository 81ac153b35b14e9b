"""Every command and every block of Python of the pages runs as written, or is named here with the reason why not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from dssm_assets_tests.page_folder import write_folder
from dssm_assets_tests.page_runs import PAGES, Piece, pieces_of, running_in

NOT_RUN = {
    r"(pip|pip-audit|cyclonedx-py|python3 -m venv|\.) ": "they install, or look at what is installed",
    r"(ruff|mypy|lint-imports|pytest)": "the checks themselves",
    r"dssm-assets \w+ .*(ratings\.dat|films/)": "minutes, and a data set that is downloaded",
    r"dssm-assets demo$": "minutes: test_demo.py runs it",
    r"(\w+=\S+ )+dg dev": "the UI: tests of browser/ start it",
    r"dssm-assets explore ": "a page that stays: browser/test_exploring.py opens it",
    r"dg (scaffold|check)": "needs a Dagster project: test_component.py has one",
    r"python -m dssm_assets_tests\.benchmarks\.": "minutes to hours: benchmarks",
    r"dssm-assets init --behavior ('env:SHOP_DB|s3://)": "needs servers: tests of extras/databases and extras/lakehouses have them",
    r"(cp deploy|docker|kubectl|helm)\b": "needs a cluster: tests of deploy/ start the same services",
    r"torchrun ": "two machines: commands/test_fit.py runs it on one",
    r"openapi-python-client ": "service/http/test_answers.py makes the client",
    r"from pymilvus": "needs servers: tests of extras/vector_stores use local modes",
}
"""Beginning of a piece -> why it does not run here."""


def is_run(piece: Piece) -> bool:
    return not any(re.match(pattern, piece.text) for pattern in NOT_RUN)


PIECES = {page: pieces_of(page) for page in PAGES}
RUN = {page: found for page, pieces in PIECES.items() if (found := list(filter(is_run, pieces)))}


def test_what_is_not_run_is_on_a_page() -> None:
    texts = [piece.text for pieces in PIECES.values() for piece in pieces]
    assert [pattern for pattern in NOT_RUN if not any(re.match(pattern, text) for text in texts)] == []
    assert sum(map(len, RUN.values())) > 50


@pytest.mark.parametrize("page", sorted(RUN))
def test_no_command_names_a_date(page: str) -> None:
    """The demo's dates move by whole weeks: a date on a page is soon one that no home has."""
    own = [piece.text for piece in RUN[page] if piece.is_python or "dssm-assets" in piece.text]
    named = [
        text for text in own if re.search(r"\b20\d\d-\d\d-\d\d\b", text) and not re.search(r"DailyPartitions|Timestamp", text)
    ]
    assert named == []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pages") / "folder"
    made.mkdir()
    write_folder(made)
    return made


@pytest.mark.slow
@pytest.mark.parametrize("page", sorted(RUN))
def test_a_page_runs_as_written(page: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DSSM_CONFIG", "DSSM_HOME", "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(folder, tmp_path / "here")
    with running_in(tmp_path / "here") as run:
        for piece in RUN[page]:
            run.run(piece)
