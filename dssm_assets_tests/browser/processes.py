"""Webserver and daemon over a home, as the README starts them, each in a session of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dssm_assets.storage.config_file import LoadedConfig
from dssm_assets_tests.deploy.graphql import Client, wait_for
from dssm_assets_tests.deploy.services import HOST, free_ports

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 10


class Processes:
    """The webserver of a home, running, and its daemon once started. Every process ends with `with running(...)`."""

    def __init__(self, loaded: LoadedConfig) -> None:
        assert loaded.path is not None
        self.home = loaded.home
        self.url = f"http://{HOST}:{free_ports(1)[0]}"
        self.client = Client(self.url)
        self._config = loaded.path
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start_webserver(self) -> None:
        """Starts the UI; returns when it has loaded the code location."""
        self._start("dagster-webserver", "-h", HOST, "-p", self.url.rpartition(":")[2])
        wait_for("the code location", self._is_loaded, 60)

    def start_daemon(self) -> None:
        """Starts what takes runs from the queue and looks after backfills, schedules and sensors, unless it runs already.

        It is not waited for.
        """
        if "dagster-daemon" not in self._processes:
            self._start("dagster-daemon", "run")

    def log(self, name: str, characters: int = 3000) -> str:
        """Returns the end of a process's output."""
        return (self.home / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-characters:]

    def stop_all(self) -> None:
        """Ends every process, and what it started."""
        for process in self._processes.values():
            _signal(process, signal.SIGTERM)
        for process in self._processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            _signal(process, signal.SIGKILL)
            process.wait()

    def _is_loaded(self) -> bool:
        assert self._processes["dagster-webserver"].poll() is None, self.log("dagster-webserver")
        return self.client.is_loaded()

    def _start(self, program: str, *arguments: str) -> None:
        hidden = {"DSSM_CONFIG", "DSSM_HOME", "DAGSTER_HOME"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden} | {
            "DAGSTER_HOME": str(self.home),
            "DSSM_CONFIG": str(self._config),
            "PYTHONPATH": str(ROOT),
            "DAGSTER_DISABLE_TELEMETRY": "yes",
            "OMP_NUM_THREADS": "1",
        }
        command = [str(Path(sys.executable).parent / program), *arguments, "-w", str(ROOT / "workspace.yaml")]
        with (self.home / f"{program}.log").open("wb") as log:
            self._processes[program] = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@contextmanager
def running(loaded: LoadedConfig) -> Iterator[Processes]:
    """Yields a home's processes with the webserver up; ends all of them at the end."""
    with ExitStack() as stack:
        made = Processes(loaded)
        stack.callback(made.stop_all)
        made.start_webserver()
        yield made
