"""Recall from one bundle: for a stored user, for a new user's features, for an item, or the popular items.

Belongs here: which vector is searched with, the search, excluded items, the answer. Does not belong here: opening
files (`bundle.py`), features of a request (`requests.py`), HTTP (`http.py`).

Lists are ordered by score, then by the item's row in the index. The search goes as much deeper as items are excluded, so a
list is shorter than k only if the corpus, or what an approximate index finds, has no more.

Shapes: D vector dimension, M candidates, V vectors of a user (its interests; an item scores by the best of them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import IntArray
from dssm_assets.core.channels.sources import OwnItems
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.file_names import BundleFile
from dssm_assets.core.retrieval.interests import merge_lists
from dssm_assets.serving.bundle import Bundle, BundleRoot
from dssm_assets.serving.channels import BundleChannels
from dssm_assets.serving.id_rows import Id, UnknownIdError
from dssm_assets.serving.request_encoder import NO_INPUTS, UserInputs
from dssm_assets.serving.user_tower import UserTower

DEFAULT_K: Final = 200
MAX_K: Final = 10_000
MAX_EXCLUDED: Final = 100_000


class AnswerSource(StrEnum):
    """What a list was recalled from."""

    STORED = "stored"
    """The user's vector in the bundle."""
    FEATURES = "features"
    """The user tower's output for the features of the request."""
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
class RecallAnswer:
    """One list of items.

    Attributes:
        bundle_id: the bundle that the whole answer comes from.
        source: what the list was recalled from.
        item_ids: best first.
        scores: of a merged list, the log-odds that the user interacts with each; of the vectors alone, the similarity of each; of popular
            items, their number of positive events in the window.
        ignored: inputs of the request that no feature reads.
        sources: of a merged list, for each item the channels that proposed it; None for a list that is not merged.
    """

    bundle_id: str
    source: AnswerSource
    item_ids: list[Id]
    scores: list[float]
    ignored: tuple[str, ...] = ()
    sources: list[list[str]] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the answer as a JSON object."""
        body: dict[str, Any] = {"bundle_id": self.bundle_id, "source": self.source.value}
        if self.ignored:
            body["ignored"] = list(self.ignored)
        body |= {"item_ids": self.item_ids, "scores": self.scores}
        return body if self.sources is None else {**body, "sources": self.sources}


class RecallEngine:
    """Answers from one bundle. Safe for any number of threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Loads the user tower of an open bundle.

        Raises:
            StorageError: the tower cannot be loaded from the bundle's files.
        """
        self.bundle = bundle
        self.tower = UserTower.from_bundle(bundle)
        self.channels = BundleChannels(bundle) if bundle.has_file(BundleFile.CHANNELS) else None

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

    def recall_for_user(
        self, user_id: Any, k: int = DEFAULT_K, exclude: Sequence[Any] = (), lists: Lists | None = None
    ) -> RecallAnswer:
        """Returns the items for a stored user: merged from the bundle's channels unless `lists` says otherwise.

        Raises:
            UnknownIdError: the bundle has no such user.
            InputError: the id, k or an excluded id is invalid.
        """
        excluded, is_merged = self._excluded_rows(k, exclude), self._is_merged(lists)
        bundle = self.bundle
        user = bundle.users.parse_id(user_id, "user_id")
        row = bundle.users.find_row(user)
        if row < 0:
            got, remedy = f"unknown {user!r}", "send the user's features, or ask for popular items"
            raise UnknownIdError(Fault("user_id", f"a user of bundle {bundle.bundle_id}", got, remedy))
        vector = bundle.user_vectors.vector(row)
        if self.channels is not None and is_merged:
            return self._merge(self.channels, self.channels.own_items(row), vector, k, excluded, AnswerSource.STORED)
        return self._search(vector, k, excluded, AnswerSource.STORED)

    def recall_for_features(
        self, inputs: UserInputs, k: int = DEFAULT_K, exclude: Sequence[Any] = (), lists: Lists | None = None
    ) -> RecallAnswer:
        """Returns the items for a user who is known by features alone; own history is the history of the request.

        Raises:
            InputError: naming every input that cannot be used.
        """
        excluded, is_merged = self._excluded_rows(k, exclude), self._is_merged(lists)
        vector, ignored = self.tower.compute_vector(inputs)
        if self.channels is not None and is_merged:
            own = self.channels.items_of_history(inputs.history)
            return self._merge(self.channels, own, vector, k, excluded, AnswerSource.FEATURES, ignored)
        return self._search(vector, k, excluded, AnswerSource.FEATURES, ignored)

    def similar_items(self, item_id: Any, k: int = DEFAULT_K, exclude: Sequence[Any] = ()) -> RecallAnswer:
        """Returns the items whose vectors are nearest to an item's, without the item itself.

        Raises:
            UnknownIdError: the bundle has no such item.
            InputError: the id, k or an excluded id is invalid.
        """
        excluded = self._excluded_rows(k, exclude)
        bundle = self.bundle
        item = bundle.items.parse_id(item_id, "item_id")
        row = bundle.items.find_row(item)
        if row < 0:
            expected, remedy = f"an item of bundle {bundle.bundle_id}", "ask for an item of the corpus"
            raise UnknownIdError(Fault("item_id", expected, f"unknown {item!r}", remedy))
        vector = bundle.item_vectors.vector(row).copy()
        if bundle.has_prior:
            vector[-1] = 0.0  # the last entry is the popularity prior, which says nothing about similarity
        return self._search(vector, k, excluded | {row}, AnswerSource.ITEM)

    def popular_items(self, k: int = DEFAULT_K, exclude: Sequence[Any] = ()) -> RecallAnswer:
        """Returns the most popular items.

        Raises:
            InputError: k or an excluded id is invalid.
        """
        self._excluded_rows(k, exclude)
        bundle = self.bundle
        excluded = set(bundle.items.parse_ids(exclude, "exclude"))
        rows = [row for row, item in enumerate(bundle.popular_ids[: k + len(excluded)]) if item not in excluded][:k]
        counts = bundle.popular_counts
        return RecallAnswer(
            bundle.bundle_id,
            AnswerSource.POPULAR,
            [bundle.popular_ids[row] for row in rows],
            [float(counts[row]) for row in rows],
        )

    def _excluded_rows(self, k: int, exclude: Sequence[Any]) -> frozenset[int]:
        """Returns the rows of the excluded items, after checking k; items outside the corpus have no row."""
        faults = []
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
            faults.append(Fault("k", f"a number from 1 to {MAX_K}", repr(k), "ask for a list of that length"))
        if len(exclude) > MAX_EXCLUDED:
            got = f"{len(exclude)} ids"
            faults.append(Fault("exclude", f"at most {MAX_EXCLUDED} ids", got, "remove the rest from the list afterwards"))
        if faults:
            raise InputError(faults)
        items = self.bundle.items
        rows = {items.find_row(item) for item in items.parse_ids(exclude, "exclude")}
        return frozenset(rows - {-1})

    def _is_merged(self, lists: Lists | None) -> bool:
        """Returns whether a list is merged.

        Raises:
            InputError: a merged list is asked for and the bundle has no channels.
        """
        if lists is Lists.MERGED and self.channels is None:
            got = f"bundle {self.bundle.bundle_id} without channels"
            remedy = "ask for vectors, or publish a bundle with channels.is_enabled"
            raise InputError(Fault("channels", "a bundle with channels", got, remedy))
        return lists is not Lists.VECTORS

    def _merge(
        self,
        channels: BundleChannels,
        own: OwnItems,
        vector: npt.NDArray[np.float32],
        k: int,
        excluded: frozenset[int],
        source: AnswerSource,
        ignored: tuple[str, ...] = (),
    ) -> RecallAnswer:
        def find_nearest(_: IntArray, depth: int) -> IntArray:
            rows, _scores = self._nearest(vector, depth)
            return np.append(rows, np.full(depth - len(rows), -1, np.int64))[None]

        merged = channels.merge(own, find_nearest, k, excluded)
        ids = self.bundle.items.ids_at(merged.rows)
        return RecallAnswer(self.bundle.bundle_id, source, ids, merged.scores, ignored, merged.sources)

    def _search(
        self,
        vector: npt.NDArray[np.float32],
        k: int,
        excluded: frozenset[int],
        source: AnswerSource,
        ignored: tuple[str, ...] = (),
    ) -> RecallAnswer:
        bundle = self.bundle
        found, values = self._nearest(vector, k + len(excluded))
        if excluded:
            kept = ~np.isin(found, np.fromiter(excluded, np.int64, len(excluded)))
            found, values = found[kept], values[kept]
        return RecallAnswer(bundle.bundle_id, source, bundle.items.ids_at(found[:k]), values[:k].tolist(), ignored)

    def _nearest(self, vector: npt.NDArray[np.float32], depth: int) -> tuple[IntArray, npt.NDArray[np.float32]]:
        """Returns the rows and scores of the items nearest to a user's vector, at most `depth`, by score, then by row."""
        bundle = self.bundle
        vectors = vector.reshape(-1, bundle.dims)  # [V, D]
        scores, rows = bundle.index.search(vectors, max(min(depth, len(bundle.items)), 1))  # [V, M]
        if len(vectors) > 1:
            rows, scores = merge_lists(rows, scores, np.array([0, len(vectors)], np.int64))  # [1, M]
        is_found = rows[0] >= 0
        found, values = rows[0][is_found], scores[0][is_found]
        order = np.lexsort((found, -values))
        return found[order], values[order]


def recall_for_request(
    engine: RecallEngine,
    *,
    user_id: Any = None,
    inputs: UserInputs = NO_INPUTS,
    k: int = DEFAULT_K,
    exclude: Sequence[Any] = (),
    is_popular_for_unknown: bool = True,
    lists: Lists | None = None,
) -> RecallAnswer:
    """Returns the list by features if there are any, else for the stored user, else the popular items.

    Raises:
        UnknownIdError: the user is unknown, and is_popular_for_unknown is false.
        InputError: as the engine's methods.
    """
    if inputs.features or inputs.history:
        return engine.recall_for_features(inputs, k, exclude, lists)
    if user_id is None:
        return engine.popular_items(k, exclude)
    try:
        return engine.recall_for_user(user_id, k, exclude, lists)
    except UnknownIdError:
        if not is_popular_for_unknown:
            raise
        return engine.popular_items(k, exclude)
