"""Recall from one bundle: for a stored user, for the features of a new one, for an item, and the popular items.

Belongs here: who gets which vector, the search, what is left out of a list, the answer. Does not belong here: opening
files (`bundle.py`), features of a request (`requests.py`), HTTP (`http.py`).

Lists are ordered by score, then by the item's row in the index. Excluded items are searched past, so a list is short
only where the corpus, or what an approximate index finds, ends.

Shapes: D vector dimension, M candidates, V vectors of a user (its interests; an item scores by the best of them).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.interests import merged
from dssm_assets.serving.bundle import Bundle, BundleRoot
from dssm_assets.serving.id_rows import Id, UnknownIdError
from dssm_assets.serving.requests import NOTHING, Given
from dssm_assets.serving.user_tower import UserTower

DEFAULT_K: Final = 200
MAX_K: Final = 10_000
MAX_EXCLUDED: Final = 100_000


class Source(StrEnum):
    """Where a list comes from."""

    STORED = "stored"
    """The vector of the bundle of a user that it knows."""
    FEATURES = "features"
    """The user tower, run on the features of the request."""
    POPULAR = "popular"
    """The most popular items: nothing else is known."""
    ITEM = "item"
    """The vector of an item."""


@dataclass(frozen=True)
class Answer:
    """One list of items.

    Attributes:
        bundle_id: the bundle that answered, alone.
        source: where the list comes from.
        item_ids: the best first.
        scores: similarity of each; for popular items how often they were taken.
        ignored: inputs in the request that no feature reads.
    """

    bundle_id: str
    source: Source
    item_ids: list[Id]
    scores: list[float]
    ignored: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns the answer as JSON has it."""
        said: dict[str, Any] = {"bundle_id": self.bundle_id, "source": self.source.value}
        if self.ignored:
            said["ignored"] = list(self.ignored)
        return {**said, "item_ids": self.item_ids, "scores": self.scores}


