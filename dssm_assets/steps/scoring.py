"""Scores a day: reads the evaluated users and the rankers, counts hits, writes lists.

From top to bottom: the two assets, the work for a range of users, the inputs. Ranges of users, processes and their files are in
`parallel.py`.

Does not belong here: counting (`core/evaluation/hits.py`), lists (`core/evaluation/scorer.py`), the reports (`evaluation.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, find_positions
from dssm_assets.core.arrays.ragged import IntArray, ItemSets, combine_chunks, offsets_of
from dssm_assets.core.channels.channel import OwnItems, SharedData, make_channels
from dssm_assets.core.channels.merge import CHANNEL_WEIGHTS, Merge, channel_scorers, from_rows
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.config.model import Model, Similarity
from dssm_assets.core.evaluation.baselines.fit_data import FitData, recent_items
from dssm_assets.core.evaluation.baselines.popularity import PopularityScorer, order_by_category
from dssm_assets.core.evaluation.baselines.registry import baseline_scorers, fit_baselines
from dssm_assets.core.evaluation.evaluation_tables import CATEGORY_POPULARITY, HIT_COUNTS, HIT_RATE_DETAIL
from dssm_assets.core.evaluation.hits import ColdScope, count_hits, hit_rate_detail
from dssm_assets.core.evaluation.labels import describe_border
from dssm_assets.core.evaluation.report import ReportFacts
from dssm_assets.core.evaluation.scorer import (
    ColdModelScorer,
    InteractedItems,
    KnownLists,
    ModelScorer,
    Scorer,
    model_scorer,
    read_corpus,
)
from dssm_assets.core.evaluation.segments import Cuts
from dssm_assets.core.evaluation.truth import Truth, read_truth, sample_users
from dssm_assets.core.progress import count_progress
from dssm_assets.steps import parallel
from dssm_assets.steps.stored_interactions import (
    EventDays,
    count_item_events,
    count_recent_events,
    find_event_days,
    read_all_interactions,
    read_interactions_of_users,
    read_rows_of_users,
)
from dssm_assets.steps.user_segments import read_categories, read_cuts, read_item_popularity
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, digests, each_day, release_memory
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets.storage.manifest import Manifest

PART_USERS: Final = 20_000
"""Channel ablations (`merged_without_X` and `channel_X`) use at most so many sampled users. Their standard error is about .001."""


@each_day
def hit_counts(workspace: Workspace, ds: str) -> StepResult:
    """Writes the hits of the model, of every baseline and of the merged lists, per user."""
    day, negative_items = find_scored_day(workspace, ds), workspace.need("negative_items", ds)
    users = read_evaluated_users(workspace, day)
    cuts = Cuts({}, read_item_popularity(workspace, negative_items, users.item_ids).tier)
    with workspace.tables.partitions.staging() as folder, workspace.tables.partitions.staging() as scratch:
        rankers = fit_rankers(workspace, ds, users, ScratchArrays(scratch))
        count = f"{users.truth.num_users:,} of {users.day_users:,} users x {len(users.item_ids):,} items"
        workspace.log(f"scoring {count}: the model and the baselines")
        written = parallel.write_user_ranges(workspace, partial(HitCounter, day, rankers), users.truth, cuts, folder)
        without_truth, without_vector = zip(*(part.facts for part in written), strict=True)
        facts = ReportFacts(
            evaluated_users=users.truth.num_users,
            users_without_truth={cell: sum(one[cell] for one in without_truth) for cell in without_truth[0]},
            users_without_vector=sum(without_vector),
            truth_pairs=len(users.truth.pair_item),
            pairs_outside_corpus=int((users.truth.pair_item < 0).sum()),
            corpus_items=len(users.item_ids),
            day_users=users.day_users,
            cold_items=len(rankers.cold_items),
            category_column=rankers.category_column,
            recent_hours=rankers.recent_hours,
            recent_border=recent_border(workspace, rankers.recent_hours),
        )
        inputs = digests([*day, *rankers.built_from, negative_items])
        manifest = parallel.publish_user_ranges(workspace, HIT_COUNTS, ds, written, inputs, report=asdict(facts))
    return StepResult(manifest, asdict(facts))


def recent_border(workspace: Workspace, hours: float | None) -> str | None:
    """Returns a remark if the chosen half-life of recent popularity is the shortest or the longest of `evaluation.recent`."""
    tried = workspace.config.evaluation.recent
    if hours is None or len(tried) == 1:
        return None
    return describe_border("evaluation.recent", hours, tried[0], tried[-1], "name one beyond it")


def write_lists_of_day(workspace: Workspace, ds: str) -> Manifest:
    """Writes each evaluated user's list, hits and misses."""
    day = find_scored_day(workspace, ds)
    users = read_evaluated_users(workspace, day)
    cuts, cut_from = read_cuts(workspace, ds, users.truth.user_ids, users.item_ids)
    with workspace.tables.partitions.staging() as folder:
        written = parallel.write_user_ranges(workspace, partial(ListWriter, day), users.truth, cuts, folder)
        return parallel.publish_user_ranges(workspace, HIT_RATE_DETAIL, ds, written, digests([*day, *cut_from]))


