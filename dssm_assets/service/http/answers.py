"""The service's answers: lists as JSON or Arrow, refusals with their statuses, and models of both for /docs.

Tests compare the models with real answers. Does not belong here: making lists (`recall_engine.py`), requests (`request_body.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Any, ClassVar, Final, Literal, NamedTuple

import orjson
import pyarrow as pa
from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from dssm_assets.core.arrays.ragged import is_list
from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.service.engine.recall_engine import AnswerSource, HookState, RecallAnswer, RecallEngine
from dssm_assets.service.http.telemetry import Stage

JSON: Final = "application/json"
ARROW: Final = "application/vnd.apache.arrow.stream"
MAX_FAULTS: Final = 20
RETRY_AFTER: Final = {"retry-after": "1"}
"""Headers of status 503."""


class BodyTooLargeError(InputError):
    """The body has more bytes than max_body_bytes."""

    status: ClassVar[int] = 413


class UnauthorizedError(InputError):
    """The request has no API key of this service, or the key has expired."""

    status: ClassVar[int] = 401


class ForbiddenError(InputError):
    """The API key lacks the scope that the request needs."""

    status: ClassVar[int] = 403


class BusyError(InputError):
    """The service is overloaded, slow at the moment, or shutting down: the same request may succeed later."""

    status: ClassVar[int] = 503


def error_content(error: str, faults: Sequence[Fault]) -> dict[str, Any]:
    """Returns an error as JSON content: its name and first faults, each with where, expected, got and remedy."""
    left_out = {"faults_left_out": len(faults) - MAX_FAULTS} if len(faults) > MAX_FAULTS else {}
    return {"error": error, "faults": [asdict(one) for one in faults[:MAX_FAULTS]], **left_out}


class Reply(NamedTuple):
    """The bytes of an answer, its number of lists by source, and the stages of its time."""

    body: bytes
    sources: Mapping[str, int]
    stages: tuple[Stage, ...] = ()


def render(engine: RecallEngine, answers: Sequence[RecallAnswer | DssmError], *, is_batch: bool, is_arrow: bool) -> Reply:
    """Returns the bytes of an answer. A batch has lists and errors."""
    sources = Counter(one.source.value for one in answers if isinstance(one, RecallAnswer))
    if is_arrow:
        return Reply(_arrow_bytes(engine, answers), sources)
    content = [one.to_dict() if isinstance(one, RecallAnswer) else _error(one) for one in answers]
    return Reply(orjson.dumps({"answers": content} if is_batch else content[0]), sources)


def _arrow_bytes(engine: RecallEngine, answers: Sequence[RecallAnswer | DssmError]) -> bytes:
    """Returns a stream with a row per answer: source, item_ids, scores, a column `fields.NAME` for each item column, and error (JSON).

    Also request_id and variant where there are any, and bundle_id where variants come from other bundles.
    """
    lists = [one if isinstance(one, RecallAnswer) else None for one in answers]
    errors = [None if isinstance(one, RecallAnswer) else orjson.dumps(_error(one)).decode() for one in answers]
    fields = [(one and one.fields) or {} for one in lists]
    types = {name: _json_type(engine.bundle.item_columns.schema.field(name).type) for own in fields for name in own}
    columns = {f"fields.{name}": pa.array([own.get(name) for own in fields], pa.list_(kind)) for name, kind in types.items()}
    named = {name: [one and getattr(one, name) for one in lists] for name in ("request_id", "variant")}
    if any(one and one.bundle_id != engine.bundle.bundle_id for one in lists):
        named["bundle_id"] = [one and one.bundle_id for one in lists]
    table = pa.table(
        {
            "source": pa.array([one and one.source.value for one in lists], pa.string()),
            "item_ids": pa.array([one and one.item_ids for one in lists], pa.list_(engine.bundle.items.id_type)),
            "scores": pa.array([one and one.scores for one in lists], pa.list_(pa.float64())),
            **columns,
            **{name: pa.array(values, pa.string()) for name, values in named.items() if any(values)},
            "error": pa.array(errors, pa.string()),
        },
        metadata={"bundle_id": engine.bundle.bundle_id},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def _json_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _json_type(kind.value_type)
    if is_list(kind):
        return pa.list_(_json_type(kind.value_type))
    return pa.string() if pa.types.is_temporal(kind) else kind


def _error(error: DssmError) -> dict[str, Any]:
    return error_content(type(error).__name__, getattr(error, "faults", []))


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ItemReasons(_Answer):
    """Why an item is in a merged list."""

    signals: dict[str, float] = Field(
        description="The parts of the score: intercept, and the part of each signal of a channel."
    )
    goes_with: list[int | str] = Field(description="The user's items most similar to it as neighbors, best first.")
    without: list[tuple[int | str, float]] = Field(
        description="Pairs of one of the user's last ten items and the change of the similarity of vectors without its events; "
        "largest change first."
    )


class ItemList(_Answer):
    """A list of items, best first. A key that does not apply is absent."""

    bundle_id: str = Field(description="The bundle that the whole answer comes from.")
    source: AnswerSource = Field(
        description="stored: the user's vector in the bundle; features: the vector of the request's inputs; popular: no vector; item: "
        "an item's vector."
    )
    ignored: list[str] | None = Field(default=None, description="Inputs of the request that were not used.")
    replaced: list[Literal["features", "history"]] | None = Field(
        default=None,
        description="Inputs of a stored user that were not read from the bundle: the request sent them, or the bundle has none.",
    )
    item_ids: list[int | str] = Field(description="Best first.")
    scores: list[float] = Field(
        description="Score of each item. In a merged list: log-odds that the user interacts with it. In a list of vectors alone: "
        "similarity. Of popular items: recent positive events; without channels, positive events of the window."
    )
    sources: list[list[str]] | None = Field(
        default=None, description="The channels that proposed each item, or popular; absent in a list of vectors alone."
    )
    fields: dict[str, list[Any]] | None = Field(default=None, description="Item column -> its value for each item.")
    reasons: list[ItemReasons] | None = Field(default=None, description="Why each item is there, with `explain`.")
    request_id: str | None = Field(default=None, description="Names the answer for POST /shown, where answers are kept.")
    variant: str | None = Field(default=None, description="The variant that answered, where there are any.")


class Refusal(_Answer):
    """The reason for not answering with a list."""

    error: str = Field(description="Name of the error, such as InputError.")
    faults: list[Fault]
    faults_left_out: int | None = Field(default=None, description=f"Further faults, beyond {MAX_FAULTS}.")


class BatchAnswer(_Answer):
    """One list or error per request, in the order of the requests."""

    answers: list[ItemList | Refusal]


class Health(_Answer):
    """The served bundle, its age and its size."""

    status: Literal["ok", "stale"] = Field(
        description="stale: a new bundle or a list cannot be used, no item is shown, a place can no longer be read, or answers cannot be kept."
    )
    bundle_id: str
    name: str
    ds: str = Field(description="The day of the bundle, YYYY-MM-DD.")
    age_days: int
    loaded_seconds_ago: float
    users: int = Field(description="Users with a stored vector.")
    items: int
    dims: int
    refused_bundle_id: str | None = Field(description="The published bundle that cannot be used; null if there is none.")
    bundle_fault: str | None = Field(
        description="Why it cannot be used: a damaged file, a missing or wrong signature, or a vector store that lacks it."
    )
    list_fault: str | None = Field(description="Why the lists of the shop cannot be used; null if they can.")
    watch_fault: str | None = Field(
        description="Names what could not be read for three intervals, since when and why: bundles, users to be forgotten, API keys, or "
        "lists of the shop."
    )
    shown: HookState | None = Field(
        description="The log of answers and the bundles of variants; null without serving.shown and variants."
    )


class Readiness(_Answer):
    """Whether the service can answer with lists now."""

    is_ready: bool


class DocsSection(StrEnum):
    LISTS = "lists"
    STATE = "state"


SECTIONS: Final = {
    DocsSection.LISTS: "Lists of items. Examples have ids of the demo.",
    DocsSection.STATE: "What serves, for probes and for Prometheus; without a key.",
}
SECURITY: Final = (
    Security(HTTPBearer(description="An API key of --api-key-file, if there is one.")),
    Security(APIKeyHeader(name="X-API-Key", description="The same key.")),
)
"""Either header suffices. `access.py` checks them."""
_REASONS: Final[dict[int | str, str]] = {
    400: "The request is wrong: every fault is named.",
    401: "It has no API key of this service, or the key's last day is over.",
    403: "Its API key lacks a scope: recall, similar, or events for a body with events.",
    404: "The bundle has no such user or item, or no such answer is remembered.",
    409: "What was shown in place of this answer is known already.",
    413: "The body is larger than serving.limits.max_body_bytes.",
    503: "The service has too much to do; the header retry-after says when to try again.",
    "default": "Any other refusal, such as 500.",
}


def describe_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns a route's possible refusals for FastAPI."""
    keys: tuple[int | str, ...] = (*statuses, "default")
    return {key: {"model": Refusal, "description": _REASONS[key]} for key in keys}


def describe_lists(*statuses: int, answer: type[BaseModel] = ItemList) -> dict[str, Any]:
    """Returns the description of a route of lists for FastAPI: keys, answers in JSON or Arrow, refusals."""
    arrow = {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}}
    responses = {200: arrow, **describe_refusals(400, 401, 403, *statuses, 503)}
    return {"response_model": answer, "responses": responses, "openapi_extra": {"security": [{}]}}
