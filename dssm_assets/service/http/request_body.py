"""Models of parameters and bodies: they check clients' requests and describe them in /docs.

Pydantic parses the bytes of a body itself, so it refuses endlessly nested lists. Up to MAX_DESCRIBED faults are described.
Further faults are only counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import parse_qs

from fastapi.openapi.models import Example as OpenApiExample
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, ValidationError, WithJsonSchema, WrapValidator

from dssm_assets.core.config.section import Section, describe_expected
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.service.engine.recall_engine import DEFAULT_K, MAX_K, ListOptions, Lists, UserRequest
from dssm_assets.service.engine.request_encoder import UserInputs
from dssm_assets.service.http.answers import MAX_FAULTS

MAX_LENGTH: Final = 10_000
"""Most entries of a list, and most characters of a text."""
MAX_NAMES: Final = 1000
MAX_BATCH: Final = 1000
MAX_ITEMS: Final = 250_000
"""Most items in all lists of a batch. Each column of `fields` counts as much again."""
MAX_DESCRIBED: Final = MAX_BATCH * MAX_FAULTS
"""So many faults of a body are described one by one, as many as the answer of a batch shows."""

Requests = Sequence[UserRequest | InputError]
"""The requests of a body. A wrong request is replaced by its error."""
UnknownUser = Literal["popular", "404"]
SEE_DOCS: Final = "see /docs for the parameters of each route"


def _check_length(value: Any) -> Any:
    if isinstance(value, list | str) and len(value) > MAX_LENGTH:
        raise ValueError(f"at most {MAX_LENGTH} entries or characters, not {len(value)}")
    return value


def _keep_error(value: Any, check: Any) -> Any:
    """Returns a checked request, or the error of a wrong request, so that the rest of the batch is answered."""
    try:
        return check(value)
    except (ValidationError, InputError) as error:
        return error


_Inputs = Annotated[dict[str, Annotated[Any, AfterValidator(_check_length)]], Field(max_length=MAX_NAMES)]
_ExcludedId = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})]
"""The engine checks ids, because it knows the type of the bundle's ids."""
_K: Final = f"Length of the list, 1 to {MAX_K}. The list is shorter if fewer items may be in it."
_EXCLUDE: Final = "Items to leave out of the list"
_EXCLUDE_HISTORY: Final = "Leave out items that the user interacted with before."
_UNKNOWN: Final = "Answer for a user who is not stored and sends no inputs: popular items, or status 404."
_CHANNELS: Final = "merged: from all channels (default if the bundle has them); vectors: from the vectors alone."
_EXPLAIN: Final = "Answer with the reasons for each item of a merged list. Takes some ms. Only for JSON, not in a batch."
_FIELDS: Final = "Item columns to answer with, such as titles, from serving.filters"


class RecallRequest(Section):
    """Body of POST /recall. Inputs of a stored user that it does not send stay as stored. An unknown user without inputs gets popular items."""

    user_id: int | str | None = Field(default=None, description="A stored user, or any other user.")
    features: _Inputs = Field(
        default_factory=dict,
        description="Input name of fg.json -> value. An input of a user feature replaces all stored user features.",
    )
    history: _Inputs = Field(
        default_factory=dict,
        description="Input name -> list, oldest item first: item_ids, event_times_ms and others. Replaces the stored history; the "
        "answer's `replaced` says so.",
    )
    events: _Inputs = Field(
        default_factory=dict,
        description="Like `history`, but added to the stored history: the events of a session. Merged with the stored events by "
        "event_times_ms (unix milliseconds); for equal times, stored events come first. Duplicates (same item and time) are dropped. "
        "Without times, events count as newer than everything stored. The bundle stores the latest events for the user tower, and the "
        "last time of each of the user's items.",
    )
    k: int = Field(default=DEFAULT_K, description=_K)
    exclude: list[_ExcludedId] = Field(default_factory=list, max_length=MAX_LENGTH, description=f"{_EXCLUDE}.")
    exclude_history: bool = Field(default=False, description=_EXCLUDE_HISTORY)
    filters: dict[str, Any] | list[Any] | None = Field(
        default=None,
        description="Item column -> condition. All conditions must hold; in a list of such objects, those of one object. A condition is a "
        "value, a list of values, or an object with in, not, min, max.",
    )
    unknown: UnknownUser = Field(default="popular", description=_UNKNOWN)
    channels: Lists | None = Field(default=None, description=_CHANNELS)
    fields: list[str] = Field(default_factory=list, max_length=MAX_NAMES, description=f"{_FIELDS}.")
    explain: bool = Field(default=False, description=_EXPLAIN)

    def to_request(self) -> UserRequest:
        options = ListOptions(
            self.k, self.exclude, self.filters, self.exclude_history, self.channels, self.fields, self.explain
        )
        inputs = UserInputs(self.features, self.history, self.events)
        return UserRequest(self.user_id, inputs, options, self.unknown == "popular")


