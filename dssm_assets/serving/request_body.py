"""The parameters and bodies that clients send, as models: they check requests and describe them in /docs.

A body is read by pydantic from its bytes, which refuses lists within lists without end. Its size is limited by max_body_bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qs

from pydantic import AfterValidator, BaseModel, Field, Json, ValidationError, WithJsonSchema, WrapValidator

from dssm_assets.core.config.section import Section, describe_expected
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.serving.recall_engine import DEFAULT_K, MAX_K, ListOptions, Lists, UserRequest
from dssm_assets.serving.request_encoder import UserInputs

MAX_LENGTH: Final = 10_000
"""Entries of a list, and characters of a text."""
MAX_NAMES: Final = 1000
MAX_BATCH: Final = 1000
MAX_ITEMS: Final = 250_000
"""Items that a batch asks for, over all of its lists; each column of `fields` counts as much again."""

UnknownUser = Literal["popular", "404"]
SEE_DOCS: Final = "see /docs for the parameters of each route"


def _check_length(value: Any) -> Any:
    if isinstance(value, list | str) and len(value) > MAX_LENGTH:
        raise ValueError(f"at most {MAX_LENGTH} entries or characters, not {len(value)}")
    return value


def _keep_error(value: Any, check: Any) -> Any:
    """Returns a checked request, or why it is wrong: the other requests of the batch are answered."""
    try:
        return check(value)
    except ValidationError as error:
        return error


_Inputs = Annotated[dict[str, Annotated[Any, AfterValidator(_check_length)]], Field(max_length=MAX_NAMES)]
_ExcludedId = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})]
"""Checked by the engine, which knows the type of the bundle's ids."""
_K: Final = f"Length of the list, 1 to {MAX_K}. It is shorter where fewer items may be in it."
_EXCLUDE: Final = "Items to leave out of the list"
_EXCLUDE_HISTORY: Final = "Leave out items that the user interacted with before."
_UNKNOWN: Final = "Answer for a user who is neither stored nor described by the request: popular items, or status 404."
_CHANNELS: Final = "merged: of all channels (default if the bundle has them); vectors: of the vectors alone."
_FIELDS: Final = "Item columns to answer with, such as titles, of those that the bundle has for filters (serving.filters)"


class RecallRequest(Section, json_schema_extra={"examples": [{"user_id": 1, "k": 20}]}):
    """Body of POST /recall. Inputs of a stored user that it does not send are as stored; a user without any gets popular items."""

    user_id: int | str | None = Field(default=None, description="A stored user, or any other one.")
    features: _Inputs = Field(
        default_factory=dict,
        description="Input name of fg.json -> value. With one of a user feature, all stored user features are replaced.",
    )
    history: _Inputs = Field(
        default_factory=dict,
        description="Input name -> list, oldest item first: item_ids, event_times_ms and others. It replaces the stored history; "
        "`replaced` of the answer says so.",
    )
    events: _Inputs = Field(
        default_factory=dict,
        description="As `history`, but added to the stored history: the events of a session. All are ordered by event_times_ms (unix "
        "milliseconds), at one time the stored ones first, then as sent. An event with item and time of a stored or an earlier one is "
        "left out; of an item that the bundle lacks, only those of the request are known. Without event_times_ms all are new, and newer than what is stored. Stored are the latest events that the user tower "
        "reads, and the last time of each item.",
    )
    k: int = Field(default=DEFAULT_K, description=_K)
    exclude: list[_ExcludedId] = Field(default_factory=list, max_length=MAX_LENGTH, description=f"{_EXCLUDE}.")
    exclude_history: bool = Field(default=False, description=_EXCLUDE_HISTORY)
    filters: dict[str, Any] | list[Any] | None = Field(
        default=None,
        description="Item column -> condition, all of which must hold; or a list of such objects, one of which must hold. A "
        "condition is a value, a list of values, or an object with in, not, min, max.",
    )
    unknown: UnknownUser = Field(default="popular", description=_UNKNOWN)
    channels: Lists | None = Field(default=None, description=_CHANNELS)
    fields: list[str] = Field(default_factory=list, max_length=MAX_NAMES, description=f"{_FIELDS}.")

    def to_request(self) -> UserRequest:
        options = ListOptions(self.k, self.exclude, self.filters, self.exclude_history, self.channels, self.fields)
        inputs = UserInputs(self.features, self.history, self.events)
        return UserRequest(self.user_id, inputs, options, self.unknown == "popular")


