"""The evaluation of anybody's vectors: the same definitions as the pipeline's, from three tables.

Belongs here: who is counted, the search block by block, the rates. Does not belong here: reading and checking the tables
(`vector_sets.py`), files (`steps/`), layouts of other tools (`reference_layout.py`).

hit_rate@k = sum over users of |topk & truth| / sum over users of |truth|, user_recall and user_hit_rate as in `totals.py`.
Who counts: every user with truth. One without a vector gets an empty list: its truth counts and is missed. A user without
truth does not count. An item of the truth that has no vector counts as missed. What a user had seen before, where that is
given, is neither a candidate nor asked for (scope discovery): what may not be found must not be missed.

Shapes: U users with truth, B users of a block, P truth pairs, K top-k.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays.ids import check_unique, comparable_ids, find_positions, format_ids
from dssm_assets.core.arrays.ragged import Exclusions, IntArray, combine_chunks, list_lengths
from dssm_assets.core.columns import ITEM_ID, USER_ID
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.evaluation.hit_counts import TRUTH_COUNT, cell, sums_per_user
from dssm_assets.core.evaluation.places import hit_ranks
from dssm_assets.core.evaluation.rates import total_hit_rate
from dssm_assets.core.evaluation.scorer import ScorerName
from dssm_assets.core.evaluation.truth import Mask, Population, Scope, Truth, ground_truth, read_truth
from dssm_assets.core.retrieval.corpus import Corpus
from dssm_assets.core.retrieval.exact import BLOCK_SIZE, Scores
from dssm_assets.core.retrieval.interests import search_interests
from dssm_assets.core.retrieval.metrics import Metric
from dssm_assets.core.retrieval.vectors import Vectors, vector_faults

VECTOR = "vector"
_Value = TypeVar("_Value")
_FORM = "list, large_list or fixed_size_list of numbers"


@dataclass(frozen=True)
class VectorSet:
    """Distinct ids, each with at least one usable vector."""

    ids: pa.Array
    """[N]"""
    vectors: Vectors
    """float32 [V, D], grouped by id."""
    bounds: IntArray
    """int64 [N + 1]: those of id n are rows bounds[n] .. bounds[n + 1] - 1."""

    def take(self, rows: IntArray) -> tuple[Vectors, IntArray]:
        """Returns the vectors of the given ids and their bounds."""
        counts = np.diff(self.bounds)[rows]
        bounds = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
        places = np.arange(bounds[-1]) + np.repeat(self.bounds[rows] - bounds[:-1], counts)
        return self.vectors[places], bounds


class Faults:
    """Gathers what is wrong in several places, so that all of it is told at once."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def of(self, work: Callable[[], _Value]) -> _Value | None:
        """Returns what the work returns; None if its input was bad, which is kept."""
        try:
            return work()
        except InputError as error:
            self.found += error.faults
            return None

    def raise_any(self) -> None:
        """Raises what was gathered, if anything was.

        Raises:
            InputError: with every fault.
        """
        if self.found:
            raise InputError(self.found)


def read_vectors(table: pa.Table, id_column: str, where: str, *, may_have_several: bool) -> VectorSet:
    """Returns the vectors of a table with an id column and a column `vector`.

    Args:
        table: one row per id; `vector` a list of numbers, or a list of such lists where an id may have several.
        id_column: user_id or item_id.
        where: what to call the table in errors.
        may_have_several: an id may have several vectors.

    Raises:
        InputError: with every fault: a missing column, ids that are missing or repeated, vectors that are missing, of
            different widths, not finite or all zeros; the first ids are named.
    """
    lacking = [name for name in (id_column, VECTOR) if name not in table.column_names]
    if lacking:
        came = ", ".join(table.column_names) or "no columns"
        raise SchemaError(
            [Fault(f"{where}, column {name}", "the column to exist", came, "rename or add it") for name in lacking]
        )
    if not table.num_rows:
        raise InputError(Fault(where, "at least one row", "none", "write the vectors first"))
    faults = Faults()
    ids = faults.of(lambda: combine_chunks(comparable_ids(table.column(id_column), f"{where}, column {id_column}")))
    if ids is not None:
        faults.of(lambda: check_unique(ids, f"{where}, column {id_column}"))
    names = pa.array(np.arange(1, table.num_rows + 1)).cast(pa.string()) if ids is None else ids
    column = f"{where}, column {VECTOR}"
    side = id_column.removesuffix("_id")
    read = faults.of(lambda: _matrix(table.column(VECTOR), names, column, side, may_have_several))
    if ids is None or read is None or faults.found:
        raise InputError(faults.found)
    return VectorSet(ids, *read)


