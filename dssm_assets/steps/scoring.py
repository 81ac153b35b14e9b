"""Scores a day: reads who is evaluated and who ranks items, counts hits, writes lists.

Read top to bottom: the two assets, what each does with some users, what they read. Ranges of users, processes and their files are
in `parallel.py`.

Does not belong here: counting (`core/evaluation/hits.py`), lists (`core/evaluation/scorer.py`), the reports (`evaluation.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, find_positions
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.channels.merge import Merge
from dssm_assets.core.config.channels import ChannelName
from dssm_assets.core.config.model import Model, Similarity
from dssm_assets.core.evaluation.baselines.fit_data import FitData, recent_items
from dssm_assets.core.evaluation.baselines.neighbors import UserItems
from dssm_assets.core.evaluation.baselines.suite import baseline_scorers, fit_baselines
from dssm_assets.core.evaluation.cold_items import ColdItems, order_by_category
from dssm_assets.core.evaluation.detail import hit_rate_detail
from dssm_assets.core.evaluation.evaluation_tables import HIT_COUNTS, HIT_RATE_DETAIL
from dssm_assets.core.evaluation.hits import count_hits
from dssm_assets.core.evaluation.report import ReportFacts, merge_facts, report_facts
from dssm_assets.core.evaluation.scorer import InteractedItems, KnownLists, ModelScorer, model_scorer
from dssm_assets.core.evaluation.segments import Cuts
from dssm_assets.core.evaluation.truth import Truth, is_in_sample, read_truth, sample_users
from dssm_assets.steps.channels import channel_scorers, make_day_channels, open_shared, read_merges, shared_arrays
from dssm_assets.steps.parallel import SharedArrays, open_arrays, publish_user_ranges, share_arrays, write_user_ranges
from dssm_assets.steps.stored_interactions import (
    EventDays,
    count_item_events,
    find_event_days,
    read_all_interactions,
    read_interactions_of_users,
    read_rows_of_users,
)
from dssm_assets.steps.user_segments import read_categories, read_cuts, read_item_popularity
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, digests, release_memory, start_of_day_ms
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets.storage.manifest import Manifest

PART_USERS: Final = 20_000
"""Channel ablations, `merged_without_X` and `channel_X`, use at most this many sampled users: a standard error of about .001."""


def count_hits_of_day(workspace: Workspace, ds: str) -> StepResult:
    """Writes hit_counts of a day: the hits of the model, of every baseline and of the merged lists, per user."""
    days, day = find_event_days(workspace, ds), find_scored_day(workspace, ds)
    merges, weights = read_merges(workspace, ds)
    negative_items, item_table = workspace.need("negative_items", ds), workspace.need("item_table", day_before(ds))
    now_ms = start_of_day_ms(ds, workspace.config.calendar.timezone)
    evaluated = read_evaluated_users(workspace, day)
    truth, item_ids = evaluated.truth, evaluated.item_ids
    users = f"{truth.num_users:,} of {evaluated.day_users:,} users"
    workspace.log(f"scoring {users} x {len(item_ids):,} items: the model and the baselines")
    categories = read_categories(workspace, item_table, workspace.config.evaluation.category_column, IdIndex(item_ids))
    is_part_user = is_in_sample(truth.user_ids, PART_USERS, workspace.config.seed)
    with workspace.tables.partitions.staging() as folder, workspace.tables.partitions.staging() as scratch:
        data = read_fit_data(workspace, days, item_ids, truth.user_ids, ScratchArrays(scratch))
        cold = np.flatnonzero(data.history_events == 0)
        rankers = Rankers(
            days=days,
            now_ms=now_ms,
            baselines={name: share_arrays(arrays) for name, arrays in fit_baselines(data).items()},
            merges=merges,
            shared=share_arrays(shared_arrays(data)) if merges else {},
            cold=ColdItems(cold, order_by_category(cold, categories.values, data.window_events), categories.column),
            part_users=truth.user_ids.filter(pa.array(is_part_user)),
        )
        del data
        release_memory()
        cuts = Cuts({}, read_item_popularity(workspace, negative_items, item_ids).tier)
        written = write_user_ranges(workspace, HIT_COUNTS, partial(HitCounter, day, rankers), truth, cuts, folder)
        facts = replace(
            merge_facts([part.facts for part in written]),
            day_users=evaluated.day_users,
            cold_items=len(cold),
            category_column=categories.column,
        )
        inputs = digests([*day.built_from, days.history, weights, item_table, negative_items])
        manifest = publish_user_ranges(workspace, HIT_COUNTS, ds, written, inputs, report=asdict(facts))
    return StepResult(manifest, asdict(facts))


def write_lists_of_day(workspace: Workspace, ds: str) -> Manifest:
    """Writes hit_rate_detail of a day: each evaluated user's list, hits and misses."""
    day = find_scored_day(workspace, ds)
    evaluated = read_evaluated_users(workspace, day)
    cuts, cut_from = read_cuts(workspace, ds, evaluated.truth.user_ids, evaluated.item_ids)
    with workspace.tables.partitions.staging() as folder:
        written = write_user_ranges(workspace, HIT_RATE_DETAIL, partial(ListWriter, day), evaluated.truth, cuts, folder)
        return publish_user_ranges(workspace, HIT_RATE_DETAIL, ds, written, digests([*day.built_from, *cut_from]))