class RankedUsers(NamedTuple):
    """The rankers of items for some users, and the items of these users before the day."""

    scorers: Sequence[Scorer]
    """The model, the baselines, the merged lists, the channels."""
    model: ModelScorer
    interacted: InteractedItems


class HitCounter(parallel.RangeScorer):
    """Counts the hits of the model, of every baseline and of the merged lists for a range of users."""

    spec = HIT_COUNTS

    def __init__(self, day: ScoredDay, rankers: Rankers, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._rankers = rankers
        self._model = DayVectors(workspace, day.item_vectors, day.user_vectors)
        self._baselines = {name: parallel.open_arrays(arrays) for name, arrays in rankers.baselines.items()}
        self.shared = SharedData.from_arrays(parallel.open_arrays(rankers.shared)) if rankers.merges else None
        self._corpus = IdIndex(self._model.item_ids)
        self._count_users = count_progress(workspace.log, workspace.now, rankers.num_users, "users")
        release_memory()

    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, tuple[dict[str, int], int]]:
        """Returns the rows of hit_counts, cell -> number of users without truth, and the number of users without a vector."""
        rankers, ranked = self._rankers, self.rank(truth.user_ids)
        by_category = PopularityScorer(CATEGORY_POPULARITY, rankers.cold_order)
        cold = ColdScope(rankers.cold_items, (ColdModelScorer(ranked.model, rankers.cold_items), by_category))
        is_sampled = find_positions(truth.user_ids, rankers.part_users) >= 0
        ks, past = self._workspace.config.evaluation.k, ranked.interacted
        counts, without = count_hits(ranked.scorers, truth, past, ks, cold, is_sampled, cuts.item_tier, self._count_users)
        return counts, (without, int((ranked.model.vector_row < 0).sum()))

    def rank(self, users: pa.Array) -> RankedUsers:
        """Returns everything that ranks items for some users. `users` is ascending."""
        rankers, config = self._rankers, self._workspace.config
        window = read_interactions_of_users(self._workspace, rankers.events.window, users, self._corpus)
        history = read_interactions_of_users(self._workspace, rankers.events.older, users, self._corpus, window)
        depths, model = config.channels.depths, self._model.scorer(users)
        known = KnownLists(model, max(depths[ChannelName.VECTORS], 2 * config.evaluation.k[-1]))
        scorers = [known, *baseline_scorers(self._baselines, window, history)]
        if self.shared is not None:
            own = OwnItems(history.indptr, history.item_index, history.count, history.last_time_ms)
            channels = make_channels(depths, self.shared, own, known, rankers.events.now_ms)
            scorers += channel_scorers(channels, rankers.merges, self.shared.recent_order)
        return RankedUsers(scorers, model, InteractedItems(window.exclusions, history.exclusions))


class ListWriter(parallel.RangeScorer):
    spec = HIT_RATE_DETAIL

    def __init__(self, day: ScoredDay, workspace: Workspace) -> None:
        super().__init__(workspace)
        self._k, self._model = workspace.config.evaluation.k[-1], DayVectors(workspace, day.item_vectors, day.user_vectors)

    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, None]:
        lists = self._model.scorer(truth.user_ids).top_k(np.arange(truth.num_users), self._k)
        return hit_rate_detail(*lists, truth, cuts, item_ids=self._model.item_ids), None


class ScoredDay(NamedTuple):
    """The stored inputs of a day's scoring: the model's vectors and the truth."""

    item_vectors: Manifest
    user_vectors: Manifest
    ground_truth: Manifest


def find_scored_day(workspace: Workspace, ds: str) -> ScoredDay:
    return ScoredDay(*(workspace.need(name, ds) for name in ("item_vectors", "user_vectors", "ground_truth")))


class EvaluatedUsers(NamedTuple):
    """The evaluated users' truth, the corpus, and the number of users with truth on the day, evaluated or not."""

    truth: Truth
    item_ids: pa.Array
    day_users: int


def read_evaluated_users(workspace: Workspace, day: ScoredDay) -> EvaluatedUsers:
    """Returns the evaluated users of a day: all users with truth, at most a sample of `evaluation.max_users`."""
    config = workspace.config
    item_ids = workspace.tables.read(day.item_vectors, [col.ITEM_ID]).column(0).combine_chunks()
    of_day = workspace.tables.read(day.ground_truth)
    sample = sample_users(of_day, config.evaluation.max_users, config.seed)
    return EvaluatedUsers(read_truth(sample, item_ids), item_ids, of_day.num_rows)


