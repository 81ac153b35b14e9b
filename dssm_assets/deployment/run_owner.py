"""Finds out which process works on a run, and whether it still exists.

No run launcher knows the runs of `dssm-assets materialize`, and the default launcher cannot check its own runs. If such a process
were killed, its run would stay "started" and keep its place in the queue and the pool. So each run is tagged with its process.
The process also reports every minute, for daemons on other machines.
"""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_type_hints

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, DefaultRunLauncher, RunsFilter

from dssm_assets.deployment.dagster_internals import set_origin

OWNER_TAG: Final = ".dagster/dssm_process"
"""Tag of a run with the process that owns it. The UI hides tags that begin with .dagster/."""
REPORT_SECONDS: Final = 60.0
SILENT_SECONDS: Final = 5 * 60.0
"""A process on another machine that has not reported for this long counts as dead."""
_IN_PROGRESS: Final = (
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class RunOwner:
    """Identifies a process while its machine is up.

    Attributes:
        started: start time as the system tells it; distinguishes a process from a later process with the same id.
        machine: identifies the container, or the machine since its last boot. Process ids are comparable only within one.
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
        """Returns the process in a run's tags. None if there is none, or if they were copied from the run that this run retries."""
        parts = run.tags.get(OWNER_TAG, "").split(" ")
        if len(parts) != 5 or not parts[1].isdigit() or parts[4] != run.run_id:
            return None
        return cls(parts[0], int(parts[1]), parts[2], parts[3])

    def to_tags(self, run_id: str) -> dict[str, str]:
        return {OWNER_TAG: f"{self.host} {self.pid} {self.started} {self.machine} {run_id}"}

    @property
    def report_key(self) -> str:
        return f"{OWNER_TAG}/{self.host}/{self.pid}"

    def report(self, instance: DagsterInstance) -> None:
        instance.run_storage.set_cursor_values({self.report_key: f"{self.started} {self.machine} {time.time():.0f}"})

    def reason_of_death(self, instance: DagsterInstance) -> str | None:
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


def check_run_health(instance: DagsterInstance, run: DagsterRun) -> Any:
    """Answers run monitoring in place of a launcher: a run is lost if its process is known to be dead."""
    owner = RunOwner.from_run(run)
    reason = owner.reason_of_death(instance) if owner is not None else None
    answer = get_type_hints(DefaultRunLauncher.check_run_worker_health)["return"]
    status = get_type_hints(answer)["status"]
    return answer(status.RUNNING if reason is None else status.NOT_FOUND, reason or "its process is not known to be dead")


def start_of_process(pid: int) -> str | None:
    """Returns the start time of a process, None if no process has this id. Equal times mean the same process."""
    if Path("/proc/self/stat").exists():
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            return None if fields[0] in ("Z", "X") else fields[19]
        return None
    found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return "_".join(found.stdout.split()) or None


def _this_machine() -> str:
    known = [socket.gethostname()]
    with suppress(OSError):  # exists on Linux; elsewhere only the name identifies the machine
        known += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return hashlib.sha256(" ".join(known).encode()).hexdigest()[:12]


_tagged: set[str] = set()


def tag_run(instance: DagsterInstance, run: DagsterRun, seconds: float = REPORT_SECONDS) -> bool:
    """Tags a run of this process, sets its code location, and reports until it ends. Returns whether this is the first call."""
    if run.run_id in _tagged:
        return False
    _tagged.add(run.run_id)
    owner = RunOwner.from_this_process()
    if RunOwner.from_run(run) is None:
        instance.add_run_tags(run.run_id, owner.to_tags(run.run_id))
    set_origin(instance, run)
    if not instance.is_ephemeral:
        owner.report(instance)
        threading.Thread(target=_report_regularly, args=(instance, owner, run.run_id, seconds), daemon=True).start()
    return True


def _report_regularly(instance: DagsterInstance, owner: RunOwner, run_id: str, seconds: float) -> None:
    is_over = False
    while not is_over:
        time.sleep(seconds)
        with suppress(Exception):  # a short outage of the database must not end the run
            run = instance.get_run_by_id(run_id)
            is_over = run is None or run.is_finished
            owner.report(instance)


def end_dead_runs(instance: DagsterInstance) -> list[str]:
    """Marks runs of dead processes as failed, and frees their slots in pools. Returns the runs' ids."""
    ended = []
    for record in instance.get_run_records(RunsFilter(statuses=_IN_PROGRESS)):
        run = record.dagster_run
        owner = RunOwner.from_run(run)
        reason = owner.reason_of_death(instance) if owner is not None else None
        if reason is None:
            continue
        message = f"{reason}. To fix: materialize again"
        if run.status is DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, message)
        else:
            instance.report_run_failed(run, message)
        if instance.event_log_storage.supports_global_concurrency_limits:
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        ended.append(run.run_id)
    return ended
