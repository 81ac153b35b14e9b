"""One module of the library, and no other, uses private interfaces of another package, which any release may change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dssm_assets

PRIVATE = re.compile(
    r"\bdagster\._|uvicorn\.protocols|protocol\.cycle|foreign_buffer|_read_ready_cb|ibis\.backends\.sql\.compilers"
    r"|ExternalPipelineOrigin|__enum__|setattr\(storage"
)
KNOWN = {"dagster_internals.py"}
"""Tested on the lowest and the newest version of pyproject.toml (`deploy/test_dagster_internals.py`)."""
SOURCES = sorted(Path(dssm_assets.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("line", ["from dagster._core.errors import DagsterError", "import uvicorn.protocols.http.h11_impl"])
def test_a_private_interface_is_found(line: str) -> None:
    assert PRIVATE.search(line)


def test_no_other_module_uses_a_private_interface() -> None:
    using = {path.name for path in SOURCES if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert using == KNOWN