@dataclass(frozen=True)
class Rankers:
    """Everything besides the model that ranks items on a day. It can be pickled.

    Attributes:
        baselines: name -> arrays of the fitted baseline.
        shared: data that all channels share, from `SharedData.to_arrays`.
        cold_items: int64 [C], item_index of items without any event before the day, ascending.
        cold_order: the same items, the most popular category first.
        category_column: chosen column of item_table. None: no column looks like a category.
        part_users: ids of a sample of users; their merged lists are also scored without each channel.
    """

    events: EventDays
    baselines: Mapping[str, parallel.SharedArrays]
    merges: Sequence[Merge]
    shared: parallel.SharedArrays
    cold_items: IntArray
    cold_order: IntArray
    category_column: str | None
    part_users: pa.Array
    recent_hours: float | None
    num_users: int
    built_from: Sequence[Manifest]


def fit_rankers(workspace: Workspace, ds: str, users: EvaluatedUsers, scratch: ScratchArrays) -> Rankers:
    """Fits the baselines and the channels on all interactions before the day. Large arrays are files of `scratch`."""
    (merges, weights), events = read_merges(workspace, ds), find_event_days(workspace, ds)
    item_table = workspace.need("item_table", day_before(ds))
    config, ids = workspace.config, users.truth.user_ids
    categories, category_column = read_categories(workspace, item_table, IdIndex(users.item_ids))
    data = read_fit_data(workspace, events, users.item_ids, ids, scratch)
    cold = np.flatnonzero(data.history_events == 0)
    return Rankers(
        events=events,
        baselines={name: parallel.share_arrays(arrays) for name, arrays in fit_baselines(data, workspace.log).items()},
        merges=merges,
        shared=parallel.share_arrays(SharedData.fit(data).to_arrays()) if merges else {},
        cold_items=cold,
        cold_order=order_by_category(cold, categories, data.window_events),
        category_column=category_column,
        part_users=combine_chunks(sample_users(pa.table({col.USER_ID: ids}), PART_USERS, config.seed).column(0)),
        recent_hours=data.recent_hours,
        num_users=len(ids),
        built_from=[*events.history, *weights, item_table],
    )


def read_fit_data(
    workspace: Workspace, days: EventDays, item_ids: pa.Array, user_ids: pa.Array, scratch: ScratchArrays
) -> FitData:
    """Reads the interactions of all users on some days of user history. Large arrays are files of `scratch`.

    Args:
        user_ids: all ids of users are cast to the type of these.
    """
    corpus, window_days = IdIndex(item_ids), workspace.config.window.days
    workspace.log(f"reading the interactions of all users, days: {len(days.history)}")

    def read_user_items(last_days: int) -> ItemSets:
        lengths = [np.zeros(0, np.int64)]

        def read_items() -> Iterator[NDArray[np.int32]]:
            read = days.window[-last_days:]
            for interactions in read_all_interactions(workspace, read, user_ids, corpus):
                counts, items = recent_items(interactions)
                lengths.append(counts)
                yield items

        items = scratch.concat(read_items(), np.int32)
        return ItemSets(offsets_of(np.concatenate(lengths)), items)

    window_events = count_item_events(workspace, days.window, corpus)
    recent_events, recent_hours = count_recent_events(workspace, days, corpus)
    return FitData(
        window_events=window_events,
        recent_events=recent_events,
        recent_hours=recent_hours,
        history_events=window_events + count_item_events(workspace, days.older, corpus),
        window_days=window_days,
        read_item_events=lambda last_days: count_item_events(workspace, days.window[-last_days:], corpus),
        read_user_items=read_user_items,
        read_history=lambda: read_all_interactions(workspace, days.history, user_ids, corpus),
        settings=workspace.config.evaluation,
        allocate=scratch,
        seed=workspace.config.seed,
    )


def read_merges(workspace: Workspace, ds: str) -> tuple[list[Merge], list[Manifest]]:
    """Returns the stored merges of a day and the partition that has them, nothing if channels are off."""
    settings = workspace.config.channels
    if not settings.is_enabled:
        return [], []
    stored = workspace.need(CHANNEL_WEIGHTS.name, ds)
    return from_rows(workspace.tables.read(stored).to_pylist(), [source.name for source in settings.sources]), [stored]


class DayVectors:
    """The vectors of a day. Makes the scorer of one range of users after another."""

    def __init__(self, workspace: Workspace, item_vectors: Manifest, user_vectors: Manifest) -> None:
        self._workspace, self.user_vectors = workspace, user_vectors
        self.item_ids, self._corpus = read_corpus(
            workspace.tables.read(item_vectors), stored_similarity(workspace.config.model)
        )

    def scorer(self, user_ids: pa.Array) -> ModelScorer:
        """Returns the scorer of these users, and reads only their vectors. `user_ids` is ascending."""
        users = read_rows_of_users(self._workspace, self.user_vectors, None, user_ids)
        return model_scorer(self.item_ids, self._corpus, users, user_ids)


def stored_similarity(model: Model) -> Similarity:
    """Returns the similarity of stored vectors. A prior or an embedding adds columns, so the vectors no longer have unit length."""
    return Similarity.INNER_PRODUCT if model.prior or model.frozen_embedding else model.similarity
