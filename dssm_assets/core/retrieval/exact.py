"""Exact top-k search: the reference that every index is measured against.

Products in float32 propose somewhat more than k items per user. The proposals are scored again by the
definition (`pair_scores`) and ordered by score descending, then item_index ascending, also across the cut at k. A list is
proven if every item that was not proposed scores less than its last item, rounding included. A user whose list is not
proven, for example because hundreds of items tie, is searched again among all items. So the result depends on the input
alone, not on the processor, the threads or the block size.

Many users are searched among items in groups: most groups are too far from a user to have one of the best items.

Memory beyond the vectors, per thread: about `_BLOCK_CELLS` proposals with their scores; for users without proof,
`_DENSE_CELLS` scores. Groups need a copy of the items, L2 another.

Shapes: U users, B users of a block, I items, D vector dimension, K top-k, N proposals per user, P pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dssm_assets.core.arrays.ordering import falling_numbers, order_whole, sort_with_places
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, check_exclusions, no_exclusions, offsets_of, ranges
from dssm_assets.core.config.model import Similarity
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.retrieval.vectors import Metric, Vectors, check_vectors, pair_scores, prepare_vectors, vector_lengths

Scores = NDArray[np.float32]
Lists = tuple[IntArray, Scores]
"""item_index int64 [B, K] and scores float32 [B, K]; -1 and -inf where there is no item."""

BLOCK_SIZE = 4096
"""Users searched at once."""
_SPARE = 32
"""Items proposed beyond k: enough to prove most lists."""
_BLOCK_CELLS = 2**21
"""Proposals of a block, at most: long lists make blocks smaller."""
_DENSE_CELLS = 2**22
"""Scores kept at once when users are searched among all items."""
_PRODUCT_USERS = 512
"""Users of one product at most: so many that the items are not read too often."""
_PRODUCT_CELLS = 2**18
"""Products kept at once: few enough for the cache, where they are compared with a bound."""
_MANY_USERS = 512
"""Users for whom items are grouped, which takes about as long as the search for so many."""
_GROUP_ITEMS = 1024
"""Items of a group at most: few enough to lie near each other, enough for one product."""
_GROUP_SAMPLE = 2048
"""Items from which the direction of most variance is estimated."""
_SAMPLE_ITEMS = 2**13
"""Items of a sample at most."""
_SAMPLE_STEP = 16
"""Each how many-th score of a row gives the bound above which the best ones are looked for."""
_HALF_ULP = 2.0**-24
"""Half the distance from 1 to the next float32: how far one rounding moves a number, relatively."""
_SMALLEST = 2.0**-125
"""More than what is lost where a float32 product or sum falls below the smallest normal number."""
_LONGEST = 1e37
"""Products of lengths beyond which float32 may overflow."""


class Corpus:
    """Items ready to be searched, any number of times: checked, and of unit length for cosine."""

    def __init__(
        self,
        item_vectors: NDArray[np.floating[Any]],
        metric: Similarity | Metric,
        item_ids: Any = None,
        *,
        is_checked: bool = False,
    ) -> None:
        """Checks the items, unless they were, and brings them into shape.

        Raises:
            InputError: for an empty corpus, NaN, infinite or zero vectors, naming how many and the first ids.
        """
        self.metric = Metric.from_similarity(metric)
        if not is_checked:
            check_vectors({"item": (item_vectors, item_ids)})
        self.vectors = prepare_vectors(item_vectors, self.metric)

    def __len__(self) -> int:
        return len(self.vectors)

    @cached_property
    def longest(self) -> float:
        return float(vector_lengths(self.vectors).max())

    @cached_property
    def quick_items(self) -> Vectors:
        """Returns the items [I, D] whose inner product with `quick_users` orders them.

        For L2 [I, D + 1], with -|i|^2 / 2 as the last column: u.i - |i|^2 / 2 orders items as minus the squared distance does.
        """
        if self.metric is not Metric.L2:
            return self.vectors
        half = vector_lengths(self.vectors) ** 2 / 2
        with np.errstate(over="ignore"):  # such vectors are too long, and no quick score of them is used
            return np.concatenate([self.vectors, -half[:, None].astype(np.float32)], axis=1)

    @cached_property
    def sample_step(self) -> int:
        """Returns each how many-th item is one of the sample."""
        return max(_SAMPLE_STEP, -(-len(self) // _SAMPLE_ITEMS))

    @cached_property
    def sample_items(self) -> Vectors:
        """Returns the sample of `quick_items`, whose scores give a bound for those of all."""
        return np.ascontiguousarray(self.quick_items[:: self.sample_step])

    @cached_property
    def groups(self) -> _ItemGroups:
        """Returns `quick_items` in groups of near ones."""
        with np.errstate(over="ignore", invalid="ignore"):  # a radius beyond float32 leaves no group out
            parts = _halve(self.quick_items, np.arange(len(self)))
            order, offsets = np.concatenate(parts), offsets_of([len(part) for part in parts])
            items = np.take(self.quick_items, order, axis=0)
            pieces = np.split(items, offsets[1:-1])
            centers = np.stack([piece.mean(axis=0) for piece in pieces])
            radii = [vector_lengths(piece - center).max() for piece, center in zip(pieces, centers, strict=True)]
        return _ItemGroups(order, items, offsets, centers, np.array(radii) * (1 + 4 * _HALF_ULP))  # i - c was rounded

    @property
    def has_groups(self) -> bool:
        """Returns whether a search has grouped the items."""
        return "groups" in vars(self)

    def in_order(self, size: int) -> _ItemGroups:
        """Returns `quick_items` in their order, in groups of this size without a limit of their scores."""
        starts = np.arange(0, len(self), size)
        centers = np.zeros((len(starts), self.quick_items.shape[1]), np.float32)
        offsets = np.append(starts, len(self))
        return _ItemGroups(np.arange(len(self)), self.quick_items, offsets, centers, np.full(len(starts), np.inf))

    @cached_property
    def _longest_quick(self) -> float:
        return self.longest if self.metric is not Metric.L2 else float(vector_lengths(self.quick_items).max())

    def quick_users(self, users: Vectors) -> _QuickUsers:
        """Returns users [B, D] with the bound on how far their quick scores lie from the defined ones.

        The bound is that of a dot product in float32, summed in any order (Higham, Accuracy and Stability of Numerical
        Algorithms, section 3.1), doubled. It is infinite for vectors so long that products may overflow.
        """
        lengths = vector_lengths(users)
        scale, shift = np.ones(len(users)), np.zeros(len(users))
        if self.metric is Metric.L2:
            scale, shift = np.full(len(users), 0.5), lengths**2 / 2
            users = np.concatenate([users, np.ones((len(users), 1), np.float32)], axis=1)
            margin = _HALF_ULP * np.sqrt(lengths**2 + 1) * self._longest_quick
        else:
            margin = _HALF_ULP * lengths * self.longest
        margin = 2 * (users.shape[1] + 2) * (margin + _SMALLEST)
        if self.metric is Metric.L2:
            margin += 2 * _HALF_ULP * (lengths + self.longest) ** 2  # of the defined score itself
        is_too_long = lengths * max(self.longest, 1.0) + self.longest**2 >= _LONGEST
        return _QuickUsers(users, scale, shift, np.where(is_too_long, np.inf, margin))


class _QuickUsers(NamedTuple):
    """Users of a block: |quick score - (score * scale + shift)| <= margin for every item."""

    vectors: Vectors
    scale: NDArray[np.float64]
    """[B], above 0."""
    shift: NDArray[np.float64]
    """[B]"""
    margin: NDArray[np.float64]
    """[B]"""

    def select_users(self, users: IntArray) -> _QuickUsers:
        """Returns the given users, in that order."""
        return _QuickUsers(self.vectors[users], self.scale[users], self.shift[users], self.margin[users])


class _ItemGroups(NamedTuple):
    """Items in groups. The distance from the group's center c limits their scores: u.i <= u.c + |u| |i - c|."""

    order: IntArray
    """int64 [I], the item_index of each row of `items`."""
    items: Vectors
    """[I, D], quick items, group by group."""
    offsets: IntArray
    """int64 [G + 1], the rows of each group."""
    centers: Vectors
    """[G, D]"""
    radii: NDArray[np.float64]
    """[G], no item of the group is farther from its center."""


