"""Recall from one bundle: for a stored user, for a new user's features, for an item, or the popular items.

Belongs here: which vector is searched with, the search, excluded items, the answer. Does not belong here: opening
files (`bundle.py`), the user of a request (`seen_users.py`, `request_encoder.py`), HTTP (`http.py`).

Lists are ordered by score, then by the item's row in the index. The search goes as much deeper as items are excluded. Where only
some items are allowed, the index passes the others by, or every allowed item is compared: where few are, and where the index found
fewer than there are. So a list is shorter than k only if no more items may be in it, or, where all items are allowed, if an
approximate index finds no more.

Shapes: D vector dimension, M candidates, V vectors of a user (its interests; an item scores by the best of them).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.channels.channel import first_allowed
from dssm_assets.core.channels.sources import OwnItems
from dssm_assets.core.errors import DssmError, Fault, InputError
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.interests import merge_lists, score_interests
from dssm_assets.core.retrieval.item_filter import BoolArray
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.serving.allowed_items import AllowedItems, ItemConditions, Selection
from dssm_assets.serving.bundle import Bundle, BundleRoot
from dssm_assets.serving.channels import FILLED, BundleChannels
from dssm_assets.serving.id_rows import Id, UnknownIdError
from dssm_assets.serving.request_encoder import NO_INPUTS, UserInputs, UserTower
from dssm_assets.serving.seen_users import SeenUser, SeenUsers

DEFAULT_K: Final = 200
MAX_K: Final = 10_000
SCANNED_ITEMS: Final = 20_000
SCANNED_FRAC: Final = 0.01
"""If at most so many items, or this fraction, are allowed, every allowed item is compared: an index takes longer to pass the others by."""
MERGED_AT_ONCE: Final = 16
"""Lists merged together, at most: more do not fit a core's cache."""

Vector = npt.NDArray[np.float32]
Nearest = tuple[IntArray, npt.NDArray[np.float32]]
"""Rows and scores of the items nearest to a user's vector."""

_NO_ROWS: Final = np.empty(0, np.int64)
_NO_VECTOR: Final[Vector] = np.empty(0, np.float32)
_NO_CHANNELS: Final = "ask for vectors, or publish a bundle with channels.is_enabled"


class AnswerSource(StrEnum):
    """The source of a list."""

    STORED = "stored"
    """The user's vector in the bundle."""
    FEATURES = "features"
    """The user tower's output for the inputs of the request."""
    POPULAR = "popular"
    """No vector: the most popular items."""
    ITEM = "item"
    """An item's vector."""


class Lists(StrEnum):
    """Which list a user gets."""

    MERGED = "merged"
    """Of all channels of the bundle."""
    VECTORS = "vectors"
    """Of the vectors alone."""


@dataclass(frozen=True)
class ListOptions:
    """The wishes for a list.

    Attributes:
        k: length of the list. It is shorter only if fewer items may be in it, or if the index is approximate and lacks some.
        exclude: ids of items to leave out.
        filters: conditions on item columns, see `core/retrieval/item_filter.py`; None: none.
        exclude_history: leave out items that the user interacted with before.
        lists: merged or of the vectors alone; None: merged if the bundle has channels.
        fields: columns of the items to answer with, of those that the bundle has for filters.
    """

    k: int = DEFAULT_K
    exclude: Sequence[Any] = ()
    filters: Any = None
    exclude_history: bool = False
    lists: Lists | None = None
    fields: Sequence[str] = ()


ANY_LIST: Final = ListOptions()


@dataclass(frozen=True)
class UserRequest:
    """A user who wants a list: by the inputs of the request, if it has any, else the stored user's, else the popular items.

    Attributes:
        user_id: of a stored user, or None.
        inputs: features, and history or events. The rest is as stored.
        is_popular_for_unknown: an unknown user without inputs gets the popular items; else that is an UnknownIdError.
    """

    user_id: Any = None
    inputs: UserInputs = NO_INPUTS
    options: ListOptions = ANY_LIST
    is_popular_for_unknown: bool = True