@dataclass(frozen=True)
class ScoredDay:
    """The partitions of a day with the model's vectors and what is to be found."""

    item_vectors: Manifest
    user_vectors: Manifest
    ground_truth: Manifest

    @property
    def built_from(self) -> tuple[Manifest, ...]:
        return self.item_vectors, self.user_vectors, self.ground_truth


def find_scored_day(workspace: Workspace, ds: str) -> ScoredDay:
    """Returns the partitions of a day.

    Raises:
        PartitionMissingError: one is not stored.
    """
    return ScoredDay(*(workspace.need(name, ds) for name in ("item_vectors", "user_vectors", "ground_truth")))


@dataclass(frozen=True)
class Rankers:
    """Who ranks items for the users of a day, next to the model; it can be pickled.

    Attributes:
        now_ms: the moment at which the day begins.
        baselines: name -> its arrays.
        merges: of the channels; none if channels are switched off.
        shared: what all users have in common, as of `channels.shared_arrays`.
        part_users: ids of the users for whom parts of the merged list are ranked.
    """

    days: EventDays
    now_ms: int
    baselines: Mapping[str, SharedArrays]
    merges: Sequence[Merge]
    shared: SharedArrays
    cold: ColdItems
    part_users: pa.Array


class HitCounter:
    """Counts the hits of the model, of every baseline and of the merged lists for some users; a `RangeScorer`."""

    def __init__(self, day: ScoredDay, rankers: Rankers, workspace: Workspace) -> None:
        """Opens the model, the fitted baselines, and what channels have in common."""
        self._workspace, self._rankers, self._model = (
            workspace,
            rankers,
            DayVectors(workspace, day.item_vectors, day.user_vectors),
        )
        self._baselines = {name: open_arrays(arrays) for name, arrays in rankers.baselines.items()}
        self._shared = open_shared(open_arrays(rankers.shared)) if rankers.merges else None
        self._corpus = IdIndex(self._model.item_ids)
        release_memory()  # of reading the items' vectors

    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, ReportFacts]:
        """Returns the rows of hit_counts of these users, and who was counted."""
        rankers, config, users = self._rankers, self._workspace.config, truth.user_ids
        window = read_interactions_of_users(self._workspace, rankers.days.window, users, self._corpus)
        history = read_interactions_of_users(self._workspace, rankers.days.older, users, self._corpus, window)
        model = self._model.scorer(users)
        known = KnownLists(model, config.channels.depths[ChannelName.VECTORS])
        scorers = [known, *baseline_scorers(self._baselines, window, history)]
        if self._shared is not None:
            channels = make_day_channels(config.channels, self._shared, history, truth.num_users, known, rankers.now_ms)
            scorers += channel_scorers(channels, rankers.merges, self._shared)
        interacted = InteractedItems(*(one.exclusions(truth.num_users) for one in (window, history)))
        is_sampled = find_positions(users, rankers.part_users) >= 0
        cold = rankers.cold.scope(model)
        counts = count_hits(scorers, truth, interacted, config.evaluation.k, cold, is_sampled, cuts.item_tier)
        return counts.table, report_facts(truth, model, counts)


