"""Data-parallel training on one machine: starts the processes, runs in each of them, and finds the error to report.

To run a job file by hand:
`python -m torch.distributed.run --nproc-per-node N -m dssm_assets.extras.several_processes.fit_process JOB OUT`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
import torch.distributed as dist

from dssm_assets.core.config.training import Device, Training
from dssm_assets.core.errors import ConfigError, DssmError, Fault
from dssm_assets.core.progress import keep_interval
from dssm_assets.core.training.compute import device_of
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.extras.several_processes.process_group import ProcessGroup
from dssm_assets.steps.fit_job import FitJob, FitOutcome, run_job
from dssm_assets.storage.local_files import write_atomic
from dssm_assets.storage.plugins import import_plugins

_PROGRESS_MARK: Final = "dssm-progress "
_PROGRESS_SECONDS: Final = 1.0
_LAST_LINES: Final = 100
_FULL_REPORT: Final = "full_report.json"


def run_in_processes(job: FitJob, folder: Path, count: int, progress: Callable[[Progress], None]) -> FitOutcome:
    """Trains in `count` data-parallel processes.

    They exchange files in `folder`, which must be empty. `progress` is called about once a second.

    Raises:
        DssmError: a process failed. The message holds its error, or the last lines of its output.
    """
    job_file, out = folder / "job.json", folder / "out"
    job_file.write_text(job.to_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += ["-m", "dssm_assets.extras.several_processes.fit_process", str(job_file), str(out)]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    # The processes search modules, such as plug-ins, in the same folders as this one. multiprocessing does so, too.
    searched = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), *sys.path]))
    environment = {**os.environ, "PYTHONPATH": searched}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            for line in running.stdout or ():
                if line.startswith(_PROGRESS_MARK):
                    progress(Progress(**json.loads(line.removeprefix(_PROGRESS_MARK))))
                else:
                    last.append(line)
        except BaseException:
            running.terminate()  # the launcher then ends its processes, which would go on training
            raise
    if running.returncode:
        cause = find_cause(folder) or "".join([*last, "To fix: see the last lines above"])
        raise DssmError(f"training in {count} processes failed (exit status {running.returncode}):\n{cause}")
    report = json.loads((out / _FULL_REPORT).read_text())
    return FitOutcome({path.name: path for path in sorted(out.iterdir()) if path.name != _FULL_REPORT}, report)


def main(arguments: list[str]) -> None:
    """Runs this process's part of a job. Its rank comes from the launcher. An error is written to the job's folder."""
    job_file, out = map(Path, arguments)
    is_due = keep_interval(time.perf_counter(), _PROGRESS_SECONDS)

    def print_progress(at: Progress) -> None:
        if ranks.is_first and (is_due(time.perf_counter()) or at.step == at.steps):
            print(_PROGRESS_MARK + json.dumps(asdict(at)), flush=True)

    try:
        job = FitJob.from_json(job_file.read_text())
        ConfigError.raise_if(import_plugins(job.plugins))
        with process_group(Training.model_validate(job.training).device) as ranks:
            if ranks.is_first:
                out.mkdir(parents=True)
            outcome = run_job(job, print_progress, time.perf_counter, out, ranks)
    except DssmError as error:
        write_error(job_file.parent, int(os.environ["RANK"]), error)
        raise
    if outcome is not None:
        (out / _FULL_REPORT).write_text(json.dumps(outcome.report))


@contextmanager
def process_group(device: Device) -> Iterator[ProcessGroup]:
    """Yields this process as a member of the group. Inside the block, the launcher's processes can exchange tensors."""
    is_cuda = device_of(device).type == "cuda"
    if is_cuda:
        torch.cuda.set_device(gpu_of(dist.get_node_local_rank(0), torch.cuda.device_count()))
    dist.init_process_group("nccl" if is_cuda else "gloo")
    try:
        yield ProcessGroup(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def gpu_of(local_rank: int, gpu_count: int) -> int:
    """Returns the number of a process's GPU: each process of a machine has its own.

    Raises:
        ConfigError: there are fewer GPUs than processes, which NCCL does not support.
    """
    if local_rank >= gpu_count:
        expected, got = f"at most {gpu_count} processes on this machine, one per GPU", f"{local_rank + 1} or more"
        options = "training.num_processes, or torchrun's --nproc-per-node"
        remedy = f"set {options}, to {gpu_count} at most, or training.device to cpu"
        raise ConfigError(Fault("training.num_processes on CUDA", expected, got, remedy))
    return local_rank


def write_error(folder: Path, rank: int, error: DssmError) -> None:
    text = f"process {rank}:\n{''.join(traceback.format_exception(error))}"
    write_atomic(folder / f"error-{rank}.txt", [text.encode()])


def find_cause(folder: Path) -> str | None:
    """Returns the first error that a process has written, or None."""
    written = sorted(folder.glob("error-*.txt"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return written[0].read_text() if written else None


if __name__ == "__main__":
    main(sys.argv[1:])
