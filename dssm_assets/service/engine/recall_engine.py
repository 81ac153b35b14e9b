"""Recall from one bundle: for a stored user, for a new user's features, for an item, or the popular items.

Does not belong here: opening files (`bundle_reader.py`), the user of a request (`request_users.py`, `request_encoder.py`), HTTP.

Lists are ordered by score, then by the item's row in the index. The search depth grows by the number of excluded items. With filters,
the index skips items that do not pass. If few pass, or the index finds too few, every passing item is compared. So a list is shorter
than k only if no more items may be in it, or if an approximate index without filters finds no more.

Shapes: D vector dimension, M candidates, V vectors of a user (interests; an item's score is the best of them).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

import faiss
import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ordering import top_k
from dssm_assets.core.arrays.ragged import IntArray, Mask
from dssm_assets.core.channels.channel import OwnItems, first_allowed
from dssm_assets.core.errors import DssmError, Fault, InputError, PartitionMissingError, StorageError
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.exact import merge_lists, score_interests
from dssm_assets.core.retrieval.index import search_index
from dssm_assets.core.retrieval.item_filter import AllowedItems
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets.installed_extras import load_extra
from dssm_assets.service.bundle.bundle_store import BundleKeys, BundleStore, Pointer, broken
from dssm_assets.service.engine.allowed_items import ItemConditions
from dssm_assets.service.engine.bundle_reader import Bundle
from dssm_assets.service.engine.channels import FILLED, BundleChannels
from dssm_assets.service.engine.id_rows import Id, UnknownIdError
from dssm_assets.service.engine.reasons import Reasons, find_reasons
from dssm_assets.service.engine.request_encoder import NO_INPUTS, RequestUser, UserInputs, UserTower
from dssm_assets.service.engine.request_users import RequestUsers
from dssm_assets.service.engine.shop_lists import ShopLists

if TYPE_CHECKING:
    from dssm_assets.core.config.evaluation import Serving

DEFAULT_K: Final = 200
MAX_K: Final = 10_000
SCANNED_ITEMS: Final = 20_000
SCANNED_FRAC: Final = 0.01
"""If at most so many items, or this fraction, are allowed, all of them are compared: an index would take longer to skip the others."""
MERGED_AT_ONCE: Final = 16
"""At most so many lists are merged together, because more do not fit a core's cache."""

Vector = npt.NDArray[np.float32]
Nearest = tuple[IntArray, npt.NDArray[np.float32]]
"""Rows and scores of the items nearest to a user's vector."""

_NO_ROWS: Final = np.empty(0, np.int64)
_NONE_FOUND: Final[Nearest] = _NO_ROWS, np.empty(0, np.float32)
_NO_CHANNELS: Final = "ask for vectors, or publish a bundle with channels.is_enabled"


class ItemSearch(Protocol):
    """Searches items outside the bundle's own index, such as in a vector store."""

    def find_rows(self, vectors: Vector, k: int) -> list[IntArray]:
        """Returns, for each vector [N, D], the rows of the k nearest items."""


OpenSearch = Callable[[Bundle], ItemSearch]
"""Opens the search for the items of a bundle."""


class AnswerSource(StrEnum):
    """Where a list comes from."""

    STORED = "stored"  # the user's vector in the bundle
    FEATURES = "features"  # the vector of the request's inputs
    POPULAR = "popular"  # no vector
    ITEM = "item"  # an item's vector


class Lists(StrEnum):
    """The kind of list: merged, or vectors alone."""

    MERGED = "merged"  # from all channels of the bundle
    VECTORS = "vectors"  # of the vectors alone


@dataclass(frozen=True)
class ListOptions:
    """Options of a list.

    Attributes:
        k: length of the list. It is shorter only if fewer items may be in it, or if the index is approximate and lacks some.
        exclude: ids of items to leave out.
        filters: conditions on item columns, see `core/retrieval/item_filter.py`; None: no conditions.
        exclude_history: leave out items that the user interacted with before.
        lists: merged or vectors alone; None: merged if the bundle has channels.
        fields: filter columns to include in the answer.
        explain: answer with the reasons for each item of a merged list; takes some ms.
    """

    k: int = DEFAULT_K
    exclude: Sequence[Any] = ()
    filters: Any = None
    exclude_history: bool = False
    lists: Lists | None = None
    fields: Sequence[str] = ()
    explain: bool = False


ANY_LIST: Final = ListOptions()


