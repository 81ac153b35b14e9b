"""What the service answers, as models for /docs and generated clients. The tests hold them against real answers.

Belongs here: the form of answers, their statuses and the keys that they need. Does not belong here: making answers (`recall_engine.py`,
`refusals.py`), what is asked (`request_body.py`).
"""

from __future__ import annotations

from typing import Any, Final, Literal

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field

from dssm_assets.serving.calls import ARROW
from dssm_assets.serving.recall_engine import AnswerSource


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ItemList(_Answer):
    """A list of items, best first. What does not apply is absent."""

    bundle_id: str = Field(description="The bundle that the whole answer comes from.")
    source: AnswerSource = Field(
        description="stored: the user's vector in the bundle; features: the vector of what the request sent; popular: no vector; item: "
        "an item's vector."
    )
    ignored: list[str] | None = Field(default=None, description="Inputs of the request that nothing reads.")
    replaced: list[Literal["features", "history"]] | None = Field(
        default=None, description="What of a stored user was sent or is not stored, so that the stored one was not used."
    )
    item_ids: list[int | str] = Field(description="Best first.")
    scores: list[float] = Field(
        description="Of each item. In a merged list the log-odds that the user interacts with it, in one of vectors alone the similarity, of "
        "popular items their positive events in the window."
    )
    sources: list[list[str]] | None = Field(
        default=None, description="Of each item the channels that proposed it, or popular; absent in a list of vectors alone."
    )
    fields: dict[str, list[Any]] | None = Field(default=None, description="Item column -> its value of each item.")


class FaultContent(_Answer):
    """One thing that is wrong."""

    where: str
    expected: str
    got: str
    remedy: str


class Refusal(_Answer):
    """Why there is no list."""

    error: str = Field(description="Name of the error, such as InputError.")
    faults: list[FaultContent]
    faults_left_out: int | None = Field(default=None, description="Further faults, beyond serving.limits.max_faults.")


class BatchAnswer(_Answer):
    """The answer of each request, in their order, or its error."""

    answers: list[ItemList | Refusal]


class Health(_Answer):
    """The bundle that serves, its age and its size."""

    status: Literal["ok", "stale"] = Field(
        description="stale: a newer bundle or a list of the shop cannot be used, or no item may be shown."
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
    list_fault: str | None = Field(description="What is wrong with the lists of the shop; null if nothing is.")


class Readiness(_Answer):
    """Whether lists are answered now."""

    is_ready: bool


KEYS: Final = [
    Security(HTTPBearer(auto_error=False, description="An API key of --api-key-file, if the service was started with one.")),
    Security(APIKeyHeader(name="X-API-Key", auto_error=False, description="The same key in a header of its own.")),
]
"""Either will do; `access.py` checks them. A service without keys needs none."""
OPTIONAL_KEYS: Final = {"security": [dict[str, list[str]]()]}
_REASONS: Final[dict[int | str, str]] = {
    400: "The request is wrong: every fault is named.",
    401: "It has no API key of this service.",
    404: "The bundle has no such user or item.",
    413: "The body is larger than serving.limits.max_body_bytes.",
    503: "The service has too much to do; the header retry-after says when to try again.",
    "default": "Any other refusal, such as 408 (sent too slowly) or 500.",
}


def describe_refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the refusals that a route has, as FastAPI takes them."""
    keys: tuple[int | str, ...] = (*statuses, "default")
    return {key: {"model": Refusal, "description": _REASONS[key]} for key in keys}


def describe_lists(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Returns the answers of a route of lists: JSON or, if the client accepts it, an Arrow stream; and its refusals."""
    arrow = {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}}
    return {200: arrow, **describe_refusals(400, 401, *statuses, 503)}
