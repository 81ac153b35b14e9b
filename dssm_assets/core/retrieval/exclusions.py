"""Items that a user must not be shown, as compressed sparse rows.

Belongs here: the structure and its checks. Does not belong here: who excludes what (`core/evaluation`).

Shapes: U users, B users of a block, I items, E excluded pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.errors import Fault, InputError

Index = NDArray[np.int64]


class Exclusions(NamedTuple):
    """Excluded item indices of each user: those of user u are `indices[indptr[u]:indptr[u + 1]]`."""

    indptr: Index
    """int64 [U + 1]"""
    indices: Index
    """int64 [E]"""

    @property
    def lengths(self) -> Index:
        """Returns how many items each user must not see, int64 [U]."""
        return np.diff(self.indptr)

    def take(self, rows: Index) -> Exclusions:
        """Returns the exclusions of the given users, in that order."""
        lengths = self.lengths[rows]
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        positions = np.arange(indptr[-1]) + np.repeat(self.indptr[rows] - indptr[:-1], lengths)
        return Exclusions(indptr, self.indices[positions])

    def mask(self, num_items: int) -> NDArray[np.bool_]:
        """Returns bool [U, I], true where the item is excluded. For blocks of users only."""
        mask = np.zeros((len(self.indptr) - 1, num_items), dtype=bool)
        mask[np.repeat(np.arange(len(mask)), self.lengths), self.indices] = True
        return mask


def no_exclusions(num_users: int) -> Exclusions:
    """Returns exclusions that exclude nothing."""
    return Exclusions(np.zeros(num_users + 1, np.int64), np.zeros(0, np.int64))


def check_exclusions(excluded: Exclusions, num_users: int, num_items: int) -> None:
    """Checks that exclusions fit the users and items they are about.

    Raises:
        InputError: naming each misfit: number of users, bounds out of order, item indices outside the corpus.
    """
    faults: list[Fault] = []
    indptr, indices = excluded
    remedy = "build the exclusions over the same users and items as the search"
    if len(indptr) != num_users + 1:
        faults.append(Fault("exclusions, users", f"{num_users}", f"{len(indptr) - 1}", remedy))
    if len(indptr) and (indptr[0] != 0 or indptr[-1] != len(indices) or bool((np.diff(indptr) < 0).any())):
        faults.append(Fault("exclusions, bounds", f"ascending from 0 to {len(indices)}", "other bounds", remedy))
    outside = int(((indices < 0) | (indices >= num_items)).sum())
    if outside:
        got = f"{outside} indices outside"
        faults.append(
            Fault("exclusions, items", f"indices in [0, {num_items})", got, "leave out items that are not in the corpus")
        )
    if faults:
        raise InputError(faults)
