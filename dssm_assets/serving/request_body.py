"""What clients send: from a query or a body to checked requests, within the limits of the service.

Sizes are checked before anything that takes time or memory: bytes before they are read as JSON, and lists before the model looks
at their entries. The first list that is too long ends the check of its entries, so the work is bounded by the body's size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel, Field, ValidationError, WithJsonSchema

from dssm_assets.core.config.section import Section
from dssm_assets.core.config.service_limits import ServiceLimits
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.serving.recall_engine import DEFAULT_K, MAX_K, ListOptions, Lists, UserRequest
from dssm_assets.serving.request_encoder import UserInputs

UnknownUser = Literal["popular", "404"]
Query = TypeVar("Query", bound=BaseModel)
SEE_DOCS: Final = "see /docs for the parameters of each route"

_BODY: Final = "body"
_ExcludedId = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string"}]})]
"""Checked by the engine, which knows the type of the bundle's ids."""

_K: Final = f"Length of the list, 1 to {MAX_K}. It is shorter where fewer items may be in it."
_EXCLUDE: Final = "Items to leave out of the list"
_EXCLUDE_HISTORY: Final = "Leave out what the user interacted with before."
_UNKNOWN: Final = (
    "Answer for a user who is not stored, if the request sends nothing about the user: popular items, or status 404."
)
_CHANNELS: Final = "merged: of all channels (default if the bundle has them); vectors: of the vectors alone."
_FIELDS: Final = "Item columns to answer with, such as titles, of those that the bundle has for filters (serving.filters)"
_FILTERS: Final = "JSON, as `filters` of the body of POST /recall."


class RecallRequest(Section, json_schema_extra={"examples": [{"user_id": 1, "k": 20}]}):
    """Body of POST /recall. What it does not send of a stored user is as stored; a user of whom nothing is known gets popular items."""

    user_id: int | str | None = Field(default=None, description="A stored user, or any other one.")
    features: dict[str, Any] = Field(
        default_factory=dict,
        description="Input name of fg.json -> value. With one of a user feature, all stored user features are replaced.",
    )
    history: dict[str, Any] = Field(
        default_factory=dict,
        description="Input name -> list, oldest item first: item_ids, event_times_ms and others. It replaces the stored history; "
        "`replaced` of the answer says so.",
    )
    events: dict[str, Any] = Field(
        default_factory=dict,
        description="As `history`, but added to the stored history: the events of a session. All are ordered by event_times_ms (unix "
        "milliseconds), at one time the stored ones first, then as sent. An event with item and time of a stored or an earlier one is "
        "left out; of an item that the bundle lacks, only those of the request are known. Without event_times_ms all are new, and newer than what is stored. Stored are the latest events that the user tower "
        "reads, and the last time of each item.",
    )
    k: int = Field(default=DEFAULT_K, description=_K)
    exclude: list[_ExcludedId] = Field(default_factory=list, description=f"{_EXCLUDE}.")
    exclude_history: bool = Field(default=False, description=_EXCLUDE_HISTORY)
    filters: dict[str, Any] | list[Any] | None = Field(
        default=None,
        description="Item column -> condition, all of which must hold; or a list of such objects, one of which must hold. A "
        "condition is a value, a list of values, or an object with in, not, min, max.",
    )
    unknown: UnknownUser = Field(default="popular", description=_UNKNOWN)
    channels: Lists | None = Field(default=None, description=_CHANNELS)
    fields: list[str] = Field(default_factory=list, description=f"{_FIELDS}.")

    def to_request(self) -> UserRequest:
        """Returns what the engine is asked for."""
        options = ListOptions(self.k, self.exclude, self.filters, self.exclude_history, self.channels, self.fields)
        inputs = UserInputs(self.features, self.history, self.events)
        return UserRequest(self.user_id, inputs, options, self.unknown == "popular")


class BatchRequest(Section):
    """Body of POST /recall/batch."""

    requests: list[RecallRequest] = Field(
        description="Each as the body of POST /recall; at most serving.limits.max_list_length."
    )


class _ListQuery(BaseModel):
    """Parameters of every list that is asked for by a query."""

    k: int = Field(default=DEFAULT_K, description=_K)
    exclude: list[str] = Field(default_factory=list, description=f"{_EXCLUDE}; may be repeated.")
    filters: str | None = Field(default=None, description=_FILTERS)
    fields: list[str] = Field(default_factory=list, description=f"{_FIELDS}; may be repeated.")


