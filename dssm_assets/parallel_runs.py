"""Makes the runs of a plan in parallel processes.

This process gives a run to a worker as soon as the runs that it needs have ended, and receives the calls of the workers'
observers. Workers are forked from a server that has imported the runs' modules once.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from dssm_assets.core.errors import DssmError, ProcessLostError
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene

Make = Callable[[Scene, Observer], AbstractContextManager[Callable[[Any], object]]]
"""A context manager that prepares a process for runs of a scene. It yields a function that makes one run. It can be pickled."""
_END = "end"


def make_in_parallel(
    scene: Scene,
    runs: Sequence[Any],
    needs: Sequence[frozenset[int]],
    make: Make,
    observer: Observer,
    *,
    processes: int,
    may_fail: Callable[[Any], bool],
    modules: Sequence[str] = (),
) -> Mapping[int, DssmError]:
    """Makes the runs in this process or in several. Returns position -> error for the failed runs that may fail.

    Args:
        needs: for each run, the positions of runs that must end before it begins.
        may_fail: returns whether a run may fail: the other runs then go on after its DssmError.
        modules: modules to import once for all workers.

    Raises:
        DssmError: a run that may not fail has failed. The other processes are ended first.
        ProcessLostError: a process was killed.
    """
    failed: dict[int, DssmError] = {}

    def note_failure(run: int, error: Exception) -> None:
        if not isinstance(error, DssmError) or not may_fail(runs[run]):
            raise error
        failed[run] = error

    if processes == 1:
        with make(scene, observer) as make_run:
            for number, run in enumerate(runs):
                try:
                    make_run(run)
                except DssmError as error:
                    note_failure(number, error)
        return failed

    server = multiprocessing.get_context("forkserver")
    if modules:
        server.set_forkserver_preload([*modules])
    pipes = [server.Pipe() for _ in range(min(processes, len(runs)))]
    workers = [server.Process(target=_work, args=(scene, make, theirs)) for _, theirs in pipes]
    for worker, (_, theirs) in zip(workers, pipes, strict=True):
        worker.start()
        theirs.close()  # closed here, so that this process notices a killed worker
    try:
        _hand_out([ours for ours, _ in pipes], runs, needs, observer, note_failure)
    except BaseException:
        for worker in workers:
            try:
                os.killpg(cast(int, worker.pid), signal.SIGKILL)  # kills the worker and all processes that it has started
            except ProcessLookupError:  # the worker has no own session yet, or has ended
                worker.kill()
        raise
    finally:
        for worker in workers:
            worker.join()
    return failed


def _hand_out(
    workers: Sequence[Any],
    runs: Sequence[Any],
    needs: Sequence[frozenset[int]],
    observer: Observer,
    note_failure: Callable[[int, Exception], None],
) -> None:
    """Sends the runs to the workers (connections) until all runs have ended. Then ends the workers."""
    left, ended = list(range(len(runs))), set[int]()
    at_work: dict[Any, int | None] = dict.fromkeys(workers)
    while len(ended) < len(runs):
        for worker in [worker for worker, run in at_work.items() if run is None]:
            ready = next((run for run in left if needs[run] <= ended), None)
            if ready is not None:
                left.remove(ready)
                at_work[worker] = ready
                with suppress(OSError):  # if it was killed, `_receive` raises the error
                    worker.send(runs[ready])
            elif not left:
                del at_work[worker]
                worker.close()  # ends the worker, so that the last runs can use its memory
        for worker in wait([worker for worker, run in at_work.items() if run is not None]):
            number = at_work[worker]
            assert number is not None
            method, *arguments = _receive(worker, runs[number])
            if method != _END:
                getattr(observer, method)(*arguments)
                continue
            for error in arguments:
                note_failure(number, error)
            ended.add(number)
            at_work[worker] = None
    for worker in at_work:
        worker.close()


def _receive(worker: Any, run: Any) -> tuple[Any, ...]:
    try:
        return tuple(worker.recv())
    except (EOFError, OSError) as error:
        remedy = "see the error above, or give it more memory"
        raise ProcessLostError(f"{run}: the process that made it has ended. To fix: {remedy}") from error


def _work(scene: Scene, make: Make, connection: Connection) -> None:
    """Makes the runs that arrive, until the first process closes the connection or is killed."""
    os.setsid()  # Ctrl-C then does not reach this worker; the first process ends it, with all processes that it has started
    observer = Observer()
    for name in ("on_log", "on_partition", "on_skipped", "on_check"):
        setattr(observer, name, lambda *arguments, name=name: connection.send((name, *arguments)))
    with make(scene, observer) as make_run, suppress(EOFError, OSError):
        while True:
            run = connection.recv()
            errors: list[Exception] = []
            try:
                make_run(run)
            except DssmError as error:
                errors = [error]
            except BaseException:
                errors = [RuntimeError(f"{run}:\n{traceback.format_exc()}")]
            connection.send((_END, *errors))
