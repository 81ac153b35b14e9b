"""A deployment with a tiny world's tables in its object store, and the digests that the same world gives on a local disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import fsspec
import pytest
import yaml

from dssm_assets.steps.workspace import Workspace, open_workspace
from dssm_assets.storage.config_file import LoadedConfig, load_config
from dssm_assets.storage.locations import open_s3_session
from dssm_assets_tests import worlds
from dssm_assets_tests.deploy.graphql import Client, wait_for
from dssm_assets_tests.deploy.services import BUCKET, Services, running

_ON_S3: dict[str, Any] = {
    "storage": {"root": f"s3://{BUCKET}/tables"},
    "tables": {
        table: {"uri": f"s3://{BUCKET}/source/{file}.parquet"}
        for table, file in (("user", "users"), ("item", "items"), ("behavior", "behavior"))
    },
}


class Site:
    """A deployment of the tiny world: its services, its UI's API, and its tables as another machine sees them."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.client = Client(services.url)
        self.seconds: dict[str, float] = {}

    def start(self, *names: str) -> None:
        """Starts services and records their start-up seconds."""
        for name in names:
            self.seconds[name] = self.services.start(name)

    def restart(self, name: str) -> None:
        """Stops a service in the way its container is stopped, and starts it."""
        self.services.stop(name)
        self.services.start(name)

    def write_world(self) -> None:
        """Puts the source tables into the object store and the configuration where the code server's container has it."""
        config = yaml.safe_dump(worlds.merged(worlds.CONFIG, _ON_S3), sort_keys=False)
        (self.services.config_folder / "config.yaml").write_text(config, encoding="utf-8")
        folder = self.services.root / "world"
        worlds.write_sources(folder)
        fs = fsspec.filesystem("s3")
        for path in sorted((folder / "source").iterdir()):
            fs.put_file(str(path), f"{BUCKET}/source/{path.name}")

    def workspace(self) -> Workspace:
        """Returns the workspace over the object store."""
        return open_workspace(self.load())

    def load(self) -> LoadedConfig:
        """Returns the configuration as another machine loads it."""
        return load_config(self.services.config_folder / "config.yaml", self.services.root / "elsewhere")

    def wait_until_loaded(self) -> None:
        """Waits until the UI has the code location."""
        wait_for("the code location", self.client.is_loaded, 60)

    def wait_for_backfill(self, backfill_id: str, seconds: float) -> None:
        """Waits until the last run of a backfill, or of its retries, has succeeded.

        Raises:
            AssertionError: it did not in time, or the backfill failed.
        """

        def is_done() -> bool:
            state = self.client.state(backfill_id)
            assert state["status"] != "FAILED", state
            parents = {run["parentRunId"] for run in state["runs"]}
            last = [run["status"] for run in state["runs"] if run["id"] not in parents]
            return bool(last) and set(last) == {"SUCCESS"}

        try:
            wait_for(f"backfill {backfill_id}", is_done, seconds)
        except AssertionError as error:
            logs = "\n".join(f"--- {name}\n{self.services.log(name)}" for name in ("code-server", "daemon"))
            raise AssertionError(f"{error}\n{self.client.state(backfill_id)}\n{logs}") from error

    def print_figures(self) -> None:
        """Prints start-up seconds and memory of each service."""
        memory = self.services.memory_mb()
        for name, seconds in self.seconds.items():
            print(f"{name}: healthy after {seconds:.1f} s, {memory[name]:.0f} MB")
        print(f"together: {sum(self.seconds.values()):.0f} s one after the other, {sum(memory.values()):.0f} MB")


@contextmanager
def deployment(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """Yields a deployment with PostgreSQL and the object store up and the world's tables in it."""
    root = Path(tempfile.mkdtemp(prefix="dssm-deploy-"))  # outside pytest's folders, which PostgreSQL's user may not enter
    try:
        with running(root) as services:
            for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
                monkeypatch.setenv(name, services.variables[name])
            site = Site(services)
            site.start("postgres", "object-store")
            site.write_world()
            yield site
    finally:
        fsspec.filesystem("s3").clear_instance_cache()
        open_s3_session.cache_clear()  # it keeps the keys of the environment
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The Dagster instance of the home folder that a module has as a fixture."""
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    assert os.access("/proc", os.R_OK), "memory is read from /proc"
    with deployment(monkeypatch) as made:
        yield made