class SimilarQuery(_ListQuery):
    """Parameters of GET /similar."""

    item_id: str = Field(description="An item of the bundle.")


class RecallQuery(_ListQuery):
    """Parameters of GET /recall."""

    user_id: str = Field(description="A stored user, or any other one.")
    exclude_history: bool = Field(default=False, description=_EXCLUDE_HISTORY)
    unknown: UnknownUser = Field(default="popular", description=_UNKNOWN)
    channels: Lists | None = Field(default=None, description=_CHANNELS)


def parse_recall_query(query: bytes) -> UserRequest:
    """Returns the request of GET /recall; the size of a query is bounded by that of the request's head.

    Raises:
        InputError: a parameter is missing or has another form, or `filters` is not JSON.
    """
    asked = _parse_query(RecallQuery, query)
    filters = _parse_filters(asked.filters)
    options = ListOptions(asked.k, asked.exclude, filters, asked.exclude_history, asked.channels, asked.fields)
    return UserRequest(asked.user_id, options=options, is_popular_for_unknown=asked.unknown == "popular")


def parse_similar_query(query: bytes) -> tuple[str, ListOptions]:
    """Returns the item and the options of GET /similar; errors as `parse_recall_query`."""
    asked = _parse_query(SimilarQuery, query)
    return asked.item_id, ListOptions(asked.k, asked.exclude, _parse_filters(asked.filters), fields=asked.fields)


def parse_recall_body(body: bytes, limits: ServiceLimits) -> UserRequest:
    """Returns the request of POST /recall.

    Raises:
        InputError: the body is not JSON in UTF-8, is larger than the limits in any respect, or lacks the form of the model.
    """
    return _check_request(_parse_body(body, limits), _BODY, limits)


def parse_batch_body(body: bytes, limits: ServiceLimits) -> list[UserRequest | InputError]:
    """Returns the requests of POST /recall/batch, in their order, or for each why it is none.

    Raises:
        InputError: the body has no list of requests, or is larger than the limits.
    """
    content, place = _parse_body(body, limits), f"{_BODY}.requests"
    entries = content.get("requests") if isinstance(content, dict) and len(content) == 1 else None
    if not isinstance(entries, list):
        got = (
            f"{type(content).__name__} of {', '.join(map(str, content))}"[:120]
            if isinstance(content, dict)
            else _shorten(content)
        )
        raise InputError(Fault(_BODY, "an object with a list `requests`, and nothing else", got, SEE_DOCS))
    if len(entries) > limits.max_list_length:
        raise InputError(_size_fault(place, limits.max_list_length, "entries", str(len(entries)), "max_list_length"))
    found: list[UserRequest | InputError] = []
    for number, entry in enumerate(entries):
        try:
            found.append(_check_request(entry, f"{place}.{number}", limits))
        except InputError as error:
            found.append(error)
    return found


def _check_request(content: Any, place: str, limits: ServiceLimits) -> UserRequest:
    faults = []
    for fault in _size_faults(content, place, limits):
        faults.append(fault)
        if len(faults) > limits.max_faults:  # One more than is reported: the answer says that there are further ones.
            break
    InputError.raise_if(faults)
    try:
        return RecallRequest.model_validate(content).to_request()
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise InputError([fault_of(item, (place,)) for item in found]) from error


def _parse_body(body: bytes, limits: ServiceLimits) -> Any:
    count = sum(body.count(byte) for byte in (b",", b"[", b"{"))
    if count > limits.max_values:
        raise InputError(
            _size_fault(_BODY, limits.max_values, "values", f"{count}, by its commas and opening brackets", "max_values")
        )
    return _parse_json(body, _BODY)


def _parse_query(model: type[Query], query: bytes) -> Query:
    given: dict[str, Any] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in ("exclude", "fields"):
            given.setdefault(name, []).append(value)
        else:
            given[name] = value
    try:
        return model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        raise InputError([fault_of(item, ("query",)) for item in found]) from error


def _parse_filters(text: str | None) -> Any:
    return None if text is None else _parse_json(text.encode("utf-8", "surrogatepass"), "filters")


