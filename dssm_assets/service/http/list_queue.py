"""Queues requests for lists and computes them in threads, several at once if they are cheap, each within its time limit.

An event loop puts requests in and gets all answers of a group at once, because it would wait for the thread between answers.
Does not belong here: making lists (`recall_engine.py`), the bytes of answers (`answers.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import faiss

from dssm_assets.core.errors import DssmError, Fault, InputError, StorageError
from dssm_assets.core.retrieval.item_filter import count_conditions
from dssm_assets.service.engine.live import LiveEngine
from dssm_assets.service.engine.recall_engine import DEFAULT_K, RecallAnswer, RecallEngine, UserRequest
from dssm_assets.service.http.answers import BusyError, Reply, render
from dssm_assets.service.http.request_body import MAX_ITEMS, Requests, count_items
from dssm_assets.service.http.telemetry import Stage, StageClock

ANSWERED_TOGETHER: Final = 16
"""A thread takes at most so many single lists together."""
GATHER_SECONDS: Final = 0.003
"""Lists with inputs wait so long for others. Encoding the features of one user takes longer."""
COMPUTED_TOGETHER: Final = 100
"""At most so many requests of a batch are computed at once, because FAISS needs memory for each."""
ITEMS_TOGETHER: Final = COMPUTED_TOGETHER * DEFAULT_K
"""Requests computed at once ask for at most so many items; a single request may ask for more."""
COMPARED_TOGETHER: Final = 10_000_000
"""Requests computed at once compare items with conditions at most so many times (about .1 s); a single request may need more."""


@dataclass(frozen=True, eq=False)
class _Call:
    requests: Requests
    is_batch: bool
    is_arrow: bool
    ends_at: float
    """Time when its client gives up, by time.monotonic."""
    parsed: Stage
    reply: asyncio.Future[Reply]

    @property
    def has_inputs(self) -> bool:
        return any(isinstance(one, UserRequest) and not one.inputs.is_empty for one in self.requests)


class ListQueue:
    """Computes lists in threads. All methods must be called in the same event loop."""

    def __init__(self, live: LiveEngine, threads: int, seconds: float) -> None:
        self._live, self._seconds = live, seconds
        # Each thread searches on one core; together they use all cores.
        self._threads = ThreadPoolExecutor(threads, "recall", faiss.omp_set_num_threads, (1,))
        self._max_items = threads * MAX_ITEMS
        self._idle = threads
        """Number of threads not yet called for single lists."""
        self._waiting: deque[_Call] = deque()
        """Single lists that no thread has taken yet."""
        self._encoded_together = 0
        """Number of lists with inputs that a thread last took at once."""
        self._computing: dict[_Call, int] = {}
        """Call that waits or is computed -> number of items that it asks for if it is a batch; 0 for a single list."""

    def __len__(self) -> int:
        return len(self._computing)

    async def compute(self, requests: Requests, parsed: Stage, *, is_batch: bool, is_arrow: bool) -> Reply:
        """Computes one request or a batch from one bundle. `parsed` becomes the first stage of the answer.

        Raises:
            DssmError: no list can be computed.
            BusyError: too many items of batches wait or are computed, or this request takes too long.
        """
        items, loop = count_items(requests) if is_batch else 0, asyncio.get_running_loop()
        if items and (total := sum(self._computing.values()) + items) > self._max_items:
            raise busy(f"at most {self._max_items} items of batches at once", str(total))
        call = _Call(requests, is_batch, is_arrow, time.monotonic() + self._seconds, parsed, loop.create_future())
        self._computing[call] = items
        if is_batch:
            self._threads.submit(self._answer_calls, loop, [call])
        else:
            self._waiting.append(call)
            self._call_soon(loop)
        try:
            return await asyncio.wait_for(call.reply, self._seconds)
        except TimeoutError as error:
            raise busy(f"a list in {self._seconds:g} seconds", "none") from error

    def close(self) -> None:
        """Stops the threads when they finish their current lists."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _call_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls an idle thread after this turn of the loop, because the turn may bring further lists.

        If several clients send inputs, their lists wait a moment for each other: 16 users' features are encoded as fast as one user's.
        """
        gathers = self._encoded_together > 1 and self._waiting and self._waiting[0].has_inputs
        loop.call_later(GATHER_SECONDS if gathers else 0, self._call_thread, loop)

    def _call_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._waiting and self._idle:
            self._idle -= 1
            self._threads.submit(self._work, loop)

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._answer_waiting(loop)
        finally:
            loop.call_soon_threadsafe(self._end_work, loop)

    def _end_work(self, loop: asyncio.AbstractEventLoop) -> None:
        self._idle += 1
        self._call_soon(loop)

    def _answer_waiting(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answers single lists together, because this costs less: this thread's share of them, or all lists with inputs."""
        calls, most = list[_Call](), -(-len(self._waiting) // (self._idle + 1))
        with suppress(IndexError):
            while len(calls) < (ANSWERED_TOGETHER if calls and calls[0].has_inputs else min(most, ANSWERED_TOGETHER)):
                calls.append(self._waiting.popleft())
        if calls and calls[0].has_inputs:
            self._encoded_together = len(calls)
        self._answer_calls(loop, calls)

    def _answer_calls(self, loop: asyncio.AbstractEventLoop, calls: Sequence[_Call]) -> None:
        wanted = [call for call in calls if not call.reply.done()]
        replies: list[Reply | Exception] = []
        try:
            if wanted:
                replies = self._compute(loop, self._live.engine, wanted)
        except Exception as error:
            replies = [error] * len(wanted)
        loop.call_soon_threadsafe(self._send, calls, dict(zip(wanted, replies, strict=True)))

    def _send(self, calls: Sequence[_Call], replies: Mapping[_Call, Reply | Exception]) -> None:
        for call in calls:
            del self._computing[call]
            if call.reply.done():  # its client has given up
                continue
            if isinstance(reply := replies[call], Exception):
                call.reply.set_exception(reply)
            else:
                call.reply.set_result(reply)

    def _compute(
        self, loop: asyncio.AbstractEventLoop, engine: RecallEngine, calls: Sequence[_Call]
    ) -> list[Reply | Exception]:
        """Returns each call's reply. Waiting single lists are answered before a batch, and also in the middle of a long batch."""
        clock, found = StageClock(), list[RecallAnswer | DssmError]()
        requests = [one for call in calls for one in call.requests if isinstance(one, UserRequest)]
        for part in split_by_cost(requests, len(engine.bundle.items)):
            if calls[0].is_batch and self._waiting:
                self._answer_waiting(loop)
            if time.monotonic() > max(call.ends_at for call in calls):
                raise busy("time for the list", "none")
            found += engine.recall_for_users(part, lambda: clock.end("encode"))
            clock.end("search")
        lists, shared, replies = iter(found), tuple(clock.stages), list[Reply | Exception]()
        for call in calls:
            answers = [next(lists) if isinstance(one, UserRequest) else one for one in call.requests]
            # In a batch, errors of requests are answers beside the lists. Errors of the service are raised.
            is_fatal = StorageError if call.is_batch else DssmError
            if (failed := next((one for one in answers if isinstance(one, is_fatal)), None)) is not None:
                replies.append(failed)
                continue
            reply = render(engine, answers, is_batch=call.is_batch, is_arrow=call.is_arrow)
            clock.end("render")
            replies.append(reply._replace(stages=(call.parsed, *shared, clock.stages[-1])))
        return replies


def split_by_cost(requests: Sequence[UserRequest], item_count: int) -> Iterator[Sequence[UserRequest]]:
    """Splits requests into groups of about .1 s of work, in their order. A larger request is a group by itself.

    A list costs its number of items. A filter that differs from the previous request's adds its conditions times all items.
    """
    start, items, compared, before = 0, 0, 0, ""
    for position, request in enumerate(requests):
        more_items, filters = count_items([request]), repr(request.options.filters)  # 1 and true are equal, their texts are not
        more_compared = 0 if filters == before else item_count * _count_conditions(request.options.filters)
        before = filters
        is_full = position - start >= COMPUTED_TOGETHER or items + more_items > ITEMS_TOGETHER
        if position > start and (is_full or compared + more_compared > COMPARED_TOGETHER):
            yield requests[start:position]
            start, items, compared = position, 0, 0
        items, compared = items + more_items, compared + more_compared
    if start < len(requests):
        yield requests[start:]


def _count_conditions(filters: Any) -> int:
    try:
        return count_conditions(filters)
    except InputError:
        return 0


def busy(expected: str, got: str) -> BusyError:
    """Returns the error for a request that may succeed later."""
    return BusyError(Fault("service", expected, got, "try again later"))
