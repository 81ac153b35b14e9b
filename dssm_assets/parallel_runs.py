"""Runs of a plan in parallel processes.

This process hands a run to a worker process as soon as the runs that it needs have ended, and receives the calls of the workers'
observers.
"""

import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from dssm_assets.core.errors import DssmError, ProcessLostError
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene

Make = Callable[[Scene, Observer], AbstractContextManager[Callable[[Any], object]]]
"""Prepares a process for runs of a scene; inside the block, a function that makes one of them. It can be pickled."""


def make_in_parallel(
    scene: Scene,
    runs: Sequence[Any],
    needs: Sequence[frozenset[int]],
    make: Make,
    observer: Observer,
    *,
    processes: int,
    may_fail: Callable[[Any], bool],
) -> Mapping[int, DssmError]:
    """Makes the runs, in this process or in several others; returns the errors of those that may fail, by their position.

    Args:
        runs: in the order in which they are begun.
        needs: for each run, the positions of earlier runs that end before it begins.
        observer: is asked for a follower of each process.
        may_fail: whether the other runs go on after a DssmError of a run.

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
        with make(scene, observer.for_worker()) as make_run:
            for number, run in enumerate(runs):
                try:
                    make_run(run)
                except DssmError as error:
                    note_failure(number, error)
        return failed

    left, ended = list(range(len(runs))), set[int]()
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(scene, make, observer.for_worker())) for _ in range(min(processes, len(runs)))]
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
                if method == _FAILED:
                    note_failure(worker.run, *arguments)
                if method in (_END, _FAILED):
                    ended.add(worker.run)
                    worker.run = None
                else:
                    getattr(worker.observer, method)(*arguments)
    return failed


_END, _FAILED = "end", "failed"


class _Worker:
    """A process that makes runs, one after the other; `run` is the position of the run that it makes."""

    def __init__(self, scene: Scene, make: Make, observer: Observer) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.connection, theirs = spawn.Pipe()
        self.run: int | None = None
        self.observer = observer
        self._process = spawn.Process(target=_work, args=(scene, make, theirs))
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
    with make(scene, _Forwarding(connection)) as make_run, suppress(EOFError, OSError):  # the first process was killed
        while True:
            run = connection.recv()
            answer: tuple[Any, ...] = (_END,)
            try:
                make_run(run)
            except DssmError as error:
                answer = (_FAILED, error)
            except BaseException:
                answer = (_FAILED, RuntimeError(f"{run}:\n{traceback.format_exc()}"))
            connection.send(answer)


class _Forwarding(Observer):
    """Forwards every call to another process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def on_log(self, text: str) -> None:
        self._connection.send(("on_log", text))

    def on_asset_done(self, name: str, seconds: float) -> None:
        self._connection.send(("on_asset_done", name, seconds))

    def on_partition(self, name: str, ds: str) -> None:
        self._connection.send(("on_partition", name, ds))

    def on_skipped(self, ds: str, reason: str) -> None:
        self._connection.send(("on_skipped", ds, reason))