def read_pairs(table: pa.Table, where: str) -> pa.Table:
    """Returns the distinct pairs user_id, item_id of a table, ids as int64 or string.

    Raises:
        InputError: with every fault: a missing column, ids that are missing or of a wrong type.
    """
    faults = Faults()
    columns = {}
    for name in (USER_ID, ITEM_ID):
        place = f"{where}, column {name}"
        if name not in table.column_names:
            came = ", ".join(table.column_names) or "no columns"
            faults.found.append(Fault(place, "the column to exist", came, "rename or add it"))
        else:
            columns[name] = faults.of(lambda name=name, place=place: combine_chunks(comparable_ids(table.column(name), place)))  # type: ignore[misc]
    faults.raise_any()
    return pa.table(columns).group_by([USER_ID, ITEM_ID], use_threads=False).aggregate([])


def _matrix(column: pa.ChunkedArray, ids: pa.Array, where: str, side: str, may_have_several: bool) -> tuple[Vectors, IntArray]:
    inner = column.type.value_type if _is_list(column.type) else None
    is_nested = inner is not None and _is_list(inner)
    numbers = inner.value_type if inner is not None and is_nested else inner
    if numbers is None or not _is_number(numbers) or (is_nested and not may_have_several):
        expected = f"{_FORM}, or a list of those" if may_have_several else _FORM
        raise SchemaError(Fault(where, expected, str(column.type), "write each vector as a list of numbers"))
    parts = list(_parts(column, is_nested))
    counts, owner, widths, values, holes = (np.concatenate([part[place] for part in parts]) for place in range(5))
    faults = [*_shape_faults(counts, owner, widths, holes, ids, where)]
    if faults:
        raise InputError(faults)
    matrix = values.reshape(len(owner), int(widths[0]))
    found = vector_faults(side, matrix, _Owned(ids, owner))
    if found:
        raise InputError(found)
    return matrix, np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _parts(column: pa.ChunkedArray, is_nested: bool) -> Iterator[tuple[Any, ...]]:
    """Yields per chunk: vectors of each row, row of each vector, width of each, their numbers, rows with a null inside."""
    start = 0
    for chunk in column.chunks:
        rows = np.arange(start, start + len(chunk))
        start += len(chunk)
        if is_nested:
            counts, vectors = list_lengths(chunk), chunk.flatten()
        else:
            present = pc.is_valid(chunk)
            counts, vectors = present.cast(pa.int64()).to_numpy(zero_copy_only=False), chunk.filter(present)
        owner = np.repeat(rows, counts)
        widths = list_lengths(vectors)
        flat = vectors.flatten()
        holes = np.concatenate([owner[_nulls(vectors)], np.repeat(owner, widths)[_nulls(flat)]])
        numbers = pc.cast(flat, pa.float32(), safe=False).to_numpy(zero_copy_only=False)
        yield counts, owner, widths, np.asarray(numbers, np.float32), holes


def _shape_faults(
    counts: IntArray, owner: IntArray, widths: IntArray, holes: IntArray, ids: pa.Array, where: str
) -> Iterator[Fault]:
    none = np.flatnonzero(counts == 0)
    if len(none):
        yield _fault(where, "a vector in every row", f"{len(none)} of {len(ids)} without: {format_ids(ids, none)}")
    hollow = np.unique(holes)
    if len(hollow):
        got = f"{len(hollow)} of {len(ids)} rows with nulls: {format_ids(ids, hollow)}"
        yield _fault(where, "no missing numbers in a vector", got)
    sound = ~np.isin(owner, hollow)
    if sound.any():
        common = int(np.bincount(widths[sound]).argmax())
        other = np.unique(owner[sound & (widths != common)])
        if len(other):
            got = f"{len(other)} of {len(ids)} of other widths: {format_ids(ids, other)}"
            yield _fault(where, f"vectors of one width, mostly {common}", got)
        elif common == 0:
            yield _fault(where, "vectors of at least one number", "empty ones")


def _fault(where: str, expected: str, got: str) -> Fault:
    return Fault(where, expected, got, "write these vectors anew, or drop these ids")


def _nulls(array: Any) -> Any:
    return pc.is_null(array).to_numpy(zero_copy_only=False)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pat.is_list(kind) or pat.is_large_list(kind) or pat.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pat.is_floating(kind) or pat.is_integer(kind) or pat.is_decimal(kind))


class _Owned:
    """Ids, looked up by the rows of their vectors."""

    def __init__(self, ids: pa.Array, owner: IntArray) -> None:
        self._ids, self._owner = ids, owner

    def __getitem__(self, row: int) -> Any:
        return self._ids[int(self._owner[row])]


