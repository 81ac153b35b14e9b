"""Settings of all tests: property tests have no deadline; the whole suite runs in several processes, selected tests in one."""

from __future__ import annotations

import functools
import gc
import os
import shutil
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import alembic.util
import pytest
from hypothesis import settings
from sqlalchemy import Engine, event
from xdist.scheduler import LoadScopeScheduling

from dssm_assets_tests import programs, quick_processes

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")  # the workers take all cores; threads that wait for each other would spin
# Some hundred processes start in a run of the whole suite: they share what one of them has compiled.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # tests import onnxruntime themselves
os.environ.setdefault("MPLCONFIGDIR", str(Path.home() / ".cache" / "matplotlib"))  # one list of fonts for all tiny worlds

# A busy machine is not a fault of the code: no deadlines. Examples are drawn again in every run.
settings.register_profile("quick", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=1000)
settings.load_profile("quick")

HERE: Final = Path(__file__).parent
pytest.register_assert_rewrite("dssm_assets.testing", "dssm_assets.extras.vector_stores.testing")
collect_ignore = ["fixtures"]  # other projects, with tests of their own
SHARED_SERVERS: Final = ("extras/spark", "extras/databases", "browser", "deploy")
"""Folders whose tests share running servers: all tests of such a folder run in one process."""
LONGEST: Final = (
    *SHARED_SERVERS,
    "extras/several_processes",
    "defs/test_upstream_runs.py",
    "extras/starter/test_init_command.py",
    "extras/retention",
    "test_parallel_runs.py",
    "test_cli.py",
    "extras/vector_stores",
    "steps",
    "core/features_raw",
    "core/training",
    "benchmarks",
    "defs",
)
"""Started first, so that no process is left alone with one of them at the end."""
LOOKING_AT_CHARTS: Final = ("core/evaluation", "steps/test_evaluation.py")
"""Tests of charts."""
WHOLE: Final = ("not slow and not heavy", "heavy")
"""What the default suite selects, and what CI runs after it."""
MEMORY: Final = Path("/dev/shm")
"""A folder in memory: many small files take a third of the time there."""
ROOM_BYTES: Final = 4 << 30


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Lets the disk write when it likes: no test cuts the power."""

    def leave_unsynced(connection: Any, _record: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", leave_unsynced)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def folders_freed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Frees the memory of a process's folders, unless one of its tests failed: then they are kept for a look, as on a disk."""
    yield
    base = tmp_path_factory.getbasetemp()
    if base.is_relative_to(MEMORY) and not request.session.testsfailed:
        shutil.rmtree(base, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def without_telemetry() -> Iterator[None]:
    """Has no instance of a test log for Dagster's telemetry, which takes a twentieth of a run; our own instances have it off."""
    import dagster as dg

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dg.DagsterInstance, "telemetry_enabled", False)
        yield


@pytest.fixture(scope="session", autouse=True)
def loaded_migrations() -> Iterator[None]:
    """Loads the migrations of Dagster's database once: every new instance loads some hundred files."""
    load, load_once = alembic.util.load_python_file, functools.cache(alembic.util.load_python_file)

    def load_file(folder: Any, name: Any) -> Any:
        return (load_once if Path(folder).name == "versions" else load)(folder, name)  # env.py is a program: it runs each time

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(alembic.util, "load_python_file", load_file)
        yield


@pytest.fixture(scope="module", autouse=True)
def charts_where_looked_at(request: pytest.FixtureRequest) -> Iterator[None]:
    """Has charts drawn for tests that look at them alone."""
    from dssm_assets_tests.undrawn import leave_out_charts

    with pytest.MonkeyPatch.context() as patch:
        if not any(request.path.is_relative_to(HERE / looking) for looking in LOOKING_AT_CHARTS):
            leave_out_charts(patch)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns the one built world of the session, of which a test may change a copy; see `worlds.py`."""
    from dssm_assets_tests import worlds

    return worlds.built_world(tmp_path_factory)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forks the processes that the package would spawn from one that has imported it: see `quick_processes.py`."""
    quick_processes.in_place_of_spawned(monkeypatch)


@pytest.fixture
def forgetting() -> Iterator[None]:
    """Forgets after the test what its plug-ins registered."""
    from dssm_assets_tests import own_project

    with own_project.forgetting():
        yield


@pytest.fixture
def own_project(forgetting: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of a project with plug-ins, which is also the current one; its operator is installed (see `own_project.py`).

    It is forgotten last: a monkeypatch that was there before would bring its folder back into sys.path.
    """
    from dssm_assets_tests.own_project import copy_project

    sys.path.insert(0, str(copy_project(tmp_path)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(programs.OPTION, action="store_true", help="fail, not skip, where a program to test with is not installed")


def pytest_configure(config: pytest.Config) -> None:
    """Reads the option of CI. Has the default suite's folders in memory: a copy of a world is 770 files and folders."""
    programs.configure(config)
    if config.option.markexpr in WHOLE and _has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which programs were missing."""
    for line in programs.missing_lines(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns a worker more than cores for the whole default suite, and no worker for selected files and for slow tests.

    A quarter of the time of one worker per core would be waiting: for servers, for processes to end, for clocks.
    Slow tests measure seconds and memory and need the machine alone; for a few files, starting workers costs more than it saves.
    """
    is_selected = config.args_source is not pytest.Config.ArgsSource.TESTPATHS or bool(config.option.keyword)
    return 0 if is_selected or config.option.markexpr not in WHOLE else (os.cpu_count() or 1) + 1


def pytest_collectstart() -> None:
    """Collects no garbage while tests are collected: what is imported stays. It would take a fifth of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """Exempts what is imported from garbage collections: to visit a million objects takes half a second each time."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Orders tests: the longest files first."""
    items.sort(key=lambda item: _rank(item.path))


class FileGroupScheduling(LoadScopeScheduling):
    """Schedules whole groups of tests: a file, or a folder whose tests share servers.

    `@pytest.mark.xdist_group` with `--dist loadgroup` should do this, but pytest-xdist 3.8 with pytest 9.2 ignores the marker:
    the tests of one group were seen in two workers.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = Path(nodeid.partition("::")[0]).relative_to(HERE.name)
        return next((folder for folder in SHARED_SERVERS if path.is_relative_to(folder)), path.as_posix())


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileGroupScheduling:
    return FileGroupScheduling(config, log)


@functools.cache
def _rank(path: Path) -> int:
    ranks = (rank for rank, longest in enumerate(LONGEST) if path.relative_to(HERE).is_relative_to(longest))
    return next(ranks, len(LONGEST))


def _has_room(folder: Path) -> bool:
    """Tells whether a folder is there, has room for the suite, and runs programs (a container's has neither by default)."""
    is_usable = folder.is_dir() and os.access(folder, os.W_OK) and not os.statvfs(folder).f_flag & os.ST_NOEXEC
    return is_usable and shutil.disk_usage(folder).free > ROOM_BYTES