def top_k(
    user_vectors: NDArray[np.floating[Any]],
    item_vectors: NDArray[np.floating[Any]],
    k: int,
    *,
    similarity: Similarity | Metric,
    excluded: Exclusions | tuple[IntArray, IntArray] | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
    user_ids: Any = None,
    item_ids: Any = None,
) -> Lists:
    """Returns each user's k best items: score descending, then item_index ascending, also across the cut at k.

    To search the same items again, keep a `Corpus` and call `search`.

    Args:
        user_vectors: [U, D].
        item_vectors: [I, D].
        similarity: how vectors are compared: ip, cosine (both sides are brought to unit length first) or l2.
        excluded: items that a user must not be given: (indptr int64 [U + 1], indices int64).
        block_size: users searched at once: memory against speed, never the result.

    Returns:
        item_index int64 [U, K] and scores float32 [U, K] (L2: minus the squared distance); where fewer than k items
        remain, -1 and -inf.

    Raises:
        InputError: for NaN, infinite or zero vectors, naming how many and the first ids, and for exclusions that do not fit.
    """
    check_vectors({"user": (user_vectors, user_ids), "item": (item_vectors, item_ids)})
    corpus = Corpus(item_vectors, similarity, is_checked=True)
    return search(corpus, user_vectors, k, excluded=excluded, block_size=block_size, threads=threads, is_checked=True)


