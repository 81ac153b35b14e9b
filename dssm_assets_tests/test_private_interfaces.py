"""The library uses no private interface of another package, which any release may change."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dssm_assets

PRIVATE = re.compile(r"\bdagster\._|uvicorn\.protocols|foreign_buffer|_read_ready_cb|ibis\.backends\.sql\.compilers")
SOURCES = sorted(Path(dssm_assets.__file__).parent.rglob("*.py"))


@pytest.mark.parametrize("line", ["from dagster._core.errors import DagsterError", "import uvicorn.protocols.http.h11_impl"])
def test_a_private_interface_is_found(line: str) -> None:
    assert PRIVATE.search(line)


def test_no_module_uses_a_private_interface() -> None:
    using = {path.name for path in SOURCES if PRIVATE.search(path.read_text(encoding="utf-8"))}
    assert using == set()
