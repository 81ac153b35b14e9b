"""An object store for the tests of extras."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from dssm_assets_tests.deploy.services import object_store


@pytest.fixture(scope="module")
def options() -> Iterator[dict[str, Any]]:
    """Yields the options by which a running object store is reached."""
    with object_store() as options:
        yield options