class Engine:
    """Answers from one bundle. Safe for any number of threads."""

    def __init__(self, bundle: Bundle) -> None:
        """Takes an open bundle and makes its user tower ready.

        Raises:
            StorageError: if the tower cannot be made from the bundle's files.
        """
        self.bundle = bundle
        self.tower = UserTower.of(bundle)

    @classmethod
    def open(
        cls,
        root: str | BundleRoot,
        options: Mapping[str, Any] | None = None,
        *,
        bundle_id: str | None = None,
        is_verified: bool = True,
    ) -> Engine:
        """Returns the engine of the current bundle or of a named one; arguments and errors as `Bundle.open`."""
        place = root if isinstance(root, BundleRoot) else BundleRoot(root, options)
        return place.of_current(lambda wanted: cls(Bundle.load(place, wanted, is_verified)), bundle_id)

    def for_user(self, user_id: Any, k: int = DEFAULT_K, exclude: Sequence[Any] = ()) -> Answer:
        """Returns the list of a stored user.

        Raises:
            UnknownIdError: if the bundle does not know the user.
            InputError: if the id, k or an excluded id is none.
        """
        excluded = self._checked(k, exclude)
        bundle = self.bundle
        user = bundle.users.parsed(user_id, "user_id")
        row = bundle.users.row(user)
        if row < 0:
            got, remedy = f"{user!r}, which it does not hold", "send the user's features, or take popular items"
            raise UnknownIdError(Fault("user_id", f"a user of bundle {bundle.bundle_id}", got, remedy))
        return self._search(bundle.user_vectors.vector(row), k, excluded, Source.STORED)

    def for_features(self, given: Given, k: int = DEFAULT_K, exclude: Sequence[Any] = ()) -> Answer:
        """Returns the list of a user of whom only the features are known.

        Raises:
            InputError: naming every input that cannot be used.
        """
        excluded = self._checked(k, exclude)
        vector, ignored = self.tower.vector(given)
        return self._search(vector, k, excluded, Source.FEATURES, ignored)

    def similar(self, item_id: Any, k: int = DEFAULT_K, exclude: Sequence[Any] = ()) -> Answer:
        """Returns the items whose vectors are nearest to an item's, without itself.

        Raises:
            UnknownIdError: if the bundle does not know the item.
            InputError: if the id, k or an excluded id is none.
        """
        excluded = self._checked(k, exclude)
        bundle = self.bundle
        item = bundle.items.parsed(item_id, "item_id")
        row = bundle.items.row(item)
        if row < 0:
            got = f"{item!r}, which it does not hold"
            raise UnknownIdError(
                Fault("item_id", f"an item of bundle {bundle.bundle_id}", got, "ask for an item of the corpus")
            )
        vector = bundle.item_vectors.vector(row).copy()
        if bundle.has_prior:
            vector[-1] = 0.0  # how popular two items are says nothing of how alike they are
        return self._search(vector, k, excluded | {row}, Source.ITEM)

    def popular(self, k: int = DEFAULT_K, exclude: Sequence[Any] = ()) -> Answer:
        """Returns the most popular items.

        Raises:
            InputError: if k or an excluded id is none.
        """
        self._checked(k, exclude)
        bundle = self.bundle
        left_out = set(bundle.items.all_parsed(exclude, "exclude"))
        rows = [row for row, item in enumerate(bundle.popular_ids[: k + len(left_out)]) if item not in left_out][:k]
        counts = bundle.popular_counts
        return Answer(
            bundle.bundle_id, Source.POPULAR, [bundle.popular_ids[row] for row in rows], [float(counts[row]) for row in rows]
        )

    def _checked(self, k: int, exclude: Sequence[Any]) -> frozenset[int]:
        """Returns the rows of the excluded items; items that the corpus does not have need no excluding."""
        faults = []
        if isinstance(k, bool) or not isinstance(k, int) or not 1 <= k <= MAX_K:
            faults.append(Fault("k", f"a number from 1 to {MAX_K}", repr(k), "ask for a list of such a length"))
        if len(exclude) > MAX_EXCLUDED:
            got = f"{len(exclude)} ids"
            faults.append(Fault("exclude", f"at most {MAX_EXCLUDED} ids", got, "leave the rest out of the list afterwards"))
        if faults:
            raise InputError(faults)
        items = self.bundle.items
        rows = {items.row(item) for item in items.all_parsed(exclude, "exclude")}
        return frozenset(rows - {-1})

    def _search(
        self, vector: npt.NDArray[np.float32], k: int, excluded: frozenset[int], source: Source, ignored: tuple[str, ...] = ()
    ) -> Answer:
        bundle = self.bundle
        depth = min(k + len(excluded), len(bundle.items))
        vectors = vector.reshape(-1, bundle.dims)  # [V, D]
        scores, rows = bundle.index.search(vectors, max(depth, 1))  # [V, M]
        if len(vectors) > 1:
            rows, scores = merged(rows, scores, np.array([0, len(vectors)], np.int64))  # [1, M]
        kept = rows[0] >= 0
        if excluded:
            kept &= ~np.isin(rows[0], self._array(excluded))
        found, values = rows[0][kept], scores[0][kept]
        order = np.lexsort((found, -values))[:k]
        return Answer(bundle.bundle_id, source, bundle.items.ids(found[order]), values[order].tolist(), ignored)

    @staticmethod
    def _array(rows: frozenset[int]) -> npt.NDArray[np.int64]:
        return np.fromiter(rows, np.int64, len(rows))


def for_request(
    engine: Engine,
    *,
    user_id: Any = None,
    given: Given = NOTHING,
    k: int = DEFAULT_K,
    exclude: Sequence[Any] = (),
    is_popular_for_unknown: bool = True,
) -> Answer:
    """Returns the list by features where any are given, else of the stored user, else popular items.

    Raises:
        UnknownIdError: if the user is unknown and this is not to mean popular items.
        InputError: as the engine.
    """
    if given.features or given.history:
        return engine.for_features(given, k, exclude)
    if user_id is None:
        return engine.popular(k, exclude)
    try:
        return engine.for_user(user_id, k, exclude)
    except UnknownIdError:
        if not is_popular_for_unknown:
            raise
        return engine.popular(k, exclude)
