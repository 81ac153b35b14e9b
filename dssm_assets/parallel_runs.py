"""Runs of a plan in parallel processes.

This process hands a run to a worker process as soon as the runs that it needs have ended, and receives the calls of the workers'
observers. Workers are forked from a process that has imported what the runs need and does nothing else.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any

from dssm_assets.core.errors import DssmError, ProcessLostError
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene

Make = Callable[[Scene, Observer], AbstractContextManager[Callable[[Any], object]]]
"""Prepares a process for runs of a scene; inside the block, a function that makes one of them. It can be pickled."""
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
    """Makes the runs, in this process or in several others; returns the errors of those that may fail, by their position.

    Args:
        runs: in the order in which they are begun.
        needs: for each run, the positions of earlier runs that end before it begins.
        may_fail: whether the other runs go on after a DssmError of a run.
        modules: are imported once for all processes.

    Raises:
        DssmError: of a run that may not fail. The processes are ended before.
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

    left, ended = list(range(len(runs))), set[int]()
    multiprocessing.set_forkserver_preload([__name__, *modules])
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(scene, make)) for _ in range(min(processes, len(runs)))]
        while len(ended) < len(runs):
            for worker in workers:
                ready = next((run for run in left if needs[run] <= ended), None)
                if worker.run is None and ready is not None:
                    left.remove(ready)
                    worker.begin(ready, runs[ready])
                elif worker.run is None and not left:
                    worker.end()  # its memory is for the last runs
            busy = {worker.connection: worker for worker in workers if worker.run is not None}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                assert worker.run is not None
                method, *arguments = worker.receive(runs[worker.run])
                if method != _END:
                    getattr(observer, method)(*arguments)
                    continue
                for error in arguments:
                    note_failure(worker.run, error)
                ended.add(worker.run)
                worker.run = None
    return failed


class _Worker:
    """A process that makes runs, one after the other; `run` is the position of the run that it makes."""

    def __init__(self, scene: Scene, make: Make) -> None:
        context = multiprocessing.get_context("forkserver")
        self.connection, theirs = context.Pipe()
        self.run: int | None = None
        self._process = context.Process(target=_work, args=(scene, make, theirs))
        self._process.start()
        theirs.close()  # so that a killed process is noticed here

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def begin(self, number: int, run: Any) -> None:
        self.run = number
        with suppress(OSError):  # the process was killed, which `receive` says
            self.connection.send(run)

    def receive(self, run: Any) -> tuple[Any, ...]:
        """Returns a message of the process: a call of its observer, or the end of its run.

        Raises:
            ProcessLostError: the process was killed.
        """
        try:
            return tuple(self.connection.recv())
        except (EOFError, OSError) as error:
            self._process.kill()
            self._process.join()
            status = f"exit status {self._process.exitcode}"
            text = f"{run}: the process that made it was ended ({status}). To fix: see that it has memory"
            raise ProcessLostError(text) from error

    def end(self) -> None:
        """Ends the process, and those that it has started, whatever they do."""
        if self._process.is_alive() and self._process.pid is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no session of its own yet
                self._process.kill()
        self._process.join()


def _work(scene: Scene, make: Make, connection: Connection) -> None:
    """Makes the runs that arrive, until it is ended."""
    os.setsid()  # Ctrl-C does not reach it: the first process ends it, and with it all that it has started
    observer = Observer()
    for name in ("on_log", "on_partition", "on_skipped"):
        setattr(observer, name, partial(_send, connection, name))
    with make(scene, observer) as make_run, suppress(EOFError, OSError):  # the first process was killed
        while True:
            run = connection.recv()
            errors: list[Exception] = []
            try:
                make_run(run)
            except DssmError as error:
                errors = [error]
            except BaseException:
                errors = [RuntimeError(f"{run}:\n{traceback.format_exc()}")]
            _send(connection, _END, *errors)


def _send(connection: Connection, *message: object) -> None:
    connection.send(message)