class BatchRequest(Section):
    """Body of POST /recall/batch."""

    requests: list[Annotated[RecallRequest, WrapValidator(_keep_error)]] = Field(
        max_length=MAX_BATCH, description="Each as the body of POST /recall."
    )


class NoQuery(BaseModel):
    """The query of a route without parameters."""

    model_config = ConfigDict(extra="forbid")


class _ListQuery(NoQuery):
    k: int = Field(default=DEFAULT_K, description=_K)
    exclude: list[str] = Field(default_factory=list, description=f"{_EXCLUDE}; may be repeated.")
    filters: Json[Any] = Field(default=None, description="JSON, as `filters` of the body of POST /recall.")
    fields: list[str] = Field(default_factory=list, description=f"{_FIELDS}; may be repeated.")


class SimilarQuery(_ListQuery):
    """Parameters of GET /similar."""

    item_id: str = Field(description="An item of the bundle.", examples=["1029743"])

    def to_request(self) -> UserRequest:
        return UserRequest(item_id=self.item_id, options=ListOptions(self.k, self.exclude, self.filters, fields=self.fields))


class RecallQuery(_ListQuery):
    """Parameters of GET /recall."""

    user_id: str = Field(description="A stored user, or any other user.", examples=["1"])
    exclude_history: bool = Field(default=False, description=_EXCLUDE_HISTORY)
    unknown: UnknownUser = Field(default="popular", description=_UNKNOWN)
    channels: Lists | None = Field(default=None, description=_CHANNELS)
    explain: bool = Field(default=False, description=_EXPLAIN)

    def to_request(self) -> UserRequest:
        options = ListOptions(
            self.k, self.exclude, self.filters, self.exclude_history, self.channels, self.fields, self.explain
        )
        return UserRequest(self.user_id, options=options, is_popular_for_unknown=self.unknown == "popular")


_STORED_USER: Final = {"user_id": 1, "k": 20}
_EVENTS: Final = {"user_id": 1, "k": 20, "events": {"item_ids": [1029743, 1106523]}}
_NEW_USER: Final = {"features": {"age": "25-34"}, "history": {"item_ids": [1029743, 1106523]}, "k": 20}
_FILTERED: Final = {
    "user_id": 1,
    "k": 20,
    "filters": {"department": "GROCERY", "brand": {"not": "Private"}},
    "fields": ["product_category"],
    "exclude_history": True,
}
RECALL_EXAMPLES: Final[dict[str, OpenApiExample]] = {
    "stored": {"summary": "A stored user", "value": _STORED_USER},
    "events": {"summary": "A stored user after two more events", "value": _EVENTS},
    "new": {"summary": "A new user, by features and history", "value": _NEW_USER},
    "filtered": {"summary": "Only some items, with a column of each", "value": _FILTERED},
}
"""Examples of bodies for POST /recall; the demo can answer them."""
BATCH_EXAMPLES: Final[dict[str, OpenApiExample]] = {
    "three": {"summary": "Three users", "value": {"requests": [_STORED_USER, _EVENTS, _NEW_USER]}}
}
_Query = TypeVar("_Query", bound=NoQuery)
_Body = TypeVar("_Body", bound=BaseModel)
_REPEATABLE: Final = ("exclude", "fields")


def parse_query(model: type[RecallQuery | SimilarQuery], query: bytes) -> list[UserRequest]:
    """Returns the single request of a query. For errors see `read_query`."""
    return [read_query(model, query).to_request()]