@dataclass(frozen=True)
class EvaluationSettings:
    """What is asked.

    Attributes:
        ks: cut-offs, ascending.
        metric: how vectors are compared.
        bootstrap_samples: resamples of the interval.
        seed: of the resamples.
        block_size: vectors searched at once, which bounds the memory.
        threads: blocks searched at the same time.
    """

    ks: tuple[int, ...] = (10, 50, 100, 200)
    metric: Metric = Metric.IP
    bootstrap_samples: int = 1000
    seed: int = 17
    block_size: int = BLOCK_SIZE
    threads: int = 1


class VectorLists:
    """The lists of the users with truth, block by block."""

    def __init__(
        self, users: VectorSet, items: VectorSet, truth: Truth, excluded: Exclusions, settings: EvaluationSettings
    ) -> None:
        self.users, self.items, self.truth, self.excluded, self.settings = users, items, truth, excluded, settings
        self.vector_row = find_positions(truth.user_ids, users.ids)
        self.corpus = Corpus(items.vectors, settings.metric, items.ids, is_checked=True)

    def ranks(self, on_detail: Callable[[pa.Table], None] | None) -> IntArray:
        """Returns the rank of every truth pair (int64 [P], K if missed)."""
        parts = []
        step = self.settings.block_size * max(self.settings.threads, 1)
        for start in range(0, self.truth.num_users, step):
            rows = np.arange(start, min(start + step, self.truth.num_users))
            top_items, top_scores = self._lists(rows)
            block = self.truth.users_from(start, start + len(rows))
            parts.append(hit_ranks(top_items, block.pair_user, block.pair_item))
            if on_detail is not None:
                on_detail(detail_rows(top_items, top_scores, block, parts[-1], self.items.ids))
        return np.concatenate(parts)

    def _lists(self, rows: IntArray) -> tuple[IntArray, Scores]:
        k = self.settings.ks[-1]
        index = np.full((len(rows), k), -1, dtype=np.int64)
        scores = np.full((len(rows), k), -np.inf, dtype=np.float32)
        served = np.flatnonzero(self.vector_row[rows] >= 0)
        vectors, bounds = self.users.take(self.vector_row[rows[served]])
        index[served], scores[served] = search_interests(
            self.corpus,
            vectors,
            bounds,
            k,
            excluded=self.excluded.select_users(rows[served]),
            block_size=self.settings.block_size,
            threads=self.settings.threads,
            is_checked=True,
        )
        return index, scores


def detail_rows(top_items: IntArray, top_scores: Scores, truth: Truth, ranks: IntArray, item_ids: pa.Array) -> pa.Table:
    """Returns one row per user: user_id, topk_ids, topk_scores, hit_ids, bad_ids, hits, truth_count, hitrate.

    Args:
        top_items: int64 [B, K] without repetitions, -1 from where the list ends.
        top_scores: float32 [B, K].
        truth: the users of the block, all with truth, and what they took.
        ranks: int64 [P], as of `hit_ranks`.
        item_ids: the corpus.
    """
    is_item = top_items >= 0
    is_hit = np.zeros(top_items.shape, dtype=bool)
    found = ranks < top_items.shape[1]
    is_hit[truth.pair_user[found], ranks[found]] = True
    truth_count = sums_per_user(truth, np.ones_like(found))
    hits = sums_per_user(truth, found)

    def lists(mask: Mask, values: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32), values)

    def ids(mask: Mask) -> pa.Array:
        return lists(mask, item_ids.take(pa.array(top_items[mask])))

    return pa.table(
        {
            USER_ID: truth.user_ids,
            "topk_ids": ids(is_item),
            "topk_scores": lists(is_item, pa.array(top_scores[is_item])),
            "hit_ids": ids(is_hit),
            "bad_ids": ids(is_item & ~is_hit),
            "hits": pa.array(hits),
            TRUTH_COUNT: pa.array(truth_count),
            "hitrate": pa.array(hits / truth_count),
        }
    )


