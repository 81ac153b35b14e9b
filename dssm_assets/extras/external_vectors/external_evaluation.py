"""Scores vectors from a user's files against truth, by the pipeline's definitions.

hit_rate@k = sum over users of |topk & truth| / sum over users of |truth|. For user_recall, user_hit_rate and ndcg see `rates.py`.
Who counts: every user with truth. A user without a vector gets an empty list, so all of the user's truth is missed. A truth item
without a vector is missed, too. If seen pairs are given, a user's seen items are neither candidates nor truth (scope discovery).

By hand: u's list begins with a, c, the truth is a, b: hit_rate@2 = 1/2. If u had seen a, only b is to be found: 0/1.

Shapes: N ids, V vectors, D vector dimension, P pairs of truth, K the largest cut-off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pat

from dssm_assets.core.arrays.ids import cast_ids, check_unique, comparable_ids, find_positions, format_ids
from dssm_assets.core.arrays.ragged import (
    IntArray,
    ItemSets,
    Offsets,
    build_lists,
    combine_chunks,
    filter_values,
    flatten,
    is_list,
    list_lengths,
    offsets_of,
    ranges,
    repeat_rows,
    row_blocks,
)
from dssm_assets.core.columns import GT_ITEMS, ITEM_ID, ITEM_TOWER_EMB, USER_ID, USER_TOWER_EMB
from dssm_assets.core.errors import Fault, InputError, SchemaError
from dssm_assets.core.evaluation.hits import count_cell, hit_ranks, list_columns
from dssm_assets.core.evaluation.rates import split_cells, sum_hits
from dssm_assets.core.evaluation.truth import Truth, ground_truth, read_truth
from dssm_assets.core.names import Population, Scope
from dssm_assets.core.retrieval.exact import BLOCK_SIZE, Corpus, search_interests
from dssm_assets.core.retrieval.item_filter import mask_items
from dssm_assets.core.retrieval.vectors import Metric, Vectors, vector_faults
from dssm_assets.core.samples.sample_tables import require_columns
from dssm_assets.storage.files import TableWriter, read_parquet

VECTORS: Final = {USER_ID: USER_TOWER_EMB, ITEM_ID: ITEM_TOWER_EMB}
"""Id column of a table -> column of its vectors."""
OWN: Final = "your vectors"
"""Name of the vectors in column `scorer`."""
SEPARATOR: Final = ","
"""Separates the ids of a list in the reference's layout."""
_FORM = "list, large_list or fixed_size_list of numbers"


@dataclass(frozen=True)
class VectorSet:
    """Distinct ids, each with at least one usable vector."""

    ids: pa.Array
    """[N]"""
    vectors: Vectors
    """float32 [V, D], grouped by id."""
    bounds: IntArray
    """int64 [N + 1]; id n has the rows bounds[n] .. bounds[n + 1] - 1."""

    def select(self, rows: IntArray) -> tuple[Vectors, IntArray]:
        """Returns the vectors of some ids, given by row, and their bounds. Row -1 has no vectors."""
        counts = np.where(rows < 0, 0, np.diff(self.bounds)[rows])
        return self.vectors[ranges(self.bounds[rows], counts)], offsets_of(counts)


@dataclass(frozen=True)
class VectorFiles:
    """Files of an evaluation, at fsspec URLs or paths. The command's help lists their columns.

    Attributes:
        items: file with item_id and the columns named in `filters`.
        filters: conditions (`core/retrieval/item_filter.py`). Items that do not pass are neither candidates nor truth.
        detail: file to write a row per user to, .parquet. `reference_detail` and `reference_total` may also be .csv.
    """

    user_vectors: str
    item_vectors: str
    truth: str
    seen: str | None = None
    items: str | None = None
    filters: Any = None
    detail: str | None = None
    reference_detail: str | None = None
    reference_total: str | None = None


@dataclass(frozen=True)
class ExternalSettings:
    """Settings of an evaluation of external vectors. The cut-offs `ks` are ascending."""

    ks: tuple[int, ...] = (10, 50, 100, 200)
    metric: Metric = Metric.IP
    bootstrap_samples: int = 1000
    seed: int = 17
    block_size: int = BLOCK_SIZE
    threads: int = 1


