"""What the event loop asks the engine's process for: the bytes of requests, answered together, and the bytes of their answers."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, NamedTuple

import orjson
import pyarrow as pa

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import DssmError
from dssm_assets.serving.recall_engine import RecallAnswer, RecallEngine, UserRequest
from dssm_assets.serving.refusals import error_content
from dssm_assets.serving.request_body import parse_batch_body, parse_recall_body, parse_recall_query, parse_similar_query

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
LISTED_AT_ONCE: Final = 256
"""Users of a batch whose lists are computed together."""

_log = logging.getLogger(__name__)


class Route(StrEnum):
    """What a call asks for, and in which form."""

    QUERY = "GET /recall"
    BODY = "POST /recall"
    BATCH = "POST /recall/batch"
    SIMILAR = "GET /similar"


class Call(NamedTuple):
    """A request: its route, its query or body, whether the answer is wanted as Arrow, and with the times of its stages."""

    route: Route
    content: bytes
    is_arrow: bool = False
    is_traced: bool = False


class Stage(NamedTuple):
    """A part of the time that calls took, in unix nanoseconds: parse, encode, search or render."""

    name: str
    start_ns: int
    end_ns: int


class Reply(NamedTuple):
    """An answer: its bytes, how many lists it has of each source, and the stages of a traced call."""

    body: bytes
    sources: Mapping[str, int]
    stages: tuple[Stage, ...] = ()


class _StageClock:
    """Times the stages of calls that are answered together, one stage after the other."""

    def __init__(self) -> None:
        self.stages: list[Stage] = []
        self._start_ns = time.time_ns()

    def end(self, name: str) -> None:
        """Ends a stage; the next one begins."""
        now = time.time_ns()
        self.stages.append(Stage(name, self._start_ns, now))
        self._start_ns = now


def answer_calls(engine: RecallEngine, calls: Sequence[Call], limits: ServiceLimits) -> list[Reply | DssmError]:
    """Returns the answer of each call, or why it has none. All come from one bundle; they share all stages but the last."""
    clock = _StageClock()
    wanted: list[list[UserRequest | RecallAnswer | Exception] | Exception] = []
    for call in calls:
        try:
            wanted.append(_parse(engine, call, limits))
        except Exception as error:
            wanted.append(error)
    clock.end("parse")
    requests = [one for part in wanted if isinstance(part, list) for one in part if isinstance(one, UserRequest)]
    found: list[RecallAnswer | Exception] = []
    for start in range(0, len(requests), LISTED_AT_ONCE):
        found += engine.recall_for_users(requests[start : start + LISTED_AT_ONCE], lambda: clock.end("encode"))
        clock.end("search")
    rest, shared = iter(found), tuple(clock.stages)
    replies: list[Reply | DssmError] = []
    for call, part in zip(calls, wanted, strict=True):
        if isinstance(part, Exception):
            replies.append(_client_error(part))
            continue
        answers = [next(rest) if isinstance(one, UserRequest) else one for one in part]
        reply = _reply(engine, call, [_client_error(one) if isinstance(one, Exception) else one for one in answers], limits)
        if call.is_traced and isinstance(reply, Reply):
            clock.end("render")
            reply = reply._replace(stages=(*shared, clock.stages[-1]))
        replies.append(reply)
    return replies


def _parse(engine: RecallEngine, call: Call, limits: ServiceLimits) -> list[UserRequest | RecallAnswer | Exception]:
    if call.route is Route.QUERY:
        return [parse_recall_query(call.content)]
    if call.route is Route.BODY:
        return [parse_recall_body(call.content, limits)]
    if call.route is Route.SIMILAR:
        return [engine.similar_items(*parse_similar_query(call.content))]
    return [*parse_batch_body(call.content, limits)]


def _client_error(error: Exception) -> DssmError:
    """Returns an error as it is sent to the client; an unexpected one is logged."""
    if isinstance(error, DssmError):
        return error.with_traceback(None)
    _log.error("a list failed", exc_info=error)
    return DssmError(f"{type(error).__name__}: {error}")


def _reply(
    engine: RecallEngine, call: Call, answers: list[RecallAnswer | DssmError], limits: ServiceLimits
) -> Reply | DssmError:
    lists = [one for one in answers if isinstance(one, RecallAnswer)]
    sources = Counter(one.source.value for one in lists)
    if call.route is not Route.BATCH:
        (answer,) = answers
        if isinstance(answer, DssmError):
            return answer
        return Reply(_arrow_bytes(engine, answers, limits) if call.is_arrow else orjson.dumps(answer.to_dict()), sources)
    if call.is_arrow:
        return Reply(_arrow_bytes(engine, answers, limits), sources)
    content = [one.to_dict() if isinstance(one, RecallAnswer) else _error(one, limits) for one in answers]
    return Reply(orjson.dumps({"answers": content}), sources)


def _arrow_bytes(engine: RecallEngine, answers: list[RecallAnswer | DssmError], limits: ServiceLimits) -> bytes:
    """Returns a stream with a row per answer: source, item_ids, scores, a column `fields.NAME` for each item column, and error.

    The error is JSON, and null where there is a list.
    """
    lists = [one if isinstance(one, RecallAnswer) else None for one in answers]
    errors = [None if isinstance(one, RecallAnswer) else orjson.dumps(_error(one, limits)).decode() for one in answers]
    fields = [(one and one.fields) or {} for one in lists]
    types = {name: _json_type(engine.bundle.item_columns.schema.field(name).type) for own in fields for name in own}
    columns = {f"fields.{name}": pa.array([own.get(name) for own in fields], pa.list_(kind)) for name, kind in types.items()}
    table = pa.table(
        {
            "source": pa.array([one and one.source.value for one in lists], pa.string()),
            "item_ids": pa.array([one and one.item_ids for one in lists], pa.list_(engine.bundle.items.id_type)),
            "scores": pa.array([one and one.scores for one in lists], pa.list_(pa.float64())),
            **columns,
            "error": pa.array(errors, pa.string()),
        },
        metadata={"bundle_id": engine.bundle.bundle_id},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _json_type(kind: pa.DataType) -> pa.DataType:
    """Returns the type of an item column's values in an answer: dates and times are text."""
    if pa.types.is_dictionary(kind):
        return _json_type(kind.value_type)
    if is_list(kind):
        return pa.list_(_json_type(kind.value_type))
    return pa.string() if pa.types.is_temporal(kind) else kind


def _error(error: DssmError, limits: ServiceLimits) -> dict[str, Any]:
    return error_content(type(error).__name__, getattr(error, "faults", []), limits.max_faults)
