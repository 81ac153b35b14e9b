"""Ours on a split: the product's own `fit`, its own inference of vectors and its own exact search, on tables in memory.

The tables have the form of the asset train_samples, built from the split instead of the daily tables. Everything after them is
the same as in production. History and item tower share the embeddings of item ids.

Neighbours can be added to the scores of vectors: the score of item j after item i is the sum, over users, of how soon j comes after i:

    c(i, j) = sum of exp(-(events between) / DECAY),   w(i, j) = c(i, j) / sqrt((n(i) + SHRINK) (m(j) + SHRINK))

with n and m the sums of c over rows and columns. A user's score of j is the sum of w(i, j) over its last items, by the same decay.
Of a graph, where order means nothing, c is the sum over users with both of 1 / sqrt(items of the user), n and m are numbers of
users, and all items of a user count alike.

What is fitted and what is known of a user when it is scored may differ: `known` is a split with more events of the same users and items.

Shapes: E events, U users, I items, D vector width, B users of a block.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp

from dssm_assets.core.arrays.ragged import ranges
from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.models.prior import Prior, append_one, append_prior, decayed_counts
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec, tower_spec
from dssm_assets.core.samples.sample import SampleWeights
from dssm_assets.core.training.closed_form.svd_init import divide_rows, item_codes, scale_to_std
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets_tests.benchmarks.quality_data import (
    CODE,
    GAP,
    ITEM,
    SECONDS_PER_DAY,
    USER_ID,
    Entities,
    FeatureColumn,
    Ints,
    Split,
    gap_columns,
    identity,
    interactions,
    item_columns,
    popularity,
    user_columns,
)
from dssm_assets_tests.benchmarks.quality_scores import ByScores, ByVectors
from dssm_assets_tests.benchmarks.quality_settings import Chosen, Settings
from dssm_assets_tests.core.training.worlds import infer_item_vectors, infer_user_vectors

HISTORY_PREFIX: Final = "past__"
"""Prefix of the sub-features' names."""
NEGATIVE_POWER: Final = 0.75
"""Exponent of an item's count in the distribution of sampled negatives, as in the product's default."""
INFERENCE_ROWS: Final = 1024
PROGRESS_S: Final = 30.0
"""Seconds between lines of progress."""
CODE_DIM: Final = 64
"""Width of added codes."""
DECAY: Final = 2.0
"""Events after which a neighbour counts e times less."""
WINDOW: Final = 20
"""Events before an item that it is counted after."""
SHRINK: Final = 3.0
_SAMPLE: Final = 400

Weigh = Callable[[Ints], npt.NDArray[np.float64]]
"""Events between two -> their weights."""


@dataclass(frozen=True)
class Tables:
    """The Arrow tables of train_samples, and the features of all users by index."""

    spec: TowerSpec
    samples: pa.Table
    user_rows: pa.Table
    item_rows: pa.Table
    history: pa.Table
    users: pa.Table
    items: pa.Table
    user_features: pa.Table
    end_ms: int

    def train_data(self) -> TrainData:
        """Returns the product's training data over the tables."""
        names = ("samples", "user_rows", "item_rows", "history", "users", "items")
        return TrainData(self.spec, **{name: getattr(self, name) for name in names})


def fit_chosen(chosen: Chosen, split: Split, entities: Entities | None, seed: int, known: Split) -> ByVectors:
    """Returns the vectors of what is chosen, without neighbours."""
    vectors = [fit_vectors(split, entities, part, seed, known).scale(factor) for part, factor in chosen.parts]
    codes = [] if chosen.codes is None else [code_vectors(split, chosen.codes, known)]
    return add_prior(concatenate_vectors(vectors + codes), split, chosen.prior)


