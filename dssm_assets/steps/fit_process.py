"""A fit shared by several processes: starting them, and what each of them runs.

`python -m torch.distributed.run --nproc-per-node N -m dssm_assets.steps.fit_process JOB OUT` runs a job file by hand.

Belongs here: the launch, the process group, progress as lines of JSON. Does not belong here: what is shared and how
(`core/training/distributed/ranks`), which process's fault is told (`fit_faults`), processes on several machines, which somebody
else starts (`commands/fit`).
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
from typing import Any

from dssm_assets.core.config.training import Device, Training
from dssm_assets.core.errors import ConfigError, DssmError, Fault
from dssm_assets.core.file_names import ModelFile
from dssm_assets.core.training.distributed.ranks import Ranks
from dssm_assets.core.training.loop import Progress
from dssm_assets.steps.fit_job import FitJob, FitOutcome, run_job
from dssm_assets.storage.local_files import write_atomic


def keep_fault(folder: Path, rank: int, error: BaseException) -> None:
    """Leaves what a process failed of in a folder, under its rank."""
    fault = {
        "is_typed": isinstance(error, DssmError),
        "is_connection": _is_connection(error),
        "words": "".join(traceback.format_exception(error)),
    }
    write_atomic(_path(folder, rank), [json.dumps(fault).encode()])  # the others' faults may end this process meanwhile


def told_fault(folder: Path) -> str | None:
    """Returns the earliest typed error, else the earliest that is no lost connection, with its rank; None if there is none."""
    by_time = sorted(folder.glob(_path(Path(), "*").name), key=lambda path: (path.stat().st_mtime_ns, path.name))
    faults: list[tuple[str, dict[str, Any]]] = [(path.stem, json.loads(path.read_text())) for path in by_time]
    causes = [found for found in faults if not found[1]["is_connection"]]
    if not causes:
        return None
    name, fault = min(causes, key=lambda found: not found[1]["is_typed"])  # the first of them by time
    return f"process {int(name.rpartition('-')[2])}:\n{fault['words']}"


def _path(folder: Path, rank: int | str) -> Path:
    return folder / f"fault-{rank}.json"


def _is_connection(error: BaseException) -> bool:
    """Tells whether a process failed because it could not reach another; gloo's errors have no class of their own."""
    from torch.distributed import DistError

    return isinstance(error, ConnectionError | DistError) or (type(error) is RuntimeError and "gloo" in str(error))


_MARK = "dssm-progress "
_SECONDS = 1.0
_LAST_LINES = 30
_TOLD = "told.json"


def run_in_processes(job: FitJob, folder: Path, count: int, progress: Callable[[Progress], None]) -> FitOutcome:
    """Returns what the job leaves when this many processes share its batches.

    Args:
        job: what is fitted.
        folder: empty, for the files that pass between the processes.
        count: processes on this machine.
        progress: called about once a second.

    Raises:
        DssmError: a process failed; the message holds its fault, or the last lines that they wrote where none left one.
    """
    job_file, out = folder / "job.json", folder / "out"
    job_file.write_text(job.to_json())
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command += ["-m", "dssm_assets.steps.fit_process", str(job_file), str(out)]
    last: deque[str] = deque(maxlen=_LAST_LINES)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            for line in running.stdout or ():
                if line.startswith(_MARK):
                    progress(Progress(**json.loads(line.removeprefix(_MARK))))
                else:
                    last.append(line)
        except BaseException:
            running.terminate()  # the launcher ends its processes; left alone they would go on training
            raise
    if running.returncode:
        words = told_fault(folder) or "".join(last)
        raise DssmError(f"training in {count} processes ended with {running.returncode}:\n{words}")
    report = json.loads((out / _TOLD).read_text())
    files = {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.name not in (ModelFile.WEIGHTS, _TOLD)}
    return FitOutcome(files, report, out / ModelFile.WEIGHTS)


def main(arguments: list[str]) -> None:
    """Runs this process's share of a job; what it fails of is left beside the job. The launcher says which process it is."""
    job_file, out = map(Path, arguments)
    try:
        _run(FitJob.from_json(job_file.read_text()), out)
    except Exception as error:
        keep_fault(job_file.parent, int(os.environ["RANK"]), error)
        raise


def gpu_of(local_rank: int, gpu_count: int) -> int:
    """Returns the GPU of a process by its number on its machine: each process has one to itself.

    Raises:
        ConfigError: there are fewer GPUs than processes, which NCCL cannot serve.
    """
    if local_rank >= gpu_count:
        expected, got = f"at most {gpu_count} processes on this machine, one per GPU", f"{local_rank + 1} or more"
        remedy = (
            f"set training.num_processes, or torchrun's --nproc-per-node, to {gpu_count} at most, or training.device to cpu"
        )
        raise ConfigError(Fault("training.num_processes on CUDA", expected, got, remedy))
    return local_rank


@contextmanager
def process_group(device: Device) -> Iterator[Ranks]:
    """Yields which of the launcher's processes this is; they can exchange tensors inside the block."""
    import torch
    import torch.distributed as dist

    from dssm_assets.core.training.distributed.ranks import Ranks
    from dssm_assets.core.training.trainer import device_of

    is_cuda = device_of(device).type == "cuda"
    if is_cuda:
        torch.cuda.set_device(gpu_of(dist.get_node_local_rank(0), torch.cuda.device_count()))
    dist.init_process_group("nccl" if is_cuda else "gloo")
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def _run(job: FitJob, out: Path) -> None:
    told_at = 0.0

    def progress(at: Progress) -> None:
        nonlocal told_at
        if ranks.is_first and (at.step == at.steps or time.perf_counter() - told_at >= _SECONDS):
            told_at = time.perf_counter()
            print(_MARK + json.dumps(asdict(at)), flush=True)

    with process_group(Training.model_validate(job.training).device) as ranks:
        if ranks.is_first:
            out.mkdir(parents=True)
        outcome = run_job(job, progress, time.perf_counter, ranks, out)
    if outcome is not None:
        for name, content in outcome.files.items():
            (out / name).write_bytes(content)
        (out / _TOLD).write_text(json.dumps(outcome.report))


if __name__ == "__main__":
    main(sys.argv[1:])
