"""One engine for all tests of the folder."""

from __future__ import annotations

from typing import Any

import ibis
import pytest


@pytest.fixture(scope="session")
def con() -> Any:
    """Returns an embedded DuckDB with two threads."""
    return ibis.duckdb.connect(threads=2)