@dataclass(frozen=True)
class UserRequest:
    """A request for a list. The engine uses the request's inputs if there are any, else the stored user, else it lists popular items.

    Attributes:
        user_id: a stored user, or None.
        item_id: asks for the items most similar to this one; None: a user's list.
        inputs: features, and history or events. Inputs that are not sent stay as stored.
        is_popular_for_unknown: whether an unknown user without inputs gets the popular items; if not, an UnknownIdError.
        request_id: name for the answer, where answers are kept; "": a new one.
    """

    user_id: Any = None
    inputs: UserInputs = NO_INPUTS
    options: ListOptions = ANY_LIST
    is_popular_for_unknown: bool = True
    item_id: Any = None
    request_id: str = ""


@dataclass(frozen=True)
class RecallAnswer:
    """One list of items.

    Attributes:
        bundle_id: the bundle that the whole answer comes from.
        source: see `AnswerSource`.
        ignored: inputs of the request that were not used.
        replaced: which of a stored user's `features` and `history` the request replaced.
        item_ids: best first.
        scores: log-odds of an interaction in a merged list, similarities in a list of vectors alone. For popular items:
            recent positive events (`evaluation.recent`), or without channels positive events of the window.
        sources: for each item the channels that proposed it, or `popular`; None for a list of vectors alone.
        fields: column -> value for each item.
        reasons: reasons for each item, if asked for; None for a list that is not merged.
        request_id, variant: see `AnswerHook`; None without a hook, and for a user in no variant.
    """

    bundle_id: str
    source: AnswerSource
    ignored: tuple[str, ...]
    replaced: tuple[str, ...]
    item_ids: list[Id]
    scores: list[float]
    sources: list[list[str]] | None
    fields: dict[str, list[Any]] | None
    reasons: list[Reasons] | None = None
    request_id: str | None = None
    variant: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the answer as JSON content, without attributes that do not apply."""
        content = {name: value for name, value in vars(self).items() if value not in (None, ())}
        return content if self.reasons is None else {**content, "reasons": [one.to_dict() for one in self.reasons]}


OnEncoded = Callable[[], None]
OpenBundle = Callable[[str], "RecallEngine"]
"""Opens a stored bundle by its id."""


@dataclass(frozen=True)
class HookState:
    """Faults and counters of a hook.

    Attributes:
        fault: why rows cannot be written or a variant's bundle cannot be used. None: there is no fault.
        waiting_rows: rows of answers that are not written yet.
        counts: written and dropped rows, failed writes, and answers of people whose variant could not be used.
        bundle_bytes: further open bundle -> size of its memory-mapped files.
    """

    fault: str | None = None
    waiting_rows: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    bundle_bytes: Mapping[str, int] = field(default_factory=dict)


class AnswerHook(Protocol):
    """Assigns users' requests to variants, and keeps what was answered (`extras/shown`). Safe for any number of threads."""

    @property
    def engines(self) -> Sequence[RecallEngine]:
        """Returns the engines of further bundles, which variants ask."""

    def answer(
        self, engine: RecallEngine, requests: Sequence[UserRequest], on_encoded: OnEncoded
    ) -> list[RecallAnswer | DssmError]:
        """Returns what `RecallEngine.compute_lists` does; lists for users also have their request_id and variant."""

    def refresh(self, pointer: Pointer | None, open_bundle: OpenBundle) -> bool:
        """Opens the bundles that variants name now; returns whether one was opened. Failures are noted."""

    def show(self, show: Callable[[RecallEngine], RecallEngine]) -> None:
        """Applies the lists of the shop to `engines`, after they have changed."""

    @property
    def state(self) -> HookState: ...

    def close(self) -> None:
        """Writes the waiting rows and stops."""