def fit_vectors(split: Split, entities: Entities | None, settings: Settings, seed: int, known: Split) -> ByVectors:
    """Returns the vectors of all items of the training part and of all users as `known`, without a prior.

    Of several fits the vectors are side by side, so that a product is the mean of the fits' products. Their seeds are
    fits x seed, fits x seed + 1, ...
    """
    tables = split_tables(split, entities, settings)
    queries = tables if known is split else split_tables(known, entities, settings)
    seeds = range(settings.fits * seed, settings.fits * (seed + 1))
    return concatenate_vectors([_fit_once(tables, queries, settings, one).scale(1 / settings.fits) for one in seeds])


def code_vectors(split: Split, section: SvdInit, known: Split) -> ByVectors:
    """Returns the codes of `training.svd_init` as vectors: a user's is the sum of its items' over the root of their number.

    They are what a frozen embedding under a pooling of kind root gives. Here they stand alone, because a pooling in the towers
    of the encoder would also pool its item embedding for them.
    """
    histories = interactions(split)
    weighed = divide_rows(histories, section.user_exponent)
    codes = item_codes(weighed, np.asarray(weighed.sum(axis=0)).ravel(), CODE_DIM, section)
    codes *= section.scale if section.score_std is None else np.float32(scale_to_std(histories, codes, section.score_std))
    lengths = np.maximum(1.0, np.bincount(known.user, minlength=len(known.user_ids)))
    return ByVectors(np.asarray((interactions(known) @ codes) / np.sqrt(lengths)[:, None], np.float32), codes)


def concatenate_vectors(parts: Sequence[ByVectors]) -> ByVectors:
    """Returns vectors whose inner product is the sum of those of the parts."""
    return ByVectors(*(np.concatenate([getattr(part, side) for part in parts], axis=1) for side in ("users", "items")))


def narrow_vectors(vectors: ByVectors, width: int) -> ByVectors:
    """Returns vectors of at most this width whose products are nearest, by the sum of squares over all users and items.

    Products are taken minus their mean over items, which changes no user's list.
    """
    if vectors.items.shape[1] <= width:
        return vectors
    users, of_users = np.linalg.qr(vectors.users.astype(np.float64))
    items, of_items = np.linalg.qr(vectors.items - vectors.items.mean(axis=0, dtype=np.float64))
    left, values, right = np.linalg.svd(of_users @ of_items.T, full_matrices=False)
    roots = np.sqrt(values[:width])
    users, items = users @ (left[:, :width] * roots), items @ (right[:width].T * roots)
    return ByVectors(users.astype(np.float32), items.astype(np.float32))


def add_prior(vectors: ByVectors, split: Split, prior: Prior | None) -> ByVectors:
    """Returns the vectors with the popularity prior of a split in one more dimension; without a prior unchanged."""
    if prior is None:
        return vectors
    day = split.time_s // SECONDS_PER_DAY
    recent = decayed_counts(split.item, day.max() + 1 - day, prior.half_life_days, len(split.item_ids))
    values = prior.values_for(popularity(split), recent)
    return ByVectors(append_one(vectors.users), append_prior(vectors.items, values))


def _fit_once(tables: Tables, queries: Tables, settings: Settings, seed: int) -> ByVectors:
    result = fit(
        tables.train_data(),
        model=settings.model,
        training=settings.training,
        seed=seed,
        context=FitContext(progress=print_progress(f"seed {seed}")),
    )
    users = infer_user_vectors(
        result.two_tower,
        queries.user_features,
        history_start=queries.users["history_start"].to_numpy(),
        history_end=queries.users["history_end"].to_numpy(),
        history=queries.history,
        as_of_ms=queries.end_ms,
        batch_size=INFERENCE_ROWS,
    )
    return ByVectors(users, infer_item_vectors(result.two_tower, tables.items, INFERENCE_ROWS))