@dataclass(frozen=True)
class WhoCounted:
    """Numbers of users and items that were counted or left out.

    Attributes:
        scope: all, or discovery if seen pairs were given.
        users_counted: users with truth in the scope. All of them count in the rates, also without a vector.
        users_whose_truth_was_seen: users with only seen truth. They do not count, like users without truth.
        truth_pairs_outside_corpus: counted pairs with an item that has no vector; they are missed.
        user_vectors: vectors of all users; more than users if some users have several.
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
    """The rates, one row per k (hit_rate, ci_low, ci_high, user_recall, ...), the rows per user (see hit_counts), and who was counted."""

    totals: pa.Table
    counts: pa.Table
    who: WhoCounted


def evaluate_files(files: VectorFiles, settings: ExternalSettings) -> VectorEvaluation:
    """Evaluates the vectors in the files and writes the requested outputs."""
    users, items = _read_file(files.user_vectors, USER_ID), _read_file(files.item_vectors, ITEM_ID)
    listed = _read_truth(files.truth)
    truth, truth_rows = read_pairs(listed, "truth"), listed.num_rows
    seen = None if files.seen is None else read_pairs(read_parquet(files.seen, (USER_ID, ITEM_ID), "seen"), "seen")
    if (shown := _find_shown(files)) is not None:
        kept = truth.filter(pa.array(_is_shown(combine_chunks(truth.column(ITEM_ID)), shown)))
        truth, truth_rows = kept, truth_rows - (truth.num_rows - kept.num_rows)
        rows_shown = np.flatnonzero(_is_shown(items.ids, shown))
        items = VectorSet(items.ids.take(pa.array(rows_shown)), *items.select(rows_shown))
    with ExitStack() as stack:
        detail, reference, total = (
            None if uri is None else stack.enter_context(TableWriter(uri, has_lists=uri == files.detail))
            for uri in (files.detail, files.reference_detail, files.reference_total)
        )

        def write(rows: pa.Table) -> None:
            if detail is not None:
                detail.write(rows)
            if reference is not None:
                reference.write(reference_detail(rows, settings.metric))

        result = evaluate_vectors(users, items, truth, seen, settings, truth_rows=truth_rows, on_detail=write)
        if total is not None:
            total.write(pa.table({"hitrate": result.totals.column("hit_rate")[-1:]}))  # at the largest k
    return result


def _read_file(uri: str, id_column: str) -> VectorSet:
    where = f"{id_column.removesuffix('_id')} vectors"
    table = read_parquet(uri, lambda schema: (id_column, _find_vectors(id_column, schema)), where)
    return read_vectors(table, id_column, where)


def _read_truth(uri: str) -> pa.Table:
    """Returns user_id, item_id. A table such as ground_truth has lists in gt_items instead of item_id; it gives a row per entry."""

    def choose(schema: pa.Schema) -> tuple[str, str]:
        return USER_ID, GT_ITEMS if GT_ITEMS in schema.names and ITEM_ID not in schema.names else ITEM_ID

    table = read_parquet(uri, choose, "truth")
    if choose(table.schema)[1] == ITEM_ID or USER_ID not in table.column_names:
        return table
    lists = combine_chunks(table.column(GT_ITEMS))
    if not is_list(lists.type):
        raise SchemaError(
            Fault(f"truth, column {GT_ITEMS}", "lists of ids", str(lists.type), "write each user's items as a list")
        )
    users = combine_chunks(table.column(USER_ID)).take(pa.array(repeat_rows(list_lengths(lists))))
    return pa.table({USER_ID: users, ITEM_ID: pc.list_flatten(lists)})


def _find_shown(files: VectorFiles) -> pa.Array | None:
    if files.filters is None and files.items is None:
        return None
    if files.filters is None or files.items is None:
        got = "only the conditions" if files.items is None else "only the items"
        raise InputError(Fault("filters", "conditions and a file of items", got, "give both, or neither"))
    table = read_parquet(files.items, (ITEM_ID, *_list_columns(files.filters)), "items")
    require_columns("items", table.column_names, (ITEM_ID,))
    ids = combine_chunks(comparable_ids(table.column(ITEM_ID), f"items, column {ITEM_ID}"))
    check_unique(ids, f"items, column {ITEM_ID}")
    shown = ids.filter(pa.array(mask_items(table.drop_columns([ITEM_ID]), files.filters)))
    if not len(shown):
        raise InputError(Fault("filters", "conditions that some item passes", "no item passes", "correct the conditions"))
    return shown


def _is_shown(ids: pa.Array, shown: pa.Array) -> npt.NDArray[np.bool_]:
    return find_positions(cast_ids(ids, shown.type, f"column {ITEM_ID}, compared with items"), shown) >= 0


def evaluate_vectors(
    users: VectorSet,
    items: VectorSet,
    truth_pairs: pa.Table,
    seen_pairs: pa.Table | None,
    settings: ExternalSettings,
    *,
    truth_rows: int | None = None,
    on_detail: Callable[[pa.Table], None] | None = None,
) -> VectorEvaluation:
    """Returns the rates of user vectors against item vectors and truth.

    Args:
        truth_pairs: distinct user_id, item_id, from `read_pairs`.
        seen_pairs: distinct user_id, item_id of items that users had seen before.
        truth_rows: number of rows of the truth, including repeated pairs.
        on_detail: called with the rows per user, block by block, users ascending. For the columns see `hits.list_columns`.

    Raises:
        InputError: the tables do not fit each other, or no user has truth.
    """
    _check_fit(users, items, truth_pairs, seen_pairs)
    nothing = pa.table({USER_ID: users.ids.slice(0, 0), ITEM_ID: items.ids.slice(0, 0)})
    seen, scope = (nothing, Scope.ALL) if seen_pairs is None else (seen_pairs, Scope.DISCOVERY)
    counted = truth_pairs.join(seen, [USER_ID, ITEM_ID], join_type="left anti")
    if not counted.num_rows:
        got = "none" if not truth_pairs.num_rows else f"{truth_pairs.num_rows} pairs, all of them seen before"
        raise InputError(Fault("truth", "at least one user with truth", got, "give the pairs of the evaluated day"))
    truth, users_with_truth = read_truth(ground_truth(counted, [nothing]), items.ids), pc.unique(truth_pairs.column(USER_ID))
    owner, item = find_positions(seen.column(USER_ID), truth.user_ids), find_positions(seen.column(ITEM_ID), items.ids)
    excluded = ItemSets.of_pairs(owner, item, truth.num_users)  # pairs of other users and items are skipped
    ranks = _rank_truth(users, items, truth, excluded, settings, on_detail)
    hits = count_cell(OWN, scope, Population.ALL, truth, np.ones(len(ranks), np.bool_), ranks, settings.ks)
    without = np.flatnonzero(find_positions(truth.user_ids, users.ids) < 0)
    who = WhoCounted(
        scope=str(scope),
        users_counted=truth.num_users,
        users_without_vector=len(without),
        first_users_without_vector=format_ids(truth.user_ids, without),
        users_without_truth=int((find_positions(users.ids, users_with_truth) < 0).sum()),
        users_whose_truth_was_seen=len(users_with_truth) - truth.num_users,
        truth_pairs=truth_pairs.num_rows,
        truth_rows_repeated=(truth_rows or truth_pairs.num_rows) - truth_pairs.num_rows,
        truth_pairs_seen=truth_pairs.num_rows - counted.num_rows,
        truth_pairs_outside_corpus=int((truth.pair_item < 0).sum()),
        corpus_items=len(items.ids),
        user_vectors=len(users.vectors),
        dims=items.vectors.shape[1],
    )
    return VectorEvaluation(sum_hits(split_cells(hits), settings.ks, settings.bootstrap_samples, settings.seed), hits, who)


def _rank_truth(
    users: VectorSet,
    items: VectorSet,
    truth: Truth,
    excluded: ItemSets,
    settings: ExternalSettings,
    on_detail: Callable[[pa.Table], None] | None,
) -> IntArray:
    """Returns the rank of every truth pair, int64 [P]; K if it is missed. Lists are made block by block."""
    corpus, k = Corpus(items.vectors, settings.metric), settings.ks[-1]
    vector_row = find_positions(truth.user_ids, users.ids)
    ranks, step = [], settings.block_size * max(settings.threads, 1)
    for rows in row_blocks(truth.num_users, step):
        top_items, top_scores = search_interests(
            corpus,
            *users.select(vector_row[rows]),
            k,
            excluded=excluded.select_users(rows),
            block_size=settings.block_size,
            threads=settings.threads,
        )
        block, _ = truth.select_users(rows)
        ranks.append(hit_ranks(top_items, block.pair_user, block.pair_item))
        if on_detail is not None:
            on_detail(pa.table(list_columns(top_items, top_scores, block, ranks[-1], items.ids)))
    return np.concatenate(ranks)


def _check_fit(users: VectorSet, items: VectorSet, truth: pa.Table, seen: pa.Table | None) -> None:
    faults = []
    remedy = "read all tables from one source"
    for name, table in (("truth", truth), ("seen", seen)):
        for column, ids in ((USER_ID, users.ids), (ITEM_ID, items.ids)):
            if table is not None and (kind := table.column(column).type) != ids.type:
                expected = f"ids of type {ids.type}, as the vectors have"
                faults.append(Fault(f"{name}, column {column}", expected, str(kind), remedy))
    widths = users.vectors.shape[1], items.vectors.shape[1]
    if widths[0] != widths[1]:
        got = f"users {widths[0]}, items {widths[1]} numbers"
        faults.append(Fault("vectors", "users and items of one width", got, "take both from the same model"))
    InputError.raise_if(faults)


def read_vectors(table: pa.Table, id_column: str, where: str) -> VectorSet:
    """Returns a table's vectors. Their column is `user_tower_emb` or `item_tower_emb`, or the only column with lists of numbers.

    Args:
        table: one row per id. A vector is a list of numbers. A user may have a list of several vectors.

    Raises:
        InputError: columns, ids or vectors are missing; ids are repeated; vectors differ in width, are not finite or are all zeros.
    """
    vectors = _find_vectors(id_column, table.schema)
    require_columns(where, table.column_names, (id_column, vectors))
    if not table.num_rows:
        raise InputError(Fault(where, "at least one row", "none", "write the vectors first"))
    ids = combine_chunks(comparable_ids(table.column(id_column), f"{where}, column {id_column}"))
    check_unique(ids, f"{where}, column {id_column}")
    side = id_column.removesuffix("_id")
    return VectorSet(ids, *_read_matrix(table.column(vectors), ids, f"{where}, column {vectors}", side))


def _find_vectors(id_column: str, schema: pa.Schema) -> str:
    listed = [field.name for field in schema if field.name != id_column and _has_numbers(field.type)]
    wanted = VECTORS[id_column]
    return str(listed[0]) if len(listed) == 1 and wanted not in schema.names else wanted


def _has_numbers(kind: pa.DataType) -> bool:
    inner = kind.value_type if is_list(kind) else None
    numbers = inner.value_type if inner is not None and is_list(inner) else inner
    return numbers is not None and bool(pat.is_floating(numbers) or pat.is_integer(numbers) or pat.is_decimal(numbers))


def read_pairs(table: pa.Table, where: str) -> pa.Table:
    """Returns the distinct pairs user_id, item_id of a table, ids as int64 or string."""
    require_columns(where, table.column_names, (USER_ID, ITEM_ID))
    columns = {name: comparable_ids(table.column(name), f"{where}, column {name}") for name in (USER_ID, ITEM_ID)}
    return pa.table(columns).group_by([USER_ID, ITEM_ID], use_threads=False).aggregate([])


def _read_matrix(column: pa.ChunkedArray, ids: pa.Array, where: str, side: str) -> tuple[Vectors, IntArray]:
    is_nested = is_list(column.type) and is_list(column.type.value_type)
    if not _has_numbers(column.type) or (is_nested and side != "user"):
        expected = f"{_FORM}, or a list of such lists" if side == "user" else _FORM
        raise SchemaError(Fault(where, expected, str(column.type), "write each vector as a list of numbers"))
    vector = pa.large_list(pa.float32())  # 64-bit offsets, because all users may have more than 2 ** 31 numbers
    rows = combine_chunks(column.cast(pa.large_list(vector) if is_nested else vector, safe=False))
    counts = list_lengths(rows) if is_nested else np.asarray(rows.is_valid()).astype(np.int64)
    vectors = rows.flatten() if is_nested else rows.drop_null()
    owner, widths, numbers = repeat_rows(counts), list_lengths(vectors), vectors.flatten()
    of_null = np.searchsorted(offsets_of(widths), pc.indices_nonzero(numbers.is_null()).to_numpy(), side="right") - 1
    holes = owner[np.union1d(pc.indices_nonzero(vectors.is_null()).to_numpy(), of_null).astype(np.int64)]
    InputError.raise_if(_shape_faults(counts, owner, widths, np.unique(holes), ids, where))
    matrix = numbers.to_numpy(zero_copy_only=False).reshape(len(owner), int(widths[0]))
    InputError.raise_if(vector_faults(side, matrix, ids.take(pa.array(owner))))
    return matrix, offsets_of(counts)


def _shape_faults(
    counts: IntArray, owner: IntArray, widths: IntArray, with_nulls: IntArray, ids: pa.Array, where: str
) -> Iterator[Fault]:
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        yield _fault(where, "a vector in every row", f"{len(empty)} of {len(ids)} without: {format_ids(ids, empty)}")
    if len(with_nulls):
        got = f"{len(with_nulls)} of {len(ids)} rows with nulls: {format_ids(ids, with_nulls)}"
        yield _fault(where, "no missing numbers in a vector", got)
    is_complete = ~np.isin(owner, with_nulls)
    if is_complete.any():
        common = int(np.bincount(widths[is_complete]).argmax())
        other = np.unique(owner[is_complete & (widths != common)])
        if len(other):
            got = f"{len(other)} of {len(ids)} of other widths: {format_ids(ids, other)}"
            yield _fault(where, f"vectors of one width, mostly {common}", got)
        elif common == 0:
            yield _fault(where, "vectors of at least one number", "empty ones")


def _fault(where: str, expected: str, got: str) -> Fault:
    return Fault(where, expected, got, "write these vectors again, or drop these ids")


def reference_detail(detail: pa.Table, metric: Metric) -> pa.Table:
    """Returns a row per user in the columns of EasyRec's hit rate tool: id, topk_ids, topk_dists, hitrate, bad_ids, bad_dists.

    Lists are texts with commas; hitrate is a number.

    Args:
        detail: user_id, topk_ids, topk_scores, hit_ids, hit_rate; topk_ids without repetitions.
        metric: metric of the scores; decides the sign of the distances.
    """
    listed, hits = (combine_chunks(detail.column(name)) for name in ("topk_ids", "hit_ids"))
    ids, offsets = flatten(listed.cast(pa.list_(pa.string())))
    commas = ids.filter(pc.match_substring(ids, SEPARATOR))
    if len(commas):
        got, remedy = f"{len(commas)} with commas, first {commas[0]}", "write --detail instead, which stores lists as lists"
        raise InputError(Fault("topk_ids", "item ids without commas", got, remedy))
    scores = combine_chunks(detail.column("topk_scores")).flatten()
    distances = (pc.negate(scores) if metric is Metric.L2 else scores).cast(pa.float32())
    texts = pc.add(distances, pa.scalar(0, pa.float32())).cast(pa.string())  # + 0 turns -0 into 0
    is_bad = pc.invert(pc.is_in(_row_keys(listed), value_set=_row_keys(hits))).to_numpy(zero_copy_only=False)

    def join(values: pa.Array, offsets: Offsets) -> pa.Array:
        return pc.binary_join(build_lists(values, offsets), SEPARATOR)

    return pa.table(
        {
            "id": combine_chunks(detail.column(USER_ID)).cast(pa.string()),
            "topk_ids": join(ids, offsets),
            "topk_dists": join(texts, offsets),
            "hitrate": combine_chunks(detail.column("hit_rate")),
            "bad_ids": join(*filter_values(ids, offsets, is_bad)),
            "bad_dists": join(*filter_values(texts, offsets, is_bad)),
        }
    )


def _row_keys(lists: pa.Array) -> pa.Array:
    """Returns a text per entry. Entries of different rows have different texts."""
    rows = pa.array(repeat_rows(list_lengths(lists))).cast(pa.string())
    return pc.binary_join_element_wise(rows, lists.flatten().cast(pa.string()), SEPARATOR)


def _list_columns(wanted: Any) -> list[str]:
    groups = wanted if isinstance(wanted, list) else [wanted]
    return sorted({str(name) for group in groups if isinstance(group, Mapping) for name in group})