def read_query(model: type[_Query], query: bytes) -> _Query:
    """Returns the parameters of a query. Raises an InputError with all missing, unknown, repeated and wrong parameters."""
    sent = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    faults = [
        Fault(f"query.{name}", "one value", f"{len(values)}: {', '.join(values)[:80]}", "send it once")
        for name, values in sent.items()
        if len(values) > 1 and name in model.model_fields and name not in _REPEATABLE
    ]
    try:
        found = model.model_validate({name: values if name in _REPEATABLE else values[-1] for name, values in sent.items()})
    except ValidationError as error:
        raise InputError(faults + _FaultFinder(model).describe(error, "query").faults) from error
    InputError.raise_if(faults)
    return found


def parse_recall_body(body: bytes | bytearray) -> list[UserRequest]:
    """Returns the single request of POST /recall. For errors see `parse_body`."""
    return [parse_body(RecallRequest, body).to_request()]


def parse_body(model: type[_Body], body: bytes | bytearray) -> _Body:
    """Returns a body. Raises an InputError if it is not JSON in UTF-8 of this form."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        raise _FaultFinder(model).describe(error, "body") from error


def parse_batch_body(body: bytes | bytearray) -> list[UserRequest | InputError]:
    """Returns the requests of POST /recall/batch, in their order. A wrong request is replaced by its error.

    Raises:
        InputError: the body has no list of requests, the list is too long, or it asks for more than MAX_ITEMS items.
    """
    entries: list[Any] = parse_body(BatchRequest, body).requests
    finder = _FaultFinder(RecallRequest)
    requests: list[UserRequest | InputError] = []
    for number, entry in enumerate(entries):
        if isinstance(entry, ValidationError):
            requests.append(finder.describe(entry, "body", "requests", str(number)))
        elif isinstance(entry, RecallRequest) and entry.explain:
            fault = Fault(f"body.requests.{number}.explain", "false in a batch", "true", "send this request to POST /recall")
            requests.append(InputError(fault))
        else:
            requests.append(entry.to_request() if isinstance(entry, RecallRequest) else entry)
    if (count := count_items(requests)) > MAX_ITEMS:
        expected = f"lists of at most {MAX_ITEMS} items together, counted again for each of fields"
        raise InputError(Fault("body.requests", expected, str(count), "ask for shorter lists, or for fewer at once"))
    return requests


def count_items(requests: Requests) -> int:
    """Counts the requested items. Each column of `fields` counts as much again."""
    options = [one.options for one in requests if isinstance(one, UserRequest)]
    return sum(min(max(one.k, 0), MAX_K) * (1 + len(set(one.fields))) for one in options)


class _FaultFinder:
    """Describes at most MAX_DESCRIBED faults of a query or body. For MAX_FAULTS unknown names it also gives the nearest known name."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._names, self._left = list(model.model_fields), MAX_DESCRIBED
        self._nearest: dict[str, str] = {}

    def describe(self, error: ValidationError, *where: str) -> InputError:
        self._left -= error.error_count()
        if self._left < 0:
            got = f"{error.error_count()} here"
            return InputError(Fault(".".join(where), f"at most {MAX_DESCRIBED} faults in all", got, SEE_DOCS))
        faults = []
        for item in error.errors(include_url=False, include_context=False):
            place, value = ".".join(map(str, (*where, *item["loc"]))), item.get("input")
            got = (
                f"{type(value).__name__} of {len(value)} entries" if isinstance(value, list | dict) else repr(str(value)[:120])
            )
            if item["type"] == "extra_forbidden":
                faults.append(self._describe_name(place, str(item["loc"][-1])))
            else:
                got = "nothing" if item["type"] == "missing" else got  # pydantic gives the value around the missing key
                faults.append(Fault(place, describe_expected(item), got, SEE_DOCS))
        return InputError(faults)

    def _describe_name(self, place: str, name: str) -> Fault:
        if self._names and name not in self._nearest and len(self._nearest) < MAX_FAULTS:
            (self._nearest[name],) = get_close_matches(name[:80].lower(), self._names, 1, 0)
        nearest = self._nearest.get(name)
        expected = f"one of {', '.join(self._names)}" if self._names else "no parameter"
        got, remedy = "an unknown name", SEE_DOCS
        if nearest is not None:
            got, remedy = f"{got}; the nearest is {nearest}", f"write {nearest} if you mean it; {SEE_DOCS}"
        return Fault(place, expected, got, remedy)