def split_tables(split: Split, entities: Entities | None, settings: Settings) -> Tables:
    """Returns the training part as the tables of train_samples, samples by time."""
    entities = entities if settings.with_side else None
    user_features = user_columns(split, entities, with_id=settings.with_user_id)
    item_features = item_columns(split, entities, with_counts=settings.with_counts, with_recent=settings.is_timed)
    if settings.code_dim:
        item_features.append(identity(CODE, len(split.item_ids)))
    order, bounds = split.by_user()
    event_ms = _event_ms(split)
    day = split.time_s // SECONDS_PER_DAY - split.time_s.min() // SECONDS_PER_DAY
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    users, items = _table(user_features, len(split.user_ids)), _table(item_features, len(split.item_ids))
    user_rows, user_row = users, (split.user + 1) * bool(user_features)
    if settings.with_gap:
        of_events, of_users = gap_columns(split)
        user_features.append(of_users)
        user_rows, user_row = users.take(split.user).append_column(GAP, of_events.arrow()), np.arange(len(order)) + 1
        users = users.append_column(GAP, of_users.arrow())
    samples = {
        "item_index": split.item.astype(np.int32),
        "user_index": split.user.astype(np.int32),
        "history_end": place,
        "weight": _sample_weights(day, settings),
        "event_time_ms": event_ms,
        "user_row": user_row.astype(np.int32),
        "item_row": (split.item + 1).astype(np.int32),
        "day": day.astype(np.int32),
    }
    history = {
        "item_index": split.item[order].astype(np.int32),
        "event_time_ms": event_ms[order],
        **{HISTORY_PREFIX + name: (split.item[order] + 1).astype(np.int32) for name in (ITEM, CODE)},
    }
    weights = pa.array(popularity(split) ** NEGATIVE_POWER)
    return Tables(
        spec=tower_spec(_tower_features(user_features, item_features, settings), settings.model),
        samples=pa.table(samples),
        user_rows=_behind_unknown(user_rows),
        item_rows=_behind_unknown(items),
        history=pa.table(history),
        users=pa.table({"history_start": bounds[:-1], "history_end": bounds[1:]}),
        items=items.append_column("weight", weights),
        user_features=users,
        end_ms=int(event_ms.max()) + 1,
    )


def _sample_weights(day: Ints, settings: Settings) -> npt.NDArray[np.float32]:
    """Returns the weight of each event by its age, as the product gives it [E]."""
    weights = SampleWeights(half_life_days=settings.model.recency_half_life_days, window_days=int(day.max()) + 1)
    found = np.empty(len(day), np.float32)
    for one in np.unique(day).tolist():
        of_day = np.flatnonzero(day == one)
        found[of_day] = weights.weigh(pa.table({"row": of_day}), one)
    return found


def _event_ms(split: Split) -> npt.NDArray[np.int64]:
    """Returns timestamps in ms; events of one user in one second get different ones, in the order of the split [E]."""
    keys = np.stack([split.user, split.time_s])
    _, owner, counts = np.unique(keys, axis=1, return_inverse=True, return_counts=True)
    place = np.empty(len(owner), np.int64)
    place[np.argsort(owner, kind="stable")] = ranges(np.zeros(len(counts), np.int64), counts)
    return split.time_s * 1000 + place


def _tower_features(users: list[FeatureColumn], items: list[FeatureColumn], settings: Settings) -> tuple[TowerFeature, ...]:
    widths = {USER_ID: settings.id_dim, ITEM: settings.id_dim, CODE: settings.code_dim}
    past = [column for column in items if column.name in (ITEM, CODE)]
    sides = ((users, TowerSide.USER, ""), (items, TowerSide.ITEM, ""), (past, TowerSide.SEQUENCE, HISTORY_PREFIX))
    return tuple(
        TowerFeature(
            name=prefix + column.name,
            side=side,
            embedding_name=column.name,
            embedding_dim=widths.get(column.name, settings.side_dim),
            num_embeddings=column.size,
            is_multi=column.offsets is not None,
        )
        for columns, side, prefix in sides
        for column in columns
    )


def _table(columns: list[FeatureColumn], rows: int) -> pa.Table:
    """Returns the columns as a table; without columns, a table that still has `rows` rows."""
    return pa.table({column.name: column.arrow() for column in columns} or {"no_feature": pa.nulls(rows)})