@dataclass(frozen=True)
class WhoCounted:
    """Who and what was counted, and what was not and why.

    Attributes:
        scope: all, or discovery where seen pairs were given.
        users_counted: users with truth in the scope; all rates are over them.
        users_without_vector: of these, users without a vector: their truth counts and is missed.
        first_users_without_vector: some of them.
        users_without_truth: users with a vector and no truth at all: not counted.
        users_whose_truth_was_seen: users all of whose truth was seen before: not counted.
        truth_pairs: distinct pairs of the truth.
        truth_rows_repeated: rows of the truth that said a pair again: counted once.
        truth_pairs_seen: pairs of the truth that were seen before: not counted.
        truth_pairs_outside_corpus: pairs counted whose item has no vector: they are missed.
        corpus_items: candidates.
        user_vectors: vectors of all users; more than users where some have several.
        dims: width of the vectors.
    """

    scope: str
    users_counted: int
    users_without_vector: int
    first_users_without_vector: str
    users_without_truth: int
    users_whose_truth_was_seen: int
    truth_pairs: int
    truth_rows_repeated: int
    truth_pairs_seen: int
    truth_pairs_outside_corpus: int
    corpus_items: int
    user_vectors: int
    dims: int


@dataclass(frozen=True)
class VectorEvaluation:
    """The rates, one row per k (hit_rate, ci_low, ci_high, user_recall, ...), and who was counted."""

    totals: pa.Table
    who: WhoCounted


def evaluate_vectors(
    users: VectorSet,
    items: VectorSet,
    truth_pairs: pa.Table,
    seen_pairs: pa.Table | None,
    settings: EvaluationSettings,
    *,
    truth_rows: int | None = None,
    on_detail: Callable[[pa.Table], None] | None = None,
) -> VectorEvaluation:
    """Returns the rates of user vectors against item vectors and truth.

    Args:
        users: vectors of users, several each if need be.
        items: the corpus, one vector each.
        truth_pairs: user_id, item_id, as of `read_pairs`.
        seen_pairs: user_id, item_id of what users had seen before, or None.
        settings: cut-offs, metric, bootstrap.
        truth_rows: rows of the truth before repeated ones were dropped.
        on_detail: is given the rows per user, block by block, users ascending.

    Raises:
        InputError: if the tables do not fit each other or nobody has truth.
    """
    _check_fit(users, items, truth_pairs, seen_pairs)
    seen = pa.table({USER_ID: users.ids.slice(0, 0), ITEM_ID: items.ids.slice(0, 0)}) if seen_pairs is None else seen_pairs
    truth = read_truth(ground_truth(truth_pairs, seen), items.ids)
    scope = Scope.ALL if seen_pairs is None else Scope.DISCOVERY
    asked = _of_pairs(truth, truth.pairs_in(scope, Population.ALL))
    if not len(asked.pair_user):
        got = "none" if not truth_pairs.num_rows else f"{truth_pairs.num_rows} pairs, all of them seen before"
        raise InputError(Fault("truth", "at least one user with truth", got, "give the pairs of the evaluated day"))
    search = VectorLists(users, items, asked, _exclusions(seen, asked.user_ids, items.ids), settings)
    ranks = search.ranks(on_detail)
    hits = cell(ScorerName.MODEL, scope, Population.ALL, asked, ranks, settings.ks)
    totals = total_hit_rate(hits, settings.ks, settings.bootstrap_samples, settings.seed)
    without = np.flatnonzero(search.vector_row < 0)
    who = WhoCounted(
        scope=str(scope),
        users_counted=asked.num_users,
        users_without_vector=len(without),
        first_users_without_vector=format_ids(asked.user_ids, without),
        users_without_truth=int((find_positions(users.ids, truth.user_ids) < 0).sum()),
        users_whose_truth_was_seen=truth.num_users - asked.num_users,
        truth_pairs=len(truth.pair_user),
        truth_rows_repeated=(truth_pairs.num_rows if truth_rows is None else truth_rows) - len(truth.pair_user),
        truth_pairs_seen=len(truth.pair_user) - len(asked.pair_user),
        truth_pairs_outside_corpus=int((asked.pair_item < 0).sum()),
        corpus_items=len(items.ids),
        user_vectors=len(users.vectors),
        dims=items.vectors.shape[1],
    )
    return VectorEvaluation(totals, who)


def _of_pairs(truth: Truth, pairs: Mask) -> Truth:
    """Returns the truth of the marked pairs alone, and of the users that have any."""
    users, owner = np.unique(truth.pair_user[pairs], return_inverse=True)
    return Truth(
        user_ids=truth.user_ids.take(pa.array(users)),
        is_warm_user=truth.is_warm_user[users],
        pair_user=owner.astype(np.int64),
        pair_item=truth.pair_item[pairs],
        is_warm=truth.is_warm[pairs],
        is_repeat=truth.is_repeat[pairs],
    )


def _exclusions(seen: pa.Table, user_ids: pa.Array, item_ids: pa.Array) -> Exclusions:
    """Returns what each of the users had seen; users and items that are not among ours are passed over."""
    owner, item = find_positions(seen.column(USER_ID), user_ids), find_positions(seen.column(ITEM_ID), item_ids)
    known = (owner >= 0) & (item >= 0)
    width = max(len(item_ids), 1)
    pairs = np.unique(owner[known] * width + item[known])
    counts = np.bincount(pairs // width, minlength=len(user_ids))
    return Exclusions(np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]), pairs % width)