class ListWriter:
    """Writes down the model's lists of some users; a `RangeScorer`."""

    def __init__(self, day: ScoredDay, workspace: Workspace) -> None:
        """Opens the model of a day."""
        self._k, self._model = workspace.config.evaluation.k[-1], DayVectors(workspace, day.item_vectors, day.user_vectors)

    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, None]:
        """Returns the rows of hit_rate_detail of these users."""
        return hit_rate_detail(self._model.scorer(truth.user_ids), truth, cuts, k=self._k), None


@dataclass(frozen=True)
class EvaluatedUsers:
    """Who is evaluated on a day.

    Attributes:
        truth: of the evaluated users.
        item_ids: the corpus.
        day_users: users of the day, of whom all or a sample is evaluated.
    """

    truth: Truth
    item_ids: pa.Array
    day_users: int


def read_evaluated_users(workspace: Workspace, day: ScoredDay) -> EvaluatedUsers:
    """Returns who is evaluated on a day: its users with truth, or a sample of `evaluation.max_users` of them."""
    config = workspace.config
    item_ids = workspace.tables.read(day.item_vectors, [col.ITEM_ID]).column(0).combine_chunks()
    of_day = workspace.tables.read(day.ground_truth)
    sample = sample_users(of_day, config.evaluation.max_users, config.seed)
    return EvaluatedUsers(read_truth(sample, item_ids), item_ids, of_day.num_rows)


class DayVectors:
    """The vectors of a day as the scorer of some users after others."""

    def __init__(self, workspace: Workspace, item_vectors: Manifest, user_vectors: Manifest) -> None:
        """Reads the corpus."""
        self._workspace, self.user_vectors = workspace, user_vectors
        self._items = workspace.tables.read(item_vectors)
        self._scorer: ModelScorer | None = None

    @property
    def item_ids(self) -> pa.ChunkedArray:
        return self._items.column(col.ITEM_ID)

    def scorer(self, user_ids: pa.Array) -> ModelScorer:
        """Returns the scorer of these users, who are ascending. Vectors of other users are not read."""
        users = read_rows_of_users(self._workspace, self.user_vectors, None, user_ids)
        if self._scorer is None:
            self._scorer = model_scorer(self._items, users, user_ids, stored_similarity(self._workspace.config.model))
            return self._scorer
        return self._scorer.for_users(users, user_ids)


def stored_similarity(model: Model) -> Similarity:
    """Returns how stored vectors are compared. Vectors widened by a prior or an embedding are not of unit length any more."""
    return Similarity.INNER_PRODUCT if model.prior or model.frozen_embedding else model.similarity


def read_fit_data(
    workspace: Workspace, days: EventDays, item_ids: pa.Array, user_ids: pa.Array, scratch: ScratchArrays
) -> FitData:
    """Returns the interactions of all users on some days, large arrays in files.

    Args:
        user_ids: any users; ids are cast to their type.
    """
    corpus, lengths = IdIndex(item_ids), [np.zeros(0, np.int64)]

    def read_items() -> Iterator[NDArray[np.int32]]:
        for interactions in read_all_interactions(workspace, days.window, user_ids, corpus):
            counts, items = recent_items(interactions)
            lengths.append(counts)
            yield items

    window_events = count_item_events(workspace, days.window, corpus)
    items = scratch.concat(read_items(), np.int32)
    return FitData(
        window_events=window_events,
        recent_events=count_item_events(workspace, days.recent, corpus),
        history_events=window_events + count_item_events(workspace, days.older, corpus),
        user_items=UserItems(offsets_of(np.concatenate(lengths)), items, len(corpus.ids)),
        read_history=lambda: read_all_interactions(workspace, days.history, user_ids, corpus),
        settings=workspace.config.evaluation,
        allocate=scratch,
        seed=workspace.config.seed,
    )