def search(
    corpus: Corpus,
    user_vectors: NDArray[np.floating[Any]],
    k: int,
    *,
    excluded: Exclusions | tuple[IntArray, IntArray] | None = None,
    block_size: int = BLOCK_SIZE,
    threads: int = 1,
    user_ids: Any = None,
    is_checked: bool = False,
) -> Lists:
    """Returns what `top_k` does, for items that are ready.

    Args:
        user_vectors: [U, D].

    Raises:
        InputError: for unusable user vectors and for exclusions that do not fit.
    """
    if k < 1:
        raise InputError(Fault("top_k, k", "at least 1", str(k), "ask for a longer list"))
    if not is_checked:
        check_vectors({"user": (user_vectors, user_ids)}, width=corpus.vectors.shape[1])
    users = prepare_vectors(user_vectors, corpus.metric)
    exclusions = no_exclusions(len(users)) if excluded is None else Exclusions(*excluded)
    check_exclusions(exclusions, len(users), len(corpus))
    index = np.full((len(users), k), -1, dtype=np.int64)
    scores = np.full((len(users), k), -np.inf, dtype=np.float32)

    at_once = max(1, min(len(users), block_size, _PRODUCT_USERS))
    is_grouped = len(users) >= _MANY_USERS or corpus.has_groups
    groups = corpus.groups if is_grouped else corpus.in_order(_PRODUCT_CELLS // at_once)

    def fill(block: IntArray) -> None:
        index[block], scores[block] = _search_block(corpus, groups, users[block], k, exclusions.select_users(block))

    # Users with similar numbers of exclusions share a block, because all users of a block get equally many proposals.
    order = np.argsort(exclusions.lengths, kind="stable")
    proposals = np.minimum(k + _SPARE + exclusions.lengths[order], len(corpus))
    _run(fill, [order[part] for part in _blocks(proposals, block_size)], threads)
    return index, scores


def top_k_scores(
    scores: NDArray[np.floating[Any]], k: int, excluded: Exclusions | tuple[IntArray, IntArray] | None = None
) -> Lists:
    """Returns the k best of each row of a dense block under the tie rule of `top_k`. A score of -inf is no candidate.

    Args:
        scores: [B, I]; not changed.
        excluded: items left out, one row of the exclusions per row of the block.

    Raises:
        InputError: if a score is NaN or the exclusions do not fit.
    """
    num_users, num_items = scores.shape
    missing = int(np.isnan(scores).sum())
    if missing:
        raise InputError(Fault("scores", "numbers", f"{missing} NaN", "find the scorer that divides by zero"))
    if excluded is not None:
        exclusions = Exclusions(*excluded)
        check_exclusions(exclusions, num_users, num_items)
        scores = np.where(exclusions.mask(num_items), scores.dtype.type(-np.inf), scores)
    kept = min(k, num_items)
    if kept == 0 or num_users == 0:
        return np.full((num_users, k), -1, dtype=np.int64), np.full((num_users, k), -np.inf, dtype=np.float32)
    # Of the negatives: with thousands of ties at -inf, as sparse scores have, it is six times faster this way around.
    cut = -np.partition(-scores, kept - 1, axis=1)[:, kept - 1, None]  # [B, 1], the k-th best score
    chosen = scores >= cut
    tied = np.flatnonzero(chosen.sum(axis=1) > kept)
    level = scores[tied] == cut[tied]
    above = chosen[tied] & ~level
    room = kept - above.sum(axis=1, keepdims=True)
    chosen[tied] = above | (level & (np.cumsum(level, axis=1, dtype=np.int32) <= room))  # of the tied ones, the lowest indices
    candidates = np.flatnonzero(chosen).reshape(num_users, kept) - np.arange(num_users)[:, None] * num_items
    return _order_lists(candidates, np.take_along_axis(scores, candidates, axis=1), k)


def _blocks(proposals: IntArray, block_size: int) -> Iterator[slice]:
    """Yields ranges of users, given the number of proposals of each, ascending."""
    start = 0
    while start < len(proposals):
        stop = min(start + block_size, len(proposals))
        while stop - start > 1 and (stop - start) * proposals[stop - 1] > _BLOCK_CELLS:
            stop = start + (stop - start) // 2
        yield slice(start, stop)
        start = stop


def _run(fill: Callable[[IntArray], None], blocks: list[IntArray], threads: int) -> None:
    if threads == 1 or len(blocks) < 2:
        for block in blocks:
            fill(block)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(fill, blocks))


