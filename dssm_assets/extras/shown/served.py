"""The hook of the service: chooses a request's variant, logs answers, and replaces them by the shown items.

Lists of items like an item have neither request id nor variant, and are not kept. People in no variant are answered as
without variants. So are people of a variant with an unusable bundle; these answers are counted.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, Final, NamedTuple

import pyarrow as pa

from dssm_assets.core.config.evaluation import Serving, Variant
from dssm_assets.core.config.section import repeated_names
from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.extras.shown.log import ANSWER, SHOWN, ShownList, ShownLog, shown_location
from dssm_assets.extras.shown.variants import choose_variation, hash_person, ranges_of_shares
from dssm_assets.service.bundle.bundle_store import Pointer
from dssm_assets.service.engine.id_rows import IdRows, parse_id
from dssm_assets.service.engine.live import RETRY_SECONDS
from dssm_assets.service.engine.recall_engine import (
    HookState,
    Lists,
    OnEncoded,
    OpenBundle,
    RecallAnswer,
    RecallEngine,
    UserRequest,
)

REPLACE_SECONDS: Final = 600.0
MOST_ANSWERS: Final = 100_000

_log = logging.getLogger(__name__)


class UnknownAnswerError(InputError):
    """No such answer is remembered."""

    status: ClassVar[int] = 404


class ReplacedAnswerError(InputError):
    """The shown items of this answer were sent before."""

    status: ClassVar[int] = 409


class _Assigned(NamedTuple):
    engine: RecallEngine
    request: UserRequest
    variant: str | None


class ShownAnswers:
    """The hook: assigns requests to variants and logs answers. Implements `AnswerHook`."""

    def __init__(self, serving: Serving, log: ShownLog | None) -> None:
        """Takes the variants of a configuration, and the log; None: nothing is kept."""
        self._log, self._experiment = log, serving.experiment
        self._variants = serving.variants or [Variant(name="all", share=1.0)]
        self._ranges = ranges_of_shares([variant.share for variant in self._variants])
        self._options = list(map(_read_options, self._variants))
        self._opened: dict[str, RecallEngine] = {}
        """Bundle as a variant names it -> its engine."""
        self._refused: dict[str, tuple[str | None, float, str]] = {}
        """The same -> its id, when it is tried again, and why it cannot be used."""
        self._unassigned = 0
        self._answers: OrderedDict[str, tuple[float, ShownList]] = OrderedDict()
        """Request id -> when it was answered (time.monotonic), and the list without its items; the oldest first."""
        self._lock = threading.Lock()

    @property
    def engines(self) -> Sequence[RecallEngine]:
        return tuple(self._opened.values())

    def refresh(self, pointer: Pointer | None, open_bundle: OpenBundle) -> bool:
        has_opened = False
        for name in {variant.bundle for variant in self._variants if variant.bundle}:
            bundle_id = name if name != "previous" else None if pointer is None else pointer.previous
            opened, (refused_id, retry_at, before) = self._opened.get(name), self._refused.get(name, ("", 0.0, ""))
            if opened is not None and opened.bundle.bundle_id == bundle_id:
                self._refused.pop(name, None)
            elif refused_id != bundle_id or time.monotonic() > retry_at:
                try:
                    if bundle_id is None:
                        raise InputError(Fault("serving.variants", "a former bundle", "none", "publish another"))
                    self._opened[name], has_opened = open_bundle(bundle_id), True
                    self._refused.pop(name, None)
                except Exception as error:  # Whatever is wrong with it, the service goes on.
                    if str(error) != before:
                        _log.error("bundle %s of a variant cannot be used: %s", name, error)
                    self._refused[name] = bundle_id, time.monotonic() + RETRY_SECONDS, str(error)
        return has_opened

    def show(self, show: Callable[[RecallEngine], RecallEngine]) -> None:
        for name, engine in list(self._opened.items()):
            self._opened[name] = show(engine)

    def answer(
        self, engine: RecallEngine, requests: Sequence[UserRequest], on_encoded: OnEncoded
    ) -> list[RecallAnswer | DssmError]:
        assigned = [self._assign(engine, request) for request in requests]
        found: dict[int, RecallAnswer | DssmError] = {}
        for one in {id(one.engine): one.engine for one in assigned}.values():
            numbers = [number for number, other in enumerate(assigned) if other.engine is one]
            asked = [assigned[number].request for number in numbers]
            found |= zip(numbers, one.compute_lists(asked, (lambda: None) if found else on_encoded), strict=True)
        return [self._keep(one, found[number]) for number, one in enumerate(assigned)]

    def _assign(self, engine: RecallEngine, request: UserRequest) -> _Assigned:
        if request.item_id is not None:
            return _Assigned(engine, request, None)
        request = replace(request, request_id=self._new_id(request.request_id))
        person = request.request_id if request.user_id is None else request.user_id
        if request.user_id is not None:
            with suppress(InputError):  # the engine tells it
                person = engine.bundle.users.parse_id(person, "user_id")
        number = hash_person(f"{engine.bundle.name}:{self._experiment}", str(person))
        position = choose_variation(number, self._ranges)
        if position < 0:
            return _Assigned(engine, request, None)
        variant, options = self._variants[position], self._options[position]
        other = self._opened.get(variant.bundle) if variant.bundle else engine
        if other is None or (other.channels is None and (variant.exclude_history or variant.channels == "merged")):
            self._unassigned += 1
            return _Assigned(engine, request, None)
        if options:
            request = replace(request, options=replace(request.options, **options))
        return _Assigned(other, request, variant.name)

    def _new_id(self, given: str) -> str:
        return given if given and given not in self._answers else f"{given and f'{given}-'}{uuid.uuid4().hex}"

    def _keep(self, assigned: _Assigned, answer: RecallAnswer | DssmError) -> RecallAnswer | DssmError:
        engine, request, variant = assigned
        if isinstance(answer, DssmError) or request.item_id is not None:
            return answer
        named = replace(answer, request_id=request.request_id, variant=variant)
        if self._log is None:
            return named
        users = engine.bundle.users
        kept = ShownList(
            ANSWER,
            time.time_ns() // 1_000_000,
            request.request_id,
            None if request.user_id is None else users.parse_id(request.user_id, "user_id"),
            variant,
            answer.bundle_id,
            answer.item_ids,
            answer.scores,
            answer.sources or [[Lists.VECTORS]] * len(answer.item_ids),
            _type_of(users),
            _type_of(engine.bundle.items),
        )
        self._log.put(kept)
        with self._lock:
            now = time.monotonic()
            self._answers[request.request_id] = now, kept._replace(item_ids=(), scores=(), channels=())
            while len(self._answers) > MOST_ANSWERS or next(iter(self._answers.values()))[0] < now - REPLACE_SECONDS:
                self._answers.popitem(last=False)
        return named

    def replace_answer(self, request_id: str, item_ids: Sequence[Any]) -> None:
        """Logs the items that were shown in place of an answer, in their order.

        Answers can be replaced once: of the last MOST_ANSWERS, for REPLACE_SECONDS.

        Raises:
            UnknownAnswerError: the answer was not given by this process, or too long ago.
            ReplacedAnswerError: it has been replaced before.
            InputError: an id is none of the bundle's type, is repeated, or none is given.
        """
        if self._log is None:
            raise UnknownAnswerError(Fault("serving.shown", "a log", "none", "configure it"))
        with self._lock:
            answered, kept = self._answers.get(request_id, (0.0, None))
            if kept is None or answered < time.monotonic() - REPLACE_SECONDS:
                expected = f"one of the last {MOST_ANSWERS} answers of this service, not older than {REPLACE_SECONDS:g} seconds"
                raise UnknownAnswerError(Fault("request_id", expected, f"unknown {request_id[:80]!r}", "send it in time"))
            if kept.kind == SHOWN:
                raise ReplacedAnswerError(Fault("request_id", "an answer not yet replaced", request_id, "send it once"))
            items = [parse_id(item, "item_ids", is_integer=pa.types.is_integer(kept.item_type)) for item in item_ids]
            if not items or (twice := repeated_names(map(str, items))):
                got = f"repeated: {twice}"[:200] if items else "no item"
                raise InputError(Fault("item_ids", "the items that were shown, each once", got, "correct them"))
            self._answers[request_id] = answered, kept._replace(kind=SHOWN)
        nothing = [None] * len(items)
        self._log.put(kept._replace(kind=SHOWN, item_ids=items, scores=nothing, channels=nothing))

    @property
    def state(self) -> HookState:
        log = HookState() if self._log is None else self._log.state
        faults = [*(f"variant's bundle {name}: {fault}" for name, (_, _, fault) in self._refused.items()), log.fault]
        sizes = {
            one.bundle.bundle_id: sum(file["bytes"] for file in one.bundle.manifest["files"].values()) for one in self.engines
        }
        counts = {**log.counts, "unassigned_answers": self._unassigned}
        return HookState("; ".join(filter(None, faults)) or None, log.waiting_rows, counts, sizes)

    def close(self) -> None:
        if self._log is not None:
            self._log.close()


def _read_options(variant: Variant) -> dict[str, Any]:
    lists = {} if variant.channels is None else {"lists": Lists(variant.channels)}
    return variant.model_dump(include={"exclude_history", "k"}, exclude_none=True) | lists


def _type_of(ids: IdRows) -> pa.DataType:
    # The widest of its kind: an unknown user's id may not fit the bundle's type.
    return pa.int64() if ids.is_integer else pa.string()


def open_hook(serving: Serving, root: str, options: Mapping[str, Any]) -> ShownAnswers:
    """Returns the hook of a configuration; `root` is the bundles' root, `options` are its filesystem's."""
    shown = serving.shown
    if shown is None:
        return ShownAnswers(serving, None)
    uri = shown_location(shown.folder, root)
    return ShownAnswers(serving, ShownLog(uri, options if uri != shown.folder else {}, shown.flush_seconds))