def fault_of(item: Mapping[str, Any], place: tuple[str, ...] = ()) -> Fault:
    """Returns the fault for an error of pydantic; `place` precedes the error's own place."""
    return Fault(".".join(map(str, (*place, *item["loc"]))), item["msg"], _shorten(item.get("input")), SEE_DOCS)


def _parse_json(body: bytes, where: str) -> Any:
    try:
        return json.loads(body.decode())
    except json.JSONDecodeError as error:
        place, got = f"{where}.{error.pos}", error.msg
    except RecursionError:
        place, got = where, "lists or objects too deep within one another"
    except UnicodeDecodeError as error:
        place, got = f"{where}.{error.start}", "a byte that is not UTF-8"
    except ValueError:  # Python reads no integer of more than 4,300 digits.
        place, got = where, "a number with too many digits"
    raise InputError(Fault(place, "JSON in UTF-8", got, SEE_DOCS))


def _size_faults(content: Any, body: str, limits: ServiceLimits) -> Iterator[Fault]:
    """Yields a fault for each text, list and object that is too large; entries of what is too large are not looked at."""
    if not isinstance(content, dict):
        return
    yield from _check_container(content, body, 1, limits.max_list_length, "max_list_length", limits)
    if len(content) > limits.max_list_length:
        return
    for name, value in content.items():
        length, key = limits.max_list_length, "max_list_length"
        if name == "exclude":
            length, key = limits.max_excluded, "max_excluded"
        if name in ("history", "events") and isinstance(value, dict) and len(value) <= length:
            yield from _check_container(value, f"{body}.{name}", 2, length, key, limits)
            entries = [(f"{body}.{name}.{inner[:40]}", own, 3) for inner, own in value.items()]
            length, key = limits.max_history_length, "max_history_length"
        else:
            entries = [(f"{body}.{name[:40]}", value, 2)]
        for place, entry, depth in entries:
            yield from _check_value(entry, place, depth, length, key, limits)


def _check_value(value: Any, place: str, depth: int, length: int, key: str, limits: ServiceLimits) -> Iterator[Fault]:
    """Checks a value and all within it; `length` is of the outermost list, and lists within have max_list_length."""
    waiting = [(value, place, depth, length, key)]
    while waiting:
        one, where, level, most, name = waiting.pop()
        if isinstance(one, str):
            yield from _check_text(one, where, limits)
        if not isinstance(one, list | dict):
            continue
        is_looked_into = True
        for fault in _check_container(one, where, level, most, name, limits):
            is_looked_into = False
            yield fault
        if not is_looked_into:
            continue
        entries: Any = one.items() if isinstance(one, dict) else enumerate(one)
        for at, entry in entries:
            if isinstance(entry, str | list | dict):
                inner = f"{where}.{str(at)[:40]}"
                waiting.append((entry, inner, level + 1, limits.max_list_length, "max_list_length"))


def _check_container(
    value: list[Any] | dict[str, Any], place: str, depth: int, most: int, key: str, limits: ServiceLimits
) -> Iterator[Fault]:
    if depth > limits.max_nesting:
        yield _size_fault(place, limits.max_nesting, "lists and objects within one another", f"{depth} or more", "max_nesting")
    if len(value) > most:
        yield _size_fault(place, most, "entries", str(len(value)), key)
    elif isinstance(value, dict):
        for name in value:
            yield from _check_text(name, f"a name in {place}", limits)


def _check_text(text: str, place: str, limits: ServiceLimits) -> Iterator[Fault]:
    if len(text) > limits.max_text_length:
        yield _size_fault(place, limits.max_text_length, "characters", str(len(text)), "max_text_length")
    elif not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        yield Fault(place, "text", f"half a surrogate pair in {_shorten(text)}", "send whole characters")


def _size_fault(place: str, most: int, unit: str, got: str, key: str) -> Fault:
    return Fault(place, f"at most {most} {unit}", got, f"send less, or raise serving.limits.{key} of the service")


def _shorten(value: Any) -> str:
    """Returns the beginning of a value as Python shows it."""
    if isinstance(value, str):
        return repr(value[:120])[:120]
    if isinstance(value, list | dict) and len(value) > 100:
        return f"{type(value).__name__} of {len(value)} entries"
    return repr(value)[:120]