def _halve(items: Vectors, rows: IntArray) -> list[IntArray]:
    """Returns the rows in groups of near items: halves of halves, each time along the direction of most variance."""
    if len(rows) <= _GROUP_ITEMS:
        return [rows]
    part = np.take(items, rows, axis=0)
    sample = part[:: -(-len(part) // _GROUP_SAMPLE)]
    sample = sample - sample.mean(axis=0)
    axis = sample[np.einsum("nd,nd->n", sample, sample).argmax()]
    for _ in range(3):  # power iteration
        axis = sample.T @ (sample @ axis)
        axis = axis / np.abs(axis).max()
    order, half = np.argpartition(part @ axis, len(rows) // 2), len(rows) // 2
    del part, sample  # the copies of all levels would be twice the items
    return _halve(items, rows[order[:half]]) + _halve(items, rows[order[half:]])


def _search_block(corpus: Corpus, groups: _ItemGroups, users: Vectors, k: int, excluded: Exclusions) -> Lists:
    quick = corpus.quick_users(users)
    items, floor = _propose(corpus, groups, quick, k + _SPARE, excluded)
    items.sort(axis=1)  # of equal scores the lower item_index comes first
    rows = np.repeat(np.arange(len(users)), items.shape[1])
    scores = pair_scores(users, corpus.vectors, rows, items.ravel(), corpus.metric).reshape(items.shape)
    scores[items < 0] = -np.inf
    index, best = _order_lists(items, scores, k)
    worst = best[:, -1] * quick.scale + quick.shift - quick.margin  # least quick score of the k-th best [B]
    unproven = np.flatnonzero(~((worst > floor) | (np.isneginf(floor) & np.isfinite(quick.margin))))
    step = max(1, _DENSE_CELLS // len(corpus))
    for start in range(0, len(unproven), step):
        part = unproven[start : start + step]
        index[part], best[part] = _search_all_items(corpus, users[part], k, excluded.select_users(part))
    return index, best


def _propose(
    corpus: Corpus, groups: _ItemGroups, quick: _QuickUsers, count: int, excluded: Exclusions
) -> tuple[IntArray, NDArray[np.float64]]:
    """Returns the `count` best items per user by quick scores, without excluded ones, and the floor [B].

    No other item has a quick score above its user's floor. If too few items are left, the list ends in -1; if no other item
    is left, the floor is -inf.
    """
    count, num_users = min(count, len(corpus)), len(quick.vectors)
    items, floor = np.full((num_users, count), -1, np.int64), np.full(num_users, -np.inf)
    for start in range(0, num_users, _PRODUCT_USERS):
        part = np.arange(start, min(start + _PRODUCT_USERS, num_users))
        users, left_out = quick.select_users(part), excluded.select_users(part)
        with np.errstate(over="ignore", invalid="ignore"):  # where products may overflow, the margin is infinite
            found, kept = _propose_above_bound(corpus, groups, users, count, left_out)
            for user in np.flatnonzero(np.isnan(kept)).tolist():
                own = left_out.indices[left_out.indptr[user] : left_out.indptr[user + 1]]
                found[user], kept[user] = _propose_to_one(corpus, users.vectors[user], count, own)
        items[part], floor[part] = found, kept
    return items, floor


def _propose_above_bound(
    corpus: Corpus, groups: _ItemGroups, quick: _QuickUsers, count: int, excluded: Exclusions
) -> tuple[IntArray, NDArray[np.float64]]:
    """Returns what `_propose` does; the floor of a user with too few or far too many items above the bound is NaN.

    Nearly all scores are below a bound that the scores of a few items give: a number is compared faster than it is sorted.
    A group without an item above a user's bound is not multiplied with this user.

    Args:
        quick: R users, at most _PRODUCT_USERS.
        excluded: items of these users.
    """
    users, num_users, step = quick.vectors, len(quick.vectors), corpus.sample_step
    above = int(count / step + 4 * (count / step) ** 0.5 + 4)
    most = 4 * above * step + excluded.lengths
    bounds = _sample_bounds(corpus, users, above, excluded)
    reach = users @ groups.centers.T + vector_lengths(users)[:, None] * groups.radii
    reach += 2 * quick.margin[:, None]  # of the product with the center and of that with an item
    is_near = np.ascontiguousarray(~(reach < bounds[:, None]).T)  # [G, R]
    counts, found = np.zeros(num_users, np.int64), []
    products = np.empty(num_users * int(np.diff(groups.offsets).max()), np.float32)
    for group in np.flatnonzero(is_near.any(axis=1)).tolist():
        rows = np.flatnonzero(is_near[group])
        start, stop = int(groups.offsets[group]), int(groups.offsets[group + 1])
        room = products[: (stop - start) * len(rows)].reshape(stop - start, len(rows))
        scores = np.matmul(groups.items[start:stop], np.take(users, rows, axis=0).T, out=room)
        cells = np.flatnonzero(scores >= bounds[rows])
        columns, places = np.divmod(cells, len(rows))
        rows = rows[places]
        counts += np.bincount(rows, minlength=num_users)
        if (counts > most).any():  # equal scores of many items: their cells would fill the memory
            is_kept = (counts <= most)[rows]
            cells, rows, columns = cells[is_kept], rows[is_kept], columns[is_kept]
        found.append((rows, groups.order[columns + start], np.take(scores, cells)))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    if len(excluded.indices):
        is_kept = ~excluded.contains(rows, columns)
        rows, columns, values = rows[is_kept], columns[is_kept], values[is_kept]
    items, floor = _best_of_rows(rows, columns, values, num_users, count)
    floor[counts > most] = np.nan
    return items, floor


def _sample_bounds(corpus: Corpus, users: Vectors, above: int, excluded: Exclusions) -> Scores:
    """Returns a score [R] that at least `above` items of the sample reach; the lowest number if it has fewer."""
    sample = users @ corpus.sample_items.T
    is_sampled = excluded.indices % corpus.sample_step == 0
    sample[excluded.users[is_sampled], excluded.indices[is_sampled] // corpus.sample_step] = -np.inf
    while sample.shape[1] > 32 * above:  # only one of two scores, hardly ever both, is among so few best ones
        half = sample.shape[1] // 2
        sample = np.maximum(sample[:, :half], sample[:, half : 2 * half])
    bounds = np.full(len(users), np.finfo(np.float32).min)  # -inf is no candidate
    if above < sample.shape[1]:
        np.maximum(bounds, np.partition(sample, sample.shape[1] - above, axis=1)[:, sample.shape[1] - above], out=bounds)
    return bounds


def _best_of_rows(
    rows: IntArray, columns: IntArray, values: Scores, num_rows: int, count: int
) -> tuple[IntArray, NDArray[np.float64]]:
    """Returns the columns of the `count` largest values of each row and the least of them; -1 and nan if it has fewer."""
    lengths = np.bincount(rows, minlength=num_rows)
    order = order_whole((rows << 32) + falling_numbers(values), 32 + num_rows.bit_length())
    starts, kept = offsets_of(lengths)[:-1], np.minimum(lengths, count)
    items, least = np.full((num_rows, count), -1, np.int64), np.full(num_rows, np.nan)
    items[np.arange(count) < kept[:, None]] = columns[order[ranges(starts, kept)]]
    is_full = lengths >= count
    least[is_full] = values[order[starts[is_full] + count - 1]]
    return items, least


def _propose_to_one(corpus: Corpus, user: Vectors, count: int, excluded: IntArray) -> tuple[IntArray, float]:
    """Returns what `_propose` does for one user [D], from all scores."""
    row = corpus.quick_items @ user
    row[excluded] = -np.inf
    best = find_best(row, count)
    kept = row[best]
    return np.where(np.isneginf(kept), -1, best), float(kept.min()) if count < len(row) else -np.inf


def find_best(row: Scores, count: int) -> IntArray:
    """Returns the places of the `count` highest scores of a row, in any order.

    Nearly all scores are below a bound that a sixteenth of them gives: a number is compared faster than it is sorted.
    """
    sample = row[::_SAMPLE_STEP]
    expected = count / _SAMPLE_STEP
    above = int(expected + 4 * expected**0.5 + 4)
    places = np.arange(len(row))
    if above < len(sample):
        reached = np.flatnonzero(row >= np.partition(sample, len(sample) - above)[len(sample) - above])
        if len(reached) >= count:
            places = reached
    chosen = np.argpartition(row[places], len(places) - count)[len(places) - count :]
    return np.asarray(places[chosen])


def _search_all_items(corpus: Corpus, users: Vectors, k: int, excluded: Exclusions) -> Lists:
    """Returns the lists of users from the quick scores of all items.

    Let q be the k-th highest quick score. k items have defined scores of at least q - margin, so each of the k best has one
    too, and a quick score of at least q - 2 * margin. All items with such quick scores are scored by the definition.
    """
    quick, kept = corpus.quick_users(users), min(k, len(corpus))
    with np.errstate(over="ignore", invalid="ignore"):
        scores = quick.vectors @ corpus.quick_items.T
        scores[excluded.users, excluded.indices] = -np.inf
        reached = np.partition(scores, len(corpus) - kept, axis=1)[:, len(corpus) - kept] - 2 * quick.margin
    is_candidate = ~(scores < reached[:, None])  # also where a product overflowed to NaN
    is_candidate[excluded.users, excluded.indices] = False
    rows, found = np.nonzero(is_candidate)
    counts = np.bincount(rows, minlength=len(users))
    items = np.full((len(users), counts.max(initial=0)), -1, dtype=np.int64)
    values = np.full(items.shape, -np.inf, dtype=np.float32)
    places = np.arange(len(rows)) - offsets_of(counts)[rows]
    items[rows, places], values[rows, places] = found, pair_scores(users, corpus.vectors, rows, found, corpus.metric)
    return _order_lists(items, values, k)


def _order_lists(items: IntArray, scores: NDArray[np.floating[Any]], k: int) -> Lists:
    """Returns the k best of each row: score descending, then in the order given; a score of -inf is no item."""
    if scores.dtype == np.float32:
        order = sort_with_places(falling_numbers(scores))[1][:, :k]
    else:
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, axis=1)
    index = np.full((len(items), k), -1, dtype=np.int64)
    best = np.full((len(items), k), -np.inf, dtype=np.float32)
    index[:, : order.shape[1]] = np.where(np.isneginf(values), -1, np.take_along_axis(items, order, axis=1))
    best[:, : order.shape[1]] = values
    return index, best