class BatchRequest(Section):
    """Body of POST /recall/batch."""

    requests: list[Annotated[RecallRequest, WrapValidator(_keep_error)]] = Field(
        max_length=MAX_BATCH, description="Each as the body of POST /recall."
    )


class _ListQuery(BaseModel):
    """Parameters of every list that is asked for by a query."""

    k: int = Field(default=DEFAULT_K, description=_K)
    exclude: list[str] = Field(default_factory=list, description=f"{_EXCLUDE}; may be repeated.")
    filters: Json[Any] = Field(default=None, description="JSON, as `filters` of the body of POST /recall.")
    fields: list[str] = Field(default_factory=list, description=f"{_FIELDS}; may be repeated.")


class SimilarQuery(_ListQuery):
    """Parameters of GET /similar."""

    item_id: str = Field(description="An item of the bundle.")

    def to_request(self) -> UserRequest:
        return UserRequest(item_id=self.item_id, options=ListOptions(self.k, self.exclude, self.filters, fields=self.fields))


class RecallQuery(_ListQuery):
    """Parameters of GET /recall."""

    user_id: str = Field(description="A stored user, or any other one.")
    exclude_history: bool = Field(default=False, description=_EXCLUDE_HISTORY)
    unknown: UnknownUser = Field(default="popular", description=_UNKNOWN)
    channels: Lists | None = Field(default=None, description=_CHANNELS)

    def to_request(self) -> UserRequest:
        options = ListOptions(self.k, self.exclude, self.filters, self.exclude_history, self.channels, self.fields)
        return UserRequest(self.user_id, options=options, is_popular_for_unknown=self.unknown == "popular")


def parse_query(model: type[RecallQuery | SimilarQuery], query: bytes) -> list[UserRequest]:
    """Returns the one request of a query; raises an InputError if a parameter is missing or has another form."""
    sent = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    given = {name: values if name in ("exclude", "fields") else values[-1] for name, values in sent.items()}
    try:
        return [model.model_validate(given).to_request()]
    except ValidationError as error:
        raise _input_error(error, "query") from error


def parse_recall_body(body: bytes | bytearray) -> list[UserRequest]:
    """Returns the one request of POST /recall; raises an InputError if it is not JSON in UTF-8 of this form."""
    try:
        return [RecallRequest.model_validate_json(body).to_request()]
    except ValidationError as error:
        raise _input_error(error, "body") from error


def parse_batch_body(body: bytes | bytearray) -> list[UserRequest | InputError]:
    """Returns the requests of POST /recall/batch, in their order, or for each why it is wrong.

    Raises:
        InputError: the body has no list of requests, a longer one than is allowed, or they ask for more than MAX_ITEMS items.
    """
    try:
        entries: list[Any] = BatchRequest.model_validate_json(body).requests
    except ValidationError as error:
        raise _input_error(error, "body") from error
    requests = [
        _input_error(entry, "body", "requests", str(number)) if isinstance(entry, ValidationError) else entry.to_request()
        for number, entry in enumerate(entries)
    ]
    if (count := count_items(requests)) > MAX_ITEMS:
        expected = f"lists of at most {MAX_ITEMS} items together, counted again for each of fields"
        raise InputError(Fault("body.requests", expected, str(count), "ask for shorter lists, or for fewer at once"))
    return requests


def count_items(requests: Sequence[UserRequest | InputError]) -> int:
    """Returns the number of items that a batch asks for; each column of `fields` counts as much again."""
    options = [one.options for one in requests if isinstance(one, UserRequest)]
    return sum(min(max(one.k, 0), MAX_K) * (1 + len(set(one.fields))) for one in options)


def _input_error(error: ValidationError, *where: str) -> InputError:
    faults = []
    for item in error.errors(include_url=False, include_context=False):
        value = item.get("input")
        got = f"{type(value).__name__} of {len(value)} entries" if isinstance(value, list | dict) else repr(str(value)[:120])
        got = "nothing" if item["type"] == "missing" else got  # its value is what lacks it
        faults.append(Fault(".".join(map(str, (*where, *item["loc"]))), describe_expected(item), got, SEE_DOCS))
    return InputError(faults)