def _behind_unknown(table: pa.Table) -> pa.Table:
    """Returns the rows behind the row of an unknown entity, of which everything is missing."""
    missing = {pa.null(): None, pa.int32(): 0}
    unknown = pa.table({field.name: [missing.get(field.type, [])] for field in table.schema}, schema=table.schema)
    return pa.concat_tables([unknown, table]).combine_chunks()


def print_progress(name: str) -> Callable[[Progress], None]:
    """Returns a function that prints the state of a fit on stderr, a line every half minute."""
    shown_at = time.monotonic()

    def show(at: Progress) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at >= PROGRESS_S:
            shown_at = time.monotonic()
            step = f"step {at.step:,} of {at.steps:,} at most, epoch {at.epoch + 1}"
            print(f"{name}: {step}, {at.samples_per_s:,.0f} samples/s, ETA {at.eta_s or 0:.0f} s", file=sys.stderr, flush=True)

    return show


def find_neighbours(split: Split, score_std: float, known: Split) -> ByScores:
    """Returns the neighbours of a training part for users as `known`.

    Args:
        score_std: deviation of a user's scores over all items, mean over users.
    """
    if split.is_ordered:
        counts, users = count_following(split, WINDOW, _decay), weigh_last(known, WINDOW, _decay)
        sizes = [np.asarray(counts.sum(axis=axis)).ravel() for axis in (1, 0)]
    else:
        matrix, users, sizes = interactions(split), interactions(known), [popularity(split)] * 2
        counts = sp.csr_matrix(matrix.T @ divide_rows(matrix, 0.5))
        counts.setdiag(0.0)
    rows, columns = (sp.diags((size + SHRINK) ** -0.5) for size in sizes)
    weights = (rows @ counts @ columns).tocsr()
    sample = np.unique(np.linspace(0, users.shape[0] - 1, min(users.shape[0], _SAMPLE)).astype(np.int64))
    std = float((users[sample] @ weights).toarray().std(axis=1).mean())
    users, weights = users.astype(np.float32), (weights * (score_std / max(std, 1e-9))).astype(np.float32)
    return ByScores(lambda rows: np.asarray((users[rows] @ weights).toarray(), np.float32))


def weigh_last(split: Split, count: int, weigh: Weigh) -> sp.csr_matrix:
    """Returns the weights of each user's last items, by the events after them, csr [U, I]."""
    order, bounds = split.by_user()
    from_end = np.repeat(bounds[1:], np.diff(bounds)) - 1 - np.arange(len(order))
    last = order[from_end < count]
    cells = weigh(from_end[from_end < count]), (split.user[last], split.item[last])
    return sp.csr_matrix(cells, (len(split.user_ids), len(split.item_ids)))


def add_neighbours(vectors: ByVectors, neighbours: ByScores) -> ByScores:
    """Returns the recommender whose scores are the sum of both."""
    return ByScores(lambda users: vectors.users[users] @ vectors.items.T + neighbours.score(users))


def count_following(split: Split, steps: int, weigh: Weigh) -> sp.csr_matrix:
    """Returns how often each item comes after each other one, by the events between them, csr [I, I]."""
    order, bounds = split.by_user()
    lengths, items = np.diff(bounds), split.item[order]
    before = np.minimum(ranges(np.zeros(len(lengths), np.int64), lengths), steps)
    gaps = ranges(np.zeros(len(before), np.int64), before)  # 0: the event just before
    later = np.repeat(np.arange(len(items)), before)
    first, second = items[later - 1 - gaps], items[later]
    differs = first != second
    cells = weigh(gaps[differs]), (first[differs], second[differs])
    return sp.csr_matrix(cells, (len(split.item_ids), len(split.item_ids)))


def _decay(gaps: Ints) -> npt.NDArray[np.float64]:
    return np.asarray(np.exp(-gaps / DECAY))
