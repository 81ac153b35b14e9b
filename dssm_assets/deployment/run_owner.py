"""Which process works on a run, and whether it still exists.

A run of `dssm-assets materialize` works in the command's process: no run launcher knows it. If it is killed, the run stays
"started", occupies the queue and its pool's slot, and no run monitoring notices. So each run is tagged with its process; a
command also reports every minute that it lives, for daemons on other machines.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

OWNER_TAG: Final = ".dagster/dssm_process"
"""The UI hides tags that begin with .dagster/."""
REPORT_SECONDS: Final = 60.0
SILENT_SECONDS: Final = 15 * 60.0
"""A command on another machine that has not reported for this long counts as dead."""
_IN_PROGRESS: Final = (
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class RunOwner:
    """A process, identified for as long as its machine runs.

    Attributes:
        started: when it was started, as the system tells it; another process of that id has another time.
        machine: identifies the machine since its last start, and the container: where process ids mean the same processes.
    """

    host: str
    pid: int
    started: str
    machine: str

    @classmethod
    def from_this_process(cls) -> RunOwner:
        return cls(socket.gethostname(), os.getpid(), start_of_process(os.getpid()) or "", _this_machine())

    @classmethod
    def from_run(cls, run: DagsterRun) -> RunOwner | None:
        """Returns the process in the tags of a run, None if they name none; a retry has the tags of the run before it."""
        parts = run.tags.get(OWNER_TAG, "").split(" ")
        if len(parts) != 5 or not parts[1].isdigit() or parts[4] != run.run_id:
            return None
        return cls(parts[0], int(parts[1]), parts[2], parts[3])

    def to_tags(self, run_id: str) -> dict[str, str]:
        """Returns the tags of a run of this process."""
        return {OWNER_TAG: f"{self.host} {self.pid} {self.started} {self.machine} {run_id}"}

    @property
    def report_key(self) -> str:
        """Returns the key under which the process reports that it lives."""
        return f"{OWNER_TAG}/{self.host}/{self.pid}"

    def reason_of_death(self, instance: DagsterInstance) -> str | None:
        """Returns why the process counts as dead, None if it lives or nothing is known."""
        where = f"process {self.pid} on {self.host}"
        if self.machine == _this_machine():
            return None if start_of_process(self.pid) == self.started else f"{where}, which ran it, has ended"
        reported = instance.run_storage.get_cursor_values({self.report_key}).get(self.report_key)
        if not reported:
            return None
        started, _, last = reported.rpartition(" ")
        silent = time.time() - float(last)
        if started == f"{self.started} {self.machine}" and silent <= SILENT_SECONDS:
            return None
        return f"{where}, which ran it, has not reported for {silent / 60:.0f} minutes"


def check_own_process(instance: DagsterInstance, run: DagsterRun) -> CheckRunHealthResult:
    """Returns the health of a run that no launcher can be asked about: lost if its process is dead; without a sign of that, it works."""
    owner = RunOwner.from_run(run)
    reason = owner.reason_of_death(instance) if owner is not None else None
    if reason is None:
        return CheckRunHealthResult(WorkerStatus.RUNNING, "nothing says that its process is dead")
    return CheckRunHealthResult(WorkerStatus.NOT_FOUND, reason)


def start_of_process(pid: int) -> str | None:
    """Returns when a process was started, None if there is none of that id; equal times mean the same process."""
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return None if fields[0] in ("Z", "X") else fields[19]
        return None
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "_".join(found.stdout.split()) or None


def _this_machine() -> str:
    known = [socket.gethostname()]
    with suppress(OSError):  # on Linux; elsewhere the name is all there is
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        known.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256(" ".join(known).encode()).hexdigest()[:12]


_tagged: set[str] = set()


def tag_run(instance: DagsterInstance, run: DagsterRun) -> bool:
    """Tags a run of this process; returns whether this is its first call for the run."""
    if run.run_id in _tagged:
        return False
    if RunOwner.from_run(run) is None:
        instance.add_run_tags(run.run_id, RunOwner.from_this_process().to_tags(run.run_id))
    _tagged.add(run.run_id)
    return True


@contextmanager
def reporting(instance: DagsterInstance, seconds: float = REPORT_SECONDS) -> Iterator[None]:
    """Reports regularly, until the end of the block, that this process lives."""
    if instance.is_ephemeral:
        yield
        return
    owner, is_over = RunOwner.from_this_process(), threading.Event()

    def report() -> None:
        with suppress(Exception):  # a database that is away for a moment must not end the run
            instance.run_storage.set_cursor_values({owner.report_key: f"{owner.started} {owner.machine} {time.time():.0f}"})

    def report_regularly() -> None:
        while not is_over.wait(seconds):
            report()

    report()
    thread = threading.Thread(target=report_regularly, name="run-owner", daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(seconds)


def end_dead_runs(instance: DagsterInstance) -> list[str]:
    """Marks the runs in progress whose process is dead as failed, and frees their slots in pools; returns their ids."""
    ended = []
    for record in instance.get_run_records(RunsFilter(statuses=_IN_PROGRESS)):
        run = record.dagster_run
        owner = RunOwner.from_run(run)
        reason = owner.reason_of_death(instance) if owner is not None else None
        if reason is not None:
            _end(instance, run, f"{reason}. To fix: materialize again")
            ended.append(run.run_id)
    return ended


def _end(instance: DagsterInstance, run: DagsterRun, message: str) -> None:
    if run.status is DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
    if instance.event_log_storage.supports_global_concurrency_limits:
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
