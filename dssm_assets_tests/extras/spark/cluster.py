"""A real standalone Spark cluster of this machine: a master and a worker, each a process, from pip's pyspark."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dssm_assets_tests.deploy.services import BUCKET, HOST, Services, free_ports
from dssm_assets_tests.programs import find_program

REPOSITORY = Path(__file__).parents[3]
EXECUTORS = 2
START_SECONDS = 90
S3_VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL")
SHORT_LIVED = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
"""Java options: the optimising compiler would take half of a test's processor time, and checking Spark's own classes a seventh."""

requires_pyspark = pytest.mark.skipif(
    importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed: pip install -e '.[spark]'"
)


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        url: of its master.
        folder: where its processes write their logs.
    """

    url: str
    folder: Path

    def settings(self, executors: int = EXECUTORS) -> dict[str, Any]:
        """Returns the part of a scene's configuration that has its tables made here."""
        return settings_of(self.url, executors)

    def settings_on_s3(self, objects: Services) -> dict[str, Any]:
        """Returns the same, with one executor, for tables in an object store."""
        settings = self.settings(executors=1)
        for name in S3_VARIABLES:  # the keys of the workers: on a real cluster their machines have them
            settings["spark"]["conf"][f"spark.executorEnv.{name}"] = objects.variables[name]
        return {**settings, "storage": {"root": f"s3://{BUCKET}/tables"}}


def settings_of(master: str, executors: int = EXECUTORS) -> dict[str, Any]:
    """Returns the part of a scene's configuration that has its tables made by a master."""
    conf = {
        "spark.executor.memory": "512m",
        "spark.executor.cores": "1",
        "spark.cores.max": str(executors),
        "spark.driver.extraJavaOptions": SHORT_LIVED,
        "spark.executor.extraJavaOptions": SHORT_LIVED,
        "spark.executorEnv.PYTHONPATH": str(REPOSITORY),
        "spark.driver.host": HOST,
        "spark.ui.enabled": "false",
    }
    conf |= {"spark.pyspark.python": sys.executable, "spark.sql.shuffle.partitions": "2"}
    return {"engine": "spark", "spark": {"master": master, "conf": conf}}


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """Yields a cluster of a master and a worker, with a core for each executor; ends every process of it."""
    find_program("java")
    port, site, *others = free_ports(4)
    url = f"spark://{HOST}:{port}"
    with ExitStack() as stack:
        started = [_start(stack, folder, "master", "--port", str(port), "--webui-port", str(site))]
        size = ["--cores", str(EXECUTORS), "--memory", "2g", "--work-dir", str(folder / "work")]
        started.append(_start(stack, folder, "worker", "--port", str(others[0]), "--webui-port", str(others[1]), *size, url))
        _wait_for_worker(f"http://{HOST}:{site}/json/", started, folder)
        yield Cluster(url, folder)


def _start(stack: ExitStack, folder: Path, role: str, *arguments: str) -> subprocess.Popen[bytes]:
    import pyspark

    home = Path(pyspark.__file__).parent
    main = f"org.apache.spark.deploy.{role}.{role.capitalize()}"
    environment = {**os.environ, "SPARK_HOME": str(home), "SPARK_LOCAL_IP": HOST}
    environment |= {"SPARK_DAEMON_MEMORY": "256m", "SPARK_DAEMON_JAVA_OPTS": SHORT_LIVED}
    with (folder / f"{role}.log").open("wb") as log:
        process = subprocess.Popen(
            [str(home / "bin" / "spark-class"), main, "--host", HOST, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    stack.callback(_kill, process)
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _wait_for_worker(address: str, started: list[subprocess.Popen[bytes]], folder: Path) -> None:
    end = time.perf_counter() + START_SECONDS
    while True:
        logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in sorted(folder.glob("*.log")))
        assert all(process.poll() is None for process in started), f"a process of the cluster ended:\n{logs}"
        with suppress(OSError, ValueError), urllib.request.urlopen(address, timeout=5) as answer:
            if json.load(answer)["aliveworkers"] == 1:
                return
        assert time.perf_counter() < end, f"the worker is not there after {START_SECONDS} s:\n{logs}"
        time.sleep(0.3)
