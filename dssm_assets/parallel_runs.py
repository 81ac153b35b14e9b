"""Runs of a plan in parallel: this process makes one run at a time, worker processes make others.

A run begins when the runs that it needs have ended. Processes are spawned, and import what they need while the first run is
made. Calls of their observers are forwarded to this process.
"""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from multiprocessing.connection import Connection
from typing import Any

from dssm_assets.core.errors import DssmError, ProcessLostError
from dssm_assets.defs.asset_factory import Observer
from dssm_assets.defs.scene import Scene

Make = Callable[[Scene, Observer], AbstractContextManager[Callable[[Any], object]]]
"""Prepares a process for runs of a scene; inside the block, what makes one of them. It can be pickled."""


class _Schedule:
    """Which runs are left, and which may begin. Used by several threads."""

    def __init__(self, needs: Sequence[frozenset[int]]) -> None:
        """Sets of each run the runs before it that it needs."""
        self._needs, self._left, self._ended = needs, list(range(len(needs))), set[int]()
        self._is_stopped, self._changed = False, threading.Condition()

    def take(self) -> int | None:
        """Returns the first run that may begin, as soon as there is one; None: there is nothing left to do."""
        with self._changed:
            while True:
                if self._is_stopped or not self._left:
                    return None
                found = next((run for run in self._left if self._needs[run] <= self._ended), None)
                if found is not None:
                    self._left.remove(found)
                    return found
                self._changed.wait()

    def end(self, run: int) -> None:
        """Notes that a run has ended, well or not."""
        with self._changed:
            self._ended.add(run)
            self._changed.notify_all()

    def stop(self) -> None:
        """Lets no further run begin."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()


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
    """Makes the runs in several processes; returns the errors of those that may fail, by their place.

    Args:
        runs: in the order in which they are begun.
        needs: of each run the places of earlier runs that end before it begins.
        observer: is asked for a follower of each process.
        processes: this one and processes - 1 others.
        may_fail: whether the other runs go on after a DssmError of a run.

    Raises:
        DssmError: of a run that may not fail. The other processes are ended before.
        ProcessLostError: a process was killed.
    """
    schedule, failed, fatal = _Schedule(needs), dict[int, DssmError](), list[BaseException]()

    def work(make_run: Callable[[Any], object]) -> None:
        while (place := schedule.take()) is not None:
            try:
                make_run(runs[place])
            except DssmError as error:
                if isinstance(error, ProcessLostError) or not may_fail(runs[place]):
                    raise
                failed[place] = error
            schedule.end(place)

    def work_elsewhere(worker: _WorkerProcess) -> None:
        try:
            work(worker.make_run)
            worker.end()  # no run is left that may begin: its memory is for the last ones
        except BaseException as error:
            fatal.append(error)
            schedule.stop()

    with ExitStack() as stack:
        workers = [stack.enter_context(_WorkerProcess(scene, make, observer.for_worker())) for _ in range(processes - 1)]
        threads = [threading.Thread(target=work_elsewhere, args=(worker,), daemon=True) for worker in workers]
        for thread in threads:
            thread.start()
        try:
            with make(scene, observer.for_worker()) as make_run:
                work(make_run)
            for thread in threads:
                thread.join()
        finally:
            schedule.stop()
    if fatal:
        raise fatal[0]
    return failed


class _WorkerProcess:
    """A process that makes runs, one after the other."""

    def __init__(self, scene: Scene, make: Make, observer: Observer) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._connection, theirs = spawn.Pipe()
        self._observer, self._is_ended = observer, False
        self._process = spawn.Process(target=_work, args=(scene, make, theirs))
        self._process.start()
        theirs.close()  # so that a killed process is noticed here

    def __enter__(self) -> "_WorkerProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends the process, and those that it has started, whatever they do."""
        if self._is_ended:
            return
        self._is_ended = True
        assert self._process.pid is not None
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:  # it has no session of its own yet, or has ended
            self._process.kill()
        self._process.join()

    def make_run(self, run: Any) -> None:
        """Makes a run in the process; passes on to the observer what happens there.

        Raises:
            DssmError: that of the run.
            ProcessLostError: the process was killed.
            RuntimeError: any other error of the run, with its traceback.
        """
        self._exchange(run, lambda: self._connection.send(run))
        while True:
            method, *arguments = self._exchange(run, self._connection.recv)
            if method == _END:
                return
            if method == _FAILED:
                raise arguments[0]
            getattr(self._observer, method)(*arguments)

    def _exchange(self, run: Any, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (EOFError, OSError) as error:
            self._process.kill()
            self._process.join()
            status = f"exit status {self._process.exitcode}"
            raise ProcessLostError(
                f"{run}: the process that made it was ended ({status}). To fix: see that it has memory"
            ) from error


_END, _FAILED = "end", "failed"


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