def _check_fit(users: VectorSet, items: VectorSet, truth: pa.Table, seen: pa.Table | None) -> None:
    faults = []
    remedy = "read all tables from one source"
    for name, table in (("truth", truth), ("seen", seen)):
        for column, ids in ((USER_ID, users.ids), (ITEM_ID, items.ids)):
            if table is not None and table.column(column).type != ids.type:
                where = f"{name}, column {column}"
                faults.append(
                    Fault(where, f"ids of type {ids.type}, as the vectors have", str(table.column(column).type), remedy)
                )
    widths = users.vectors.shape[1], items.vectors.shape[1]
    if widths[0] != widths[1]:
        got = f"users {widths[0]}, items {widths[1]} numbers"
        faults.append(Fault("vectors", "users and items of one width", got, "take both from the same model"))
    if faults:
        raise InputError(faults)


SEPARATOR = ","


def reference_detail(detail: pa.Table, metric: Metric) -> pa.Table:
    """Returns the reference's detail of hit_rate_detail, row by row.

    Args:
        detail: user_id, topk_ids, topk_scores, hit_ids, hitrate; topk_ids without repetitions.
        metric: what the scores are, for the sign of the distances.

    Returns:
        id text, topk_ids text, topk_dists text, hitrate float64, bad_ids text, bad_dists text.

    Raises:
        InputError: if an item id has a comma in it: nobody could tell the lists apart again.
    """
    listed = combine_chunks(detail.column("topk_ids"))
    ids = listed.flatten().cast(pa.string())
    commas = ids.filter(pc.match_substring(ids, SEPARATOR))
    if len(commas):
        got = f"{len(commas)} with commas, first {commas[0]}"
        raise InputError(Fault("topk_ids", "item ids without commas", got, "write --detail instead, whose lists are lists"))
    scores = combine_chunks(detail.column("topk_scores")).flatten()
    distances = (pc.negate(scores) if metric is Metric.L2 else scores).cast(pa.float32())
    texts = pc.add(distances, pa.scalar(0, pa.float32())).cast(pa.string())  # + 0 turns -0 into 0
    counts = list_lengths(listed)
    is_bad = ~_is_hit(detail, ids, counts)
    bad_counts = np.bincount(np.repeat(np.arange(len(counts)), counts)[is_bad], minlength=len(counts))
    bad = pa.array(is_bad)
    return pa.table(
        {
            "id": combine_chunks(detail.column(USER_ID)).cast(pa.string()),
            "topk_ids": _joined(ids, counts),
            "topk_dists": _joined(texts, counts),
            "hitrate": combine_chunks(detail.column("hitrate")),
            "bad_ids": _joined(ids.filter(bad), bad_counts),
            "bad_dists": _joined(texts.filter(bad), bad_counts),
        }
    )


def reference_total(detail: pa.Table) -> pa.Table:
    """Returns the reference's total of hit_rate_detail: one row, `hitrate`.

    Args:
        detail: hits, truth_count.

    Raises:
        InputError: if there is no truth to divide by.
    """
    truth = pc.sum(detail.column(TRUTH_COUNT)).as_py() or 0
    if not truth:
        raise InputError(Fault("hit_rate_detail", "at least one item to find", "none", "evaluate a day that has truth"))
    return pa.table({"hitrate": pa.array([pc.sum(detail.column("hits")).as_py() / truth], pa.float64())})


def _is_hit(detail: pa.Table, ids: pa.Array, counts: IntArray) -> Mask:
    """Returns, per entry of topk_ids, whether it is among the row's hit_ids."""
    hits = combine_chunks(detail.column("hit_ids"))
    hit_ids = hits.flatten().cast(pa.string())
    codes = pc.index_in(ids, value_set=pc.unique(ids)).to_numpy(zero_copy_only=False)
    hit_codes = pc.fill_null(pc.index_in(hit_ids, value_set=pc.unique(ids)), -1).to_numpy(zero_copy_only=False)
    width = int(codes.max(initial=0)) + 1
    rows, hit_rows = np.repeat(np.arange(len(counts)), counts), np.repeat(np.arange(len(hits)), list_lengths(hits))
    known = hit_codes >= 0
    return np.isin(rows * width + codes, hit_rows[known] * width + hit_codes[known])


def _joined(texts: pa.Array, counts: IntArray) -> pa.Array:
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, texts), SEPARATOR)