class RecallEngine:
    """Answers from one bundle. Safe for any number of threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Loads the user tower of an open bundle. Raises a StorageError if its files do not match."""
        self.bundle = bundle
        self._conditions, self.shown_frac = ItemConditions(bundle.item_columns), 1.0
        self._search: ItemSearch | None = None
        self._hook: AnswerHook | None = None
        self.tower = UserTower.from_bundle(bundle)
        self.channels = BundleChannels(bundle) if bundle.has_file(BundleFile.CHANNELS) else None
        self._popular = (bundle.popular_rows, bundle.popular_counts) if self.channels is None else self.channels.popular_items
        self.users = RequestUsers(bundle, self.tower.encoder, self.channels)

    @classmethod
    def open(
        cls,
        root: str | BundleStore,
        options: Mapping[str, Any] | None = None,
        *,
        bundle_id: str | None = None,
        is_verified: bool = True,
        keys: BundleKeys | None = None,
    ) -> RecallEngine:
        """Returns the engine of the current bundle, or of `bundle_id`.

        If the current bundle is removed meanwhile, it opens the newest bundle.

        Args:
            root: `<storage.root>/serving`, a folder or any fsspec URL, or the folder of one bundle.
            options: options of the fsspec filesystem.
            is_verified: compare the sha256 of the manifest and of every file, not only sizes.
            keys: trusted keys; one must have signed the bundle.

        Raises:
            PartitionMissingError: there is no bundle.
            StorageError: a file is missing, wrong or unreadable. A SignatureError if the bundle is not signed.
        """
        store = root if isinstance(root, BundleStore) else BundleStore(root, options, keys)
        wanted = bundle_id or store.current_id()
        while True:
            try:
                engine = cls(Bundle(store.fetch(wanted, is_verified=is_verified)))
                engine.bundle.users.hide(store.hidden.read())
                return engine
            except (PartitionMissingError, StorageError, FileNotFoundError) as error:
                if wanted != (now := bundle_id or store.current_id()):
                    wanted = now
                elif isinstance(error, DssmError):
                    raise
                else:
                    raise broken(wanted, f"a file is missing ({error})") from error

    def showing(self, shown: Mask | None) -> RecallEngine:
        """Returns an engine of the same bundle that shows only the items marked in `shown`, bool [I]; None: all items."""
        engine = copy.copy(self)
        engine._conditions = ItemConditions(self.bundle.item_columns, shown)
        engine.shown_frac = 1.0 if shown is None else float(shown.mean())
        return engine

    def searching(self, search: ItemSearch) -> RecallEngine:
        """Returns an engine of the same bundle with another search for nearest items."""
        engine = copy.copy(self)
        engine._search = search
        return engine

    def answering(self, hook: AnswerHook) -> RecallEngine:
        """Returns an engine of the same bundle with a hook for its answers."""
        engine = copy.copy(self)
        engine._hook = hook
        return engine

    def recall_for_user(self, user_id: Any, options: ListOptions = ANY_LIST) -> RecallAnswer:
        """Returns the items for a stored user. For errors see `recall`."""
        return self.recall(UserRequest(user_id, options=options, is_popular_for_unknown=False))

    def recall(self, request: UserRequest) -> RecallAnswer:
        """Returns the list of a request.

        Raises:
            UnknownIdError: the bundle lacks the item, or it lacks the user and is_popular_for_unknown is false.
            InputError: the id, an option or an input is invalid.
        """
        (answer,) = self.recall_for_users([request])
        if isinstance(answer, DssmError):
            raise answer
        return answer

    def recall_for_users(
        self, requests: Sequence[UserRequest], on_encoded: OnEncoded = lambda: None
    ) -> list[RecallAnswer | DssmError]:
        """Returns the list or the error of each request. `on_encoded` is called before the search."""
        return self.compute_lists(requests, on_encoded) if self._hook is None else self._hook.answer(self, requests, on_encoded)

    def compute_lists(self, requests: Sequence[UserRequest], on_encoded: OnEncoded) -> list[RecallAnswer | DssmError]:
        """Does what `recall_for_users` does without a hook.

        Encoding and merging many users at once costs less. Each list is the same as for the request alone.
        """
        answers: dict[int, RecallAnswer | DssmError] = {}
        users: dict[int, RequestUser | None] = {}
        for number, request in enumerate(requests):
            try:
                users[number] = self.users.look_up(request.user_id, request.inputs) if request.item_id is None else None
            except DssmError as error:
                answers[number] = error
        encoded = {number: user for number, user in users.items() if user is not None and user.needs_tower}
        vectors = dict(zip(encoded, self.tower.compute_vectors(list(encoded.values())), strict=True))
        on_encoded()
        alike: dict[tuple[int, int, int, int], dict[int, _Plan]] = {}
        for number, user in users.items():
            try:
                plan = self._plan(requests[number], user, vectors.get(number))
            except DssmError as error:
                answers[number] = error
            else:
                alike.setdefault(plan.kind, {})[number] = plan
        for plans in alike.values():
            try:
                answers |= zip(plans, self._list_items(list(plans.values())), strict=True)
            except StorageError as error:  # the search elsewhere failed; other kinds of lists may not need it
                answers |= dict.fromkeys(plans, error)
        return [answers[number] for number in range(len(requests))]

    def similar_items(self, item_id: Any, options: ListOptions = ANY_LIST) -> RecallAnswer:
        """Returns the items most similar to an item, without the item itself. For errors see `recall`."""
        return self.recall(UserRequest(item_id=item_id, options=options))

    def _plan(self, request: UserRequest, user: RequestUser | None, vector: Vector | DssmError | None) -> _Plan:
        """Plans the search of a request. `vector`: the vector computed from the inputs, or the error of computing it."""
        options, bundle = request.options, self.bundle
        if isinstance(vector, DssmError):
            raise vector
        if request.item_id is not None:
            return self._plan_similar(request.item_id, options)
        if user is None:
            selection = self._select(options)
            if request.user_id is not None and not request.is_popular_for_unknown:
                got = f"unknown {bundle.users.parse_id(request.user_id, 'user_id')!r}"
                remedy = "send the user's features, or ask for popular items"
                raise UnknownIdError(Fault("user_id", f"a user of bundle {bundle.bundle_id}", got, remedy))
            return _Plan(AnswerSource.POPULAR, selection)
        is_merged = self.channels is not None and options.lists is not Lists.VECTORS
        if self.channels is None:
            wants = {
                "exclude_history": options.exclude_history,
                "channels": options.lists is Lists.MERGED,
                "explain": options.explain,
            }
            got = f"bundle {bundle.bundle_id} without channels"
            InputError.raise_if(Fault(name, "a bundle with channels", got, _NO_CHANNELS) for name in wants if wants[name])
        own = user.read_own() if is_merged or options.exclude_history else None
        selection = self._select(options, own.items if own is not None and options.exclude_history else _NO_ROWS)
        return _Plan(
            source=AnswerSource.STORED if vector is None else AnswerSource.FEATURES,
            selection=selection,
            depth=self.channels.vector_depth if self.channels is not None and is_merged else selection.depth,
            vector=bundle.user_vector(user.row) if vector is None else vector,
            own=own if is_merged else None,
            user=user,
        )

    def _plan_similar(self, item_id: Any, options: ListOptions) -> _Plan:
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
        return _Plan(AnswerSource.ITEM, selection, selection.depth, vector)

    def _select(self, options: ListOptions, left_out: IntArray = _NO_ROWS) -> _Selection:
        """Checks the options. Returns the items that a list may have. Ids outside the corpus have no row."""
        k, faults = options.k, []
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
            faults.append(Fault("k", f"a number from 1 to {MAX_K}", repr(k), "ask for a list of that length"))
        fields, field_faults = self._conditions.check_fields(options.fields)
        InputError.raise_if([*faults, *field_faults])
        items = self.bundle.items
        allowed = self._conditions.find(options.filters)
        if options.exclude:
            rows = np.array([items.find_row(item) for item in items.parse_ids(options.exclude, "exclude")], np.int64)
            left_out = np.concatenate([rows[rows >= 0], left_out])
        return _Selection(options, np.unique(left_out) if len(left_out) else left_out, allowed, fields)

    def _list_items(self, plans: Sequence[_Plan]) -> list[RecallAnswer]:
        first, bundle = plans[0], self.bundle
        allowed = first.selection.allowed
        if first.source is AnswerSource.POPULAR:
            mask = None if allowed is None else allowed.mask
            order, counts = self._popular
            popular = [first_allowed(order, mask, plan.selection.depth) for plan in plans]
            return [
                self._make_answer(plan, rows, counts[rows].astype(np.float64), [[FILLED]] * len(rows))
                for plan, rows in zip(plans, popular, strict=True)
            ]
        nearest = self.find_nearest([plan.vector for plan in plans], first.depth, allowed, first.selection.options.filters)
        if self.channels is None or first.own is None:
            return [self._make_answer(plan, *found) for plan, found in zip(plans, nearest, strict=True)]
        answers: list[RecallAnswer] = []
        for start in range(0, len(plans), MERGED_AT_ONCE):
            block = plans[start : start + MERGED_AT_ONCE]
            rows = [found for found, _ in nearest[start : start + MERGED_AT_ONCE]]
            vectors = _NearestItems(bundle, np.stack([plan.vector.reshape(-1) for plan in block]), rows)
            depth = max(plan.selection.depth for plan in block)
            merged = self.channels.merge([plan.own for plan in block if plan.own], vectors, allowed, depth)
            answers += [self._make_answer(plan, *one) for plan, one in zip(block, merged, strict=True)]
            explained = [number for number, plan in enumerate(block) if plan.selection.options.explain]
            for number in explained:
                answers[start + number] = self._explain(block[number], rows[number], answers[start + number])
        return answers

    def _explain(self, plan: _Plan, nearest: IntArray, answer: RecallAnswer) -> RecallAnswer:
        vectors = _NearestItems(self.bundle, plan.vector.reshape(1, -1), [nearest])
        assert self.channels is not None and plan.user is not None
        args = (self.bundle, self.channels, self.tower, plan.user, vectors, plan.selection.allowed, answer.item_ids)
        return replace(answer, reasons=find_reasons(*args))

    def _make_answer(
        self, plan: _Plan, rows: IntArray, scores: npt.NDArray[Any], sources: Sequence[list[str]] | None = None
    ) -> RecallAnswer:
        """Lists the first k of these rows (best first), without excluded items. Row -1 is no item."""
        selection = plan.selection
        is_wanted = rows >= 0
        if len(selection.excluded):
            is_wanted &= ~np.isin(rows, selection.excluded)
        wanted = np.flatnonzero(is_wanted)[: selection.options.k]
        return RecallAnswer(
            self.bundle.bundle_id,
            plan.source,
            *((plan.user.ignored, plan.user.replaced) if plan.user else ((), ())),
            self.bundle.items.ids_at(rows[wanted]),
            scores[wanted].tolist(),
            None if sources is None else [sources[position] for position in wanted.tolist()],
            self._conditions.read_fields(selection.fields, rows[wanted]),
        )

    def find_nearest(
        self, vectors: Sequence[Vector], depth: int, allowed: AllowedItems | None, filters: Any = None
    ) -> list[Nearest]:
        """Returns at most `depth` allowed items nearest to each user's vector, ordered by score, then by row."""
        bundle = self.bundle
        users = np.stack([vector.reshape(-1, bundle.dims) for vector in vectors])  # [B, V, D]
        depth = max(min(depth, len(bundle.items) if allowed is None else allowed.count), 1)
        if self._search is not None and filters is None:  # the bundle's index skips items faster than a store
            found = self._search_elsewhere(self._search, users, depth, allowed)
        elif allowed is not None and allowed.count <= max(SCANNED_ITEMS, SCANNED_FRAC * len(bundle.items)):
            found = [_NONE_FOUND] * len(users)
        else:
            found = self._search_index(users, depth, allowed)
        if allowed is None and self._search is None:
            return found
        return [
            nearest if len(nearest[0]) >= depth else self._scan(user, depth, None if allowed is None else allowed.rows)
            for user, nearest in zip(users, found, strict=True)
        ]

    def _search_index(self, users: Vector, depth: int, allowed: AllowedItems | None) -> list[Nearest]:
        # From this number of vectors on FAISS multiplies matrices, which rounds one row differently from the same row alone.
        step = max(1, (faiss.cvar.distance_compute_blas_threshold - 1) // users.shape[1])
        found: list[Nearest] = []
        for start in range(0, len(users), step):
            part = users[start : start + step]
            scores, rows = search_index(self.bundle.index, part.reshape(-1, self.bundle.dims), depth, allowed)  # [B * V, M]
            rows, scores = merge_lists(rows, scores, np.arange(len(part) + 1) * part.shape[1])  # [B, M]
            found += map(_sort_found, rows, scores)
        return found

    def _search_elsewhere(self, search: ItemSearch, users: Vector, depth: int, allowed: AllowedItems | None) -> list[Nearest]:
        """Asks another search, and ranks its items by the bundle's vectors."""
        deeper = min(math.ceil(depth / max(self.shown_frac, 1e-9)), MAX_K)
        rows = search.find_rows(users.reshape(-1, self.bundle.dims), deeper)
        interests = users.shape[1]
        of_users = [np.unique(np.concatenate(rows[user * interests :][:interests])) for user in range(len(users))]
        if allowed is not None:
            of_users = [found[allowed.mask[found]] for found in of_users]
        return [self._scan(user, depth, found) for user, found in zip(users, of_users, strict=True)]

    def _scan(self, vectors: Vector, depth: int, rows: IntArray | None) -> Nearest:
        """Does the work of `find_nearest` for one user [V, D] by comparing all items in `rows` (ascending); None: every item."""
        rows = np.arange(len(self.bundle.items)) if rows is None else rows
        scores = (self.bundle.item_vectors[rows] @ vectors.T).max(axis=1)
        best = top_k(scores[None], min(depth, len(rows)))[0]
        return rows[best], scores[best]


@dataclass(frozen=True)
class _Selection:
    """The items that a list may have: the k best of the allowed items (None: all) without excluded rows. Also its columns."""

    options: ListOptions
    excluded: IntArray
    allowed: AllowedItems | None
    fields: tuple[str, ...]

    @property
    def depth(self) -> int:
        """Number of items to search for, so that k remain without the excluded items."""
        return self.options.k + len(self.excluded)


@dataclass(frozen=True)
class _Plan:
    """The search for one list, `depth` items deep. `own`: the user's items; None for a list of the vectors alone."""

    source: AnswerSource
    selection: _Selection
    depth: int = 0
    vector: Any = None
    own: OwnItems | None = None
    user: RequestUser | None = None

    @property
    def kind(self) -> tuple[int, int, int, int]:
        """Plans of the same kind are computed together. Their merged lists are about equally long. Popular items have depth 0."""
        merged_depth = 0 if self.own is None else self.selection.depth.bit_length()
        return self.depth, id(self.selection.allowed), merged_depth, np.size(self.vector)


def _sort_found(rows: IntArray, scores: Vector) -> Nearest:
    """Orders items by score, then by row; drops -1."""
    rows, scores = rows[rows >= 0], scores[rows >= 0]
    order = np.lexsort((rows, -scores))
    return rows[order], scores[order]


@dataclass(frozen=True)
class _NearestItems:
    """`NearestItems` of several users, already found."""

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
        """Returns the scores of rows, float64 [B, C]. The score of row -1 is arbitrary."""
        vectors = self.vectors.reshape(len(items), -1, self.bundle.dims)
        return score_interests(vectors, self.bundle.item_vectors, items, Metric.IP)


def open_hook(serving: Serving, root: str, options: Mapping[str, Any]) -> AnswerHook | None:
    """Returns the hook for answers of bundles below `root`; None if the configuration has no log of them and no variants."""
    if serving.shown is None and not serving.variants:
        return None
    hook: AnswerHook = load_extra("shown", "served").open_hook(serving, root, options)
    return hook


def recall_once(
    root: str,
    root_options: Mapping[str, Any],
    serving: Serving | None,
    *,
    user_id: Any = None,
    inputs: UserInputs = NO_INPUTS,
    item_id: Any = None,
    options: ListOptions = ANY_LIST,
    is_verified: bool = True,
    open_search: OpenSearch | None = None,
    keys: BundleKeys | None = None,
    hook: AnswerHook | None = None,
) -> RecallAnswer:
    """Returns a list of the current bundle for a user, or the items most similar to an item.

    Args:
        root, root_options, is_verified, keys: see `RecallEngine.open`.
        serving: the section with the lists of the shop; None: all items are shown.
        open_search: opens another search for nearest items; None: the bundle's index.
        hook: is asked for the answer; None: no answers are kept, and there are no variants.

    Raises:
        InputError: both a user and an item are asked for, or neither; or see `RecallEngine.recall`.
    """
    is_user = bool(user_id is not None or not inputs.is_empty)
    if is_user == (item_id is not None):
        remedy = "give user_id, features, history or events, or else item_id"
        raise InputError(Fault("arguments", "a user or an item", "both" if is_user else "neither", remedy))
    store = BundleStore(root, root_options, keys)
    lists = ShopLists(serving.blocked_items, serving.stocked_items, root, root_options) if serving else ShopLists()

    def open_bundle(bundle_id: str | None = None) -> RecallEngine:
        engine = RecallEngine.open(store, bundle_id=bundle_id, is_verified=is_verified)
        return engine.showing(lists.find_shown(engine.bundle.items))

    engine = open_bundle()
    if open_search is not None:
        engine = engine.searching(open_search(engine.bundle))
    if hook is not None:
        hook.refresh(store.pointer(), open_bundle)
        engine = engine.answering(hook)
    return engine.recall(UserRequest(user_id, inputs, options, item_id=item_id))
