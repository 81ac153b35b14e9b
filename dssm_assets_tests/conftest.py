"""What holds for every test: property tests are not timed; the whole suite runs on all cores, chosen tests in one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

settings.register_profile("untimed", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("untimed")

HERE: Final = Path(__file__).parent
SHARED_SERVERS: Final = ("spark", "browser", "deploy")
"""Folders whose tests share one set of running servers: each of them stays in one process."""
LONGEST: Final = (
    *SHARED_SERVERS,
    "test_online_retail.py",
    "benchmarks/test_daily_chain.py",
    "benchmarks/test_warm_start.py",
    "serving",
    "commands",
)
"""What begins first, so that no process works on one of them alone at the end."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns a process for each core for the whole default suite; none beside this one for chosen files and for slow tests.

    Slow tests measure seconds and memory, which need the machine alone; of a few files the start of workers is the dearest part.
    """
    is_chosen = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or bool(config.option.keyword)
    return 0 if is_chosen or config.option.markexpr != "not slow" else os.cpu_count() or 1


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest first."""
    items.sort(key=lambda item: _place(item.path.relative_to(HERE)))


class Groups(LoadScopeScheduling):
    """Deals groups of tests to processes, each whole: a file, or a folder whose tests share servers."""

    def _split_scope(self, nodeid: str) -> str:
        """Returns the group of a test; that of `--dist loadgroup` is not seen by every version of pytest."""
        path = Path(nodeid.partition("::")[0]).relative_to(HERE.name)
        return path.parts[0] if path.parts[0] in SHARED_SERVERS else path.as_posix()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Groups:
    """Returns what deals the tests to the processes."""
    return Groups(config, log)


def _place(path: Path) -> int:
    places = (place for place, long in enumerate(LONGEST) if path.is_relative_to(long))
    return next(places, len(LONGEST))
