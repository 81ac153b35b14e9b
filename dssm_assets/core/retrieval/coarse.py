"""Coarse scores: quick matrix products that come with a bound on how far they lie from the defined score.

Belongs here: the products and their bounds. Does not belong here: what is done with them (`candidates.py`).

Two kinds. `FloatCoarse` multiplies in float32. `ByteCoarse` rounds both sides to whole numbers of one byte and multiplies
those, which processors with such instructions do four times as fast; the rounding is bounded by Cauchy and Schwarz:
|u.i - u'.i'| <= |u| |i - i'| + |u - u'| |i'|.

Shapes: B users of a block, I items, D vector dimension, C items of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.retrieval.metrics import Floats, Metric

Rows = slice | NDArray[np.int64]
LEVELS = 127
AT_ONCE = 2**17
"""Numbers that are rounded at once: few enough for the processor's cache."""
UNIT = 2.0**-24
"""Half the distance from 1 to the next float32: how far one rounding moves a number, relatively."""
TINY = 2.0**-125
"""More than what is lost where a float32 product or sum falls below the smallest normal number."""


@dataclass(frozen=True)
class Query:
    """A block of users ready to be multiplied: |coarse - (score * scale + shift)| <= margin for every item."""

    matrix: NDArray[Any]
    """[B, D] or wider."""
    scale: Floats
    """[B], above 0."""
    shift: Floats
    """[B]"""
    margin: Floats
    """[B]"""


class Coarse(Protocol):
    """A way to score a block of users against many items at once, nearly right."""

    @property
    def kind(self) -> np.dtype[Any]:
        """Returns the type of the scores."""

    @property
    def lowest(self) -> int | float:
        """Returns a value below every score: what an excluded item gets."""

    def query(self, users: NDArray[np.float32]) -> Query:
        """Returns users float32 [B, D] ready to be multiplied."""

    def multiply(self, query: Query, items: Rows, out: NDArray[Any]) -> None:
        """Writes the coarse scores of the given items to out [B, C]."""


def lengths(vectors: NDArray[Any]) -> Floats:
    """Returns the Euclidean length of each vector."""
    wide = np.empty(len(vectors), dtype=np.float64)
    for start in range(0, len(vectors), 4096):
        part = vectors[start : start + 4096].astype(np.float64)
        np.einsum("ij,ij->i", part, part, out=wide[start : start + 4096])
    return np.asarray(np.sqrt(wide))


class FloatCoarse:
    """Products in float32. For L2, u.i - |i|^2 / 2, which orders items as minus the squared distance does."""

    kind = np.dtype(np.float32)
    lowest = -np.inf

    def __init__(self, items: NDArray[np.float32], metric: Metric, longest: float) -> None:
        """Takes the items and the length of the longest of them."""
        self.metric = metric
        self.items = items
        if metric is Metric.L2:
            half = lengths(items) ** 2 / 2
            with np.errstate(over="ignore"):  # such vectors are too long for coarse scores, and `exact.py` asks for none
                self.items = np.concatenate([items, -half[:, None].astype(np.float32)], axis=1)
        self._longest = longest
        self._longest_wide = longest if self.items is items else float(lengths(self.items).max())

    def query(self, users: NDArray[np.float32]) -> Query:
        """Returns the users; the bound is that of a dot product in any order (Higham, section 3.1), doubled."""
        of_users = lengths(users)
        if self.metric is not Metric.L2:
            rounding = 2 * (users.shape[1] + 2) * (UNIT * of_users * self._longest + TINY)
            return Query(users, np.ones(len(users)), np.zeros(len(users)), rounding)
        wide = np.concatenate([users, np.ones((len(users), 1), np.float32)], axis=1)
        rounding = 2 * (wide.shape[1] + 2) * (UNIT * np.sqrt(of_users**2 + 1) * self._longest_wide + TINY)
        rounding += 2 * UNIT * (of_users + self._longest) ** 2  # of the defined score itself
        return Query(wide, np.full(len(users), 0.5), of_users**2 / 2, rounding)

    def multiply(self, query: Query, items: Rows, out: NDArray[Any]) -> None:
        """Writes float32 scores."""
        np.matmul(query.matrix, self.items[items].T, out=out)


class ByteCoarse:
    """Products of whole numbers from -127 to 127, summed without rounding in int32. Not for L2."""

    kind = np.dtype(np.int32)
    lowest = np.iinfo(np.int32).min

    def __init__(self, items: NDArray[np.float32]) -> None:
        self._step = float(np.abs(items).max()) / LEVELS
        self.items = np.empty(items.shape, dtype=np.int8)
        self._longest = self._longest_rounded = self._worst = 0.0
        rows = max(1, AT_ONCE // items.shape[1])
        for start in range(0, len(items), rows):
            part = items[start : start + rows].astype(np.float64)
            whole = np.rint(part / self._step)
            self.items[start : start + len(part)] = whole
            self._longest = max(self._longest, float(lengths(part).max()))
            self._longest_rounded = max(self._longest_rounded, float(lengths(whole * self._step).max()))
            self._worst = max(self._worst, float(lengths(part - whole * self._step).max()))

    @cached_property
    def _torch_items(self) -> Any:
        import torch

        return torch.from_numpy(self.items)

    def query(self, users: NDArray[np.float32]) -> Query:
        """Returns the users as whole numbers of a step of their own."""
        wide = users.astype(np.float64)
        steps = np.abs(wide).max(axis=1) / LEVELS
        whole = np.rint(wide / steps[:, None])
        of_users, residuals = lengths(wide), lengths(wide - whole * steps[:, None])
        bound = of_users * self._worst + residuals * self._longest_rounded + 4 * UNIT * of_users * self._longest + TINY
        scale = 1 / (steps * self._step)
        return Query(whole.astype(np.int8), scale, np.zeros(len(users)), bound * scale * (1 + 1e-9) + 1)

    def multiply(self, query: Query, items: Rows, out: NDArray[Any]) -> None:
        """Writes int32 scores."""
        import torch

        chosen = self._torch_items[items] if isinstance(items, slice) else torch.from_numpy(self.items[items])
        torch._int_mm(torch.from_numpy(query.matrix), chosen.T, out=torch.from_numpy(out))


@lru_cache
def has_byte_products(dims: int) -> bool:
    """Tells whether products of bytes of this width are quick here, and right.

    Without these instructions torch sums pairs of products in 16 bits, which saturate (pytorch/pytorch issue 136746), and
    some layouts are refused without a word (issue 195066). So the answer is yes only after products of the largest
    numbers and of random ones, in the shapes that occur, came out exact.
    """
    import torch

    is_quick = getattr(getattr(torch, "cpu", None), "_is_vnni_supported", None)
    if not hasattr(torch, "_int_mm") or is_quick is None or not is_quick():
        return False
    rng = np.random.Generator(np.random.PCG64(0))
    for num_users, num_items in ((1, 1), (1, 65), (65, 1), (64, 512), (100, 300)):
        for least in (-LEVELS, LEVELS):
            left, right = (
                rng.integers(least, LEVELS + 1, size=(count, dims)).astype(np.int8) for count in (num_users, num_items)
            )
            found = np.full((num_users, num_items), -1, dtype=np.int32)
            torch._int_mm(torch.from_numpy(left), torch.from_numpy(right).T, out=torch.from_numpy(found))
            if not (found == left.astype(np.float64) @ right.astype(np.float64).T).all():
                return False
    return True