@dataclass(frozen=True)
class RecallAnswer:
    """One list of items.

    Attributes:
        bundle_id: the bundle that the whole answer comes from.
        source: see `AnswerSource`.
        item_ids: best first.
        scores: of a merged list, the log-odds that the user interacts with each; of the vectors alone, the similarity of each; of popular
            items, their number of positive events in the window.
        ignored: inputs of the request that nothing reads.
        sources: for each item the channels that proposed it, of a merged list, or `popular`; None for a list of vectors alone.
        replaced: `features` and `history` where those of the request, not the stored ones, are the stored user's.
        fields: column -> its value for each item, of the columns that were asked for.
    """

    bundle_id: str
    source: AnswerSource
    item_ids: list[Id]
    scores: list[float]
    ignored: tuple[str, ...] = ()
    sources: list[list[str]] | None = None
    replaced: tuple[str, ...] = ()
    fields: dict[str, list[Any]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the answer as JSON content; an attribute that does not apply is absent."""
        content = {
            "bundle_id": self.bundle_id,
            "source": self.source.value,
            "ignored": list(self.ignored) or None,
            "replaced": list(self.replaced) or None,
            "item_ids": self.item_ids,
            "scores": self.scores,
            "sources": self.sources,
            "fields": self.fields,
        }
        return {name: value for name, value in content.items() if value is not None}


class RecallEngine:
    """Answers from one bundle. Safe for any number of threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Loads the user tower of an open bundle.

        Raises:
            StorageError: the tower cannot be loaded from the bundle's files.
        """
        self.bundle = bundle
        self._conditions, self.shows_none = ItemConditions(bundle.item_columns), False
        self.tower = UserTower.from_bundle(bundle)
        self.channels = BundleChannels(bundle) if bundle.has_file(BundleFile.CHANNELS) else None
        self._users = SeenUsers(bundle, self.tower, self.channels)

    @classmethod
    def open(
        cls,
        root: str | BundleRoot,
        options: Mapping[str, Any] | None = None,
        *,
        bundle_id: str | None = None,
        is_verified: bool = True,
    ) -> RecallEngine:
        """Returns the engine of the current bundle, or of a given one; arguments and errors as `Bundle.open`."""
        bundles = root if isinstance(root, BundleRoot) else BundleRoot(root, options)
        return bundles.load_current(lambda wanted: cls(Bundle.load(bundles, wanted, is_verified)), bundle_id)

    def showing(self, shown: BoolArray | None) -> RecallEngine:
        """Returns an engine of the same bundle that shows only some of its items, bool [I]; None: all."""
        engine = copy.copy(self)
        engine._conditions = self._conditions.showing(shown)
        engine.shows_none = shown is not None and not shown.any()
        return engine

    def recall_for_user(self, user_id: Any, options: ListOptions = ANY_LIST) -> RecallAnswer:
        """Returns the items for a stored user: merged from the bundle's channels unless the options say otherwise.

        Raises:
            UnknownIdError: the bundle has no such user.
            InputError: the id or an option is invalid.
        """
        (answer,) = self._list_items([self._plan_for_user(user_id, options)])
        return answer

    def recall_for_users(
        self, requests: Sequence[UserRequest], on_encoded: Callable[[], None] = lambda: None
    ) -> list[RecallAnswer | DssmError]:
        """Returns the list of each request, or why it has none.

        Together they cost less than one by one, because features are encoded and lists are merged for many at once. Each
        list is the one that its request gets alone. `on_encoded` is called before the search.
        """
        seen: dict[int, SeenUser | DssmError] = {}
        for number, request in enumerate(requests):
            if not request.inputs.is_empty:
                try:
                    seen[number] = self._users.look_up(request.user_id, request.inputs)
                except DssmError as error:
                    seen[number] = error
        encoded = {number: one.inputs for number, one in seen.items() if isinstance(one, SeenUser) and one.needs_tower}
        vectors = dict(zip(encoded, self.tower.compute_vectors(list(encoded.values())), strict=True))
        on_encoded()
        answers: dict[int, RecallAnswer | DssmError] = {}
        alike: dict[tuple[int, int, int], dict[int, _Plan]] = {}
        for number, request in enumerate(requests):
            try:
                plan = self._plan(request, seen.get(number), vectors.get(number))
            except DssmError as error:
                answers[number] = error
                continue
            if isinstance(plan, RecallAnswer):
                answers[number] = plan
            else:
                alike.setdefault(plan.kind, {})[number] = plan
        for plans in alike.values():
            answers |= zip(plans, self._list_items(list(plans.values())), strict=True)
        return [answers[number] for number in range(len(requests))]

    def similar_items(self, item_id: Any, options: ListOptions = ANY_LIST) -> RecallAnswer:
        """Returns the items with the vectors nearest to an item's, without the item itself.

        Raises:
            UnknownIdError: the bundle has no such item.
            InputError: the id or an option is invalid.
        """
        bundle = self.bundle
        item = bundle.items.parse_id(item_id, "item_id")
        row = bundle.items.find_row(item)
        selection = self._select(options, np.array([row] if row >= 0 else [], np.int64))
        if row < 0:
            expected, remedy = f"an item of bundle {bundle.bundle_id}", "ask for an item of the corpus"
            raise UnknownIdError(Fault("item_id", expected, f"unknown {item!r}", remedy))
        vector = bundle.item_vectors[row].copy()
        if bundle.has_prior:
            vector[-1] = 0.0  # the last entry is the popularity prior, which says nothing about similarity
        (answer,) = self._list_items([_Plan(vector, selection.depth, selection, AnswerSource.ITEM)])
        return answer

    def popular_items(self, options: ListOptions = ANY_LIST) -> RecallAnswer:
        """Returns the most popular items, after them those without an event.

        Raises:
            InputError: an option is invalid.
        """
        selection, bundle = self._select(options), self.bundle
        plan = _Plan(_NO_VECTOR, 0, selection, AnswerSource.POPULAR)
        mask = None if selection.allowed is None else selection.allowed.mask
        rows = first_allowed(bundle.popular_rows, mask, selection.depth)
        rows = rows[selection.is_wanted(rows)][: selection.k]
        scores = bundle.popular_counts[rows].astype(np.float64).tolist()
        return self._make_answer(plan, rows, scores, [[FILLED] for _ in scores])

    def _plan(
        self, request: UserRequest, seen: SeenUser | DssmError | None, vector: Vector | DssmError | None
    ) -> _Plan | RecallAnswer:
        """Returns the search of a request, or the popular items; `vector` is the vector of the inputs, or the reason for its absence."""
        if isinstance(seen, DssmError):
            raise seen
        if isinstance(vector, DssmError):
            raise vector
        if seen is not None:
            source = AnswerSource.STORED if vector is None else AnswerSource.FEATURES
            searched = self.bundle.user_vector(seen.inputs.row) if vector is None else vector
            plan = self._plan_list(searched, seen.read_own, request.options, source)
            return replace(plan, ignored=seen.ignored, replaced=seen.replaced)
        if request.user_id is None:
            return self.popular_items(request.options)
        try:
            return self._plan_for_user(request.user_id, request.options)
        except UnknownIdError:
            if not request.is_popular_for_unknown:
                raise
            return self.popular_items(request.options)

    def _plan_for_user(self, user_id: Any, options: ListOptions) -> _Plan:
        bundle = self.bundle
        user = bundle.users.parse_id(user_id, "user_id")
        row = bundle.users.find_row(user)
        if row < 0:
            self._select(options)
            got, remedy = f"unknown {user!r}", "send the user's features, or ask for popular items"
            raise UnknownIdError(Fault("user_id", f"a user of bundle {bundle.bundle_id}", got, remedy))
        return self._plan_list(bundle.user_vector(row), partial(self._users.read_own, row), options, AnswerSource.STORED)

    def _plan_list(
        self,
        vector: Vector,
        read_own: Callable[[], OwnItems],
        options: ListOptions,
        source: AnswerSource,
    ) -> _Plan:
        """Returns the plan of a user with a vector; `read_own` reads the user's items, if the bundle has channels."""
        if self.channels is None:
            got = f"bundle {self.bundle.bundle_id} without channels"
            wants = {"exclude_history": options.exclude_history, "channels": options.lists is Lists.MERGED}
            InputError.raise_if(Fault(name, "a bundle with channels", got, _NO_CHANNELS) for name in wants if wants[name])
            selection = self._select(options)
            return _Plan(vector, selection.depth, selection, source)
        is_merged = options.lists is not Lists.VECTORS
        own = read_own() if is_merged or options.exclude_history else None
        selection = self._select(options, own.items if own is not None and options.exclude_history else _NO_ROWS)
        depth = self.channels.vector_depth if is_merged else selection.depth
        return _Plan(vector, depth, selection, source, own if is_merged else None)

    def _list_items(self, plans: Sequence[_Plan]) -> list[RecallAnswer]:
        """Returns the lists of plans of one kind."""
        first = plans[0]
        nearest = self.find_nearest([plan.vector for plan in plans], first.depth, first.selection.allowed)
        if self.channels is None or first.own is None:
            return [self._list_nearest(plan, *found) for plan, found in zip(plans, nearest, strict=True)]
        answers: list[RecallAnswer] = []
        for start in range(0, len(plans), MERGED_AT_ONCE):
            block = plans[start : start + MERGED_AT_ONCE]
            rows = [found for found, _ in nearest[start : start + MERGED_AT_ONCE]]
            vectors = _NearestItems(self.bundle, np.stack([plan.vector.reshape(-1) for plan in block]), rows)
            lists = self.channels.merge([plan.own for plan in block if plan.own], vectors, [plan.selection for plan in block])
            for plan, merged in zip(block, lists, strict=True):
                answers.append(self._make_answer(plan, merged.rows, merged.scores, merged.sources))
        return answers

    def _list_nearest(self, plan: _Plan, rows: IntArray, scores: Vector) -> RecallAnswer:
        wanted = np.flatnonzero(plan.selection.is_wanted(rows))[: plan.selection.k]
        return self._make_answer(plan, rows[wanted], scores[wanted].tolist())

    def _make_answer(
        self, plan: _Plan, rows: IntArray, scores: list[float], sources: list[list[str]] | None = None
    ) -> RecallAnswer:
        fields = self._conditions.read_fields(plan.selection.fields, rows)
        ids = self.bundle.items.ids_at(rows)
        return RecallAnswer(self.bundle.bundle_id, plan.source, ids, scores, plan.ignored, sources, plan.replaced, fields)

    def _select(self, options: ListOptions, left_out: IntArray = _NO_ROWS) -> Selection:
        """Returns which items a list may have, after checking the options; ids outside the corpus have no row."""
        k, exclude, faults = options.k, options.exclude, []
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
            faults.append(Fault("k", f"a number from 1 to {MAX_K}", repr(k), "ask for a list of that length"))
        fields, field_faults = self._conditions.check_fields(options.fields)
        InputError.raise_if([*faults, *field_faults])
        items = self.bundle.items
        allowed = self._conditions.find(options.filters)
        if not exclude and not len(left_out):
            return Selection(k, _NO_ROWS, allowed, fields)
        rows = np.array([items.find_row(item) for item in items.parse_ids(exclude, "exclude")], np.int64)
        return Selection(k, np.unique(np.concatenate([rows[rows >= 0], left_out])), allowed, fields)

    def find_nearest(self, vectors: Sequence[Vector], depth: int, allowed: AllowedItems | None) -> list[Nearest]:
        """Returns the allowed items nearest to each user's vector, at most `depth`, by score, then by row."""
        bundle = self.bundle
        users = np.stack([vector.reshape(-1, bundle.dims) for vector in vectors])  # [B, V, D]
        if allowed is None:
            return self._search_index(users, max(min(depth, len(bundle.items)), 1), None)
        depth = min(depth, allowed.count)
        if allowed.count <= max(SCANNED_ITEMS, SCANNED_FRAC * len(bundle.items)):
            return [self._scan(user, depth, allowed.rows) for user in users]
        found = self._search_index(users, depth, allowed)
        return [
            nearest if len(nearest[0]) >= depth else self._scan(user, depth, allowed.rows)
            for user, nearest in zip(users, found, strict=True)
        ]

    def _search_index(self, users: Vector, depth: int, allowed: AllowedItems | None) -> list[Nearest]:
        import faiss

        from dssm_assets.core.retrieval.index import search_index

        # From this number of vectors on FAISS multiplies matrices, which rounds one row differently from the same row alone.
        step = max(1, (faiss.cvar.distance_compute_blas_threshold - 1) // users.shape[1])
        found: list[Nearest] = []
        for start in range(0, len(users), step):
            part = users[start : start + step]
            scores, rows = search_index(self.bundle.index, part.reshape(-1, self.bundle.dims), depth, allowed)  # [B * V, M]
            if part.shape[1] > 1:
                rows, scores = merge_lists(rows, scores, np.arange(len(part) + 1) * part.shape[1])  # [B, M]
            found += map(_sort_found, rows, scores)
        return found

    def _scan(self, vectors: Vector, depth: int, rows: IntArray) -> Nearest:
        """As `find_nearest` for one user [V, D], by comparing every one of some items."""
        scores = (self.bundle.item_vectors[rows] @ vectors.T).max(axis=1)  # [R]
        order = np.lexsort((rows, -scores))[:depth]
        return rows[order], scores[order]


@dataclass(frozen=True)
class _Plan:
    """One search: its vector and depth, and the items that the list may have."""

    vector: Vector
    depth: int
    selection: Selection
    source: AnswerSource
    own: OwnItems | None = None
    """The user's items, which a merged list needs; None: a list of the vectors alone."""
    ignored: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()

    @property
    def kind(self) -> tuple[int, int, int]:
        """Returns the key of plans that are computed together; their merged lists are about as long."""
        merged_depth = 0 if self.own is None else self.selection.depth.bit_length()
        return self.depth, id(self.selection.allowed), merged_depth


def _sort_found(rows: IntArray, scores: Vector) -> Nearest:
    """Returns the items that the index returned for a user, by score, then by row."""
    rows, scores = rows[rows >= 0], scores[rows >= 0]
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


@dataclass(frozen=True)
class _NearestItems:
    """The items nearest to users' vectors; `NearestItems` of all these users."""

    bundle: Bundle
    vectors: Vector
    rows: Sequence[IntArray]

    def top_items(self, _: IntArray, k: int) -> IntArray:
        """Returns rows int64 [B, K] of allowed items, -1 after the last."""
        lists = np.full((len(self.rows), k), -1, np.int64)
        for found, rows in zip(lists, self.rows, strict=True):
            found[: len(rows)] = rows
        return lists

    def score_items(self, _: IntArray, items: IntArray) -> npt.NDArray[np.float64]:
        """Returns the scores of rows, float64 [B, C]; any for -1."""
        vectors = self.vectors.reshape(len(items), -1, self.bundle.dims)
        return score_interests(vectors, self.bundle.item_vectors, items, Metric.IP)


def recall_for_request(
    engine: RecallEngine,
    *,
    user_id: Any = None,
    inputs: UserInputs = NO_INPUTS,
    options: ListOptions = ANY_LIST,
    is_popular_for_unknown: bool = True,
) -> RecallAnswer:
    """Returns the list by features if there are any, else for the stored user, else the popular items.

    Raises:
        UnknownIdError: the user is unknown, and is_popular_for_unknown is false.
        InputError: as the engine's methods.
    """
    (answer,) = engine.recall_for_users([UserRequest(user_id, inputs, options, is_popular_for_unknown)])
    if isinstance(answer, Exception):
        raise answer
    return answer


def answer_query(
    engine: RecallEngine,
    *,
    user_id: Any = None,
    inputs: UserInputs = NO_INPUTS,
    item_id: Any = None,
    options: ListOptions = ANY_LIST,
) -> RecallAnswer:
    """Returns the list of `recall_for_request` for a user, or the most similar items of an item.

    Raises:
        InputError: both or neither are asked for, or as the engine's methods.
    """
    is_user = bool(user_id is not None or not inputs.is_empty)
    if is_user == (item_id is not None):
        remedy = "give user_id, features, history or events, or else item_id"
        raise InputError(Fault("arguments", "a user or an item", "both" if is_user else "neither", remedy))
    if item_id is not None:
        return engine.similar_items(item_id, options)
    return recall_for_request(engine, user_id=user_id, inputs=inputs, options=options)
