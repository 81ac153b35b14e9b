"""Scores a day: reads who is evaluated and what is ranked, counts hits, writes lists.

Read top to bottom: the two assets, what each does with some users, what they read. Ranges of users and processes are in
`user_ranges.py`.

Does not belong here: counting (`core/evaluation/hits.py`), the reports (`evaluation.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, find_positions
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.channels.item_to_item import MIN_COMMON_USERS
from dssm_assets.core.config.model import Model, Similarity
from dssm_assets.core.evaluation.baselines.fit_data import Arrays, FitData, UserItems, recent_items
from dssm_assets.core.evaluation.baselines.item_cooccurrence import with_neighbors
from dssm_assets.core.evaluation.baselines.suite import baseline_scorers, fit_baselines
from dssm_assets.core.evaluation.cold_items import ColdItems
from dssm_assets.core.evaluation.detail import hit_rate_detail
from dssm_assets.core.evaluation.evaluation_tables import HIT_COUNTS, HIT_RATE_DETAIL
from dssm_assets.core.evaluation.hits import InteractedItems, count_hits
from dssm_assets.core.evaluation.interactions import Interactions
from dssm_assets.core.evaluation.report import ReportFacts, merge_facts, report_facts
from dssm_assets.core.evaluation.scorer import ModelScorer, Scorer, model_scorer
from dssm_assets.core.evaluation.segments import Cuts
from dssm_assets.core.evaluation.truth import Truth, is_in_sample, read_truth, sample_users
from dssm_assets.steps.channels import channel_scorers, keep_lists, make_day_channels, open_shared, read_merges, shared_arrays
from dssm_assets.steps.cold_items import read_cold_items
from dssm_assets.steps.stored_interactions import (
    count_item_events,
    find_window_history,
    read_all_interactions,
    read_interactions_of_users,
    read_rows_of_users,
)
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.user_ranges import publish_user_ranges, write_user_ranges
from dssm_assets.steps.user_segments import read_cuts, read_item_popularity
from dssm_assets.steps.workspace import StepResult, Workspace, digests, release_memory, start_of_day_ms, window_days
from dssm_assets.storage.local_files import ScratchArrays, ScratchFile
from dssm_assets.storage.manifest import Manifest

PART_USERS: Final = 20_000
"""Most users for whom the merged list without a channel, and channels alone, are ranked. What a channel is worth has a standard error
of about .001 then; for all of 158,000 users these seven lists would take a sixth of the step's time."""


def count_hits_of_day(workspace: Workspace, ds: str) -> StepResult:
    """Writes hit_counts of a day: the hits of the model, of every baseline and of the merged lists, per user."""
    evaluated, history = read_evaluated_users(workspace, ds), find_history_days(workspace, ds)
    merges, weights = read_merges(workspace, ds)
    users = f"{evaluated.truth.num_users:,} of {evaluated.day_users:,} users"
    workspace.log(f"scoring {users} x {len(evaluated.item_ids):,} items: the model and the baselines")
    cold, categories_from = read_cold_items(workspace, ds, evaluated.item_ids)
    popularity, tiers_from = read_item_popularity(workspace, ds, evaluated.item_ids)
    inputs = digests([*evaluated.built_from, history, weights, categories_from])
    with workspace.tables.partitions.staging() as folder, workspace.tables.partitions.staging() as scratch:
        item_ids, user_ids = evaluated.item_ids, evaluated.truth.user_ids
        data = read_fit_data(workspace, ds, item_ids, user_ids, ScratchArrays(scratch))
        if merges:
            data = with_neighbors(data, (1, MIN_COMMON_USERS))
        fitted = fit_baselines(data)
        shared = _to_files(shared_arrays(data)) if merges else None
        arrays = {name: _to_files(of_baseline) for name, of_baseline in fitted.items()}
        del data, fitted
        release_memory()
        part_users = user_ids.filter(pa.array(is_in_sample(user_ids, PART_USERS, workspace.config.seed)))
        counter = partial(HitCounter, ds, arrays, shared, ColdSource(cold, categories_from), part_users)
        written = write_user_ranges(workspace, counter, evaluated.truth, Cuts({}, popularity.tier), folder, inputs)
        facts = replace(
            merge_facts([part.facts for part in written]),
            day_users=evaluated.day_users,
            cold_items=len(cold.items),
            category_column=cold.category,
        )
        inputs |= digests([tiers_from])
        manifest = publish_user_ranges(workspace, HIT_COUNTS, ds, written, inputs, report=asdict(facts))
    return StepResult(manifest, asdict(facts))


def write_lists_of_day(workspace: Workspace, ds: str) -> Manifest:
    """Writes hit_rate_detail of a day: each evaluated user's list, hits and misses."""
    evaluated = read_evaluated_users(workspace, ds)
    cuts, cut_from = read_cuts(workspace, ds, evaluated.truth.user_ids, evaluated.item_ids)
    with workspace.tables.partitions.staging() as folder:
        lister = partial(ListWriter, ds)
        written = write_user_ranges(workspace, lister, evaluated.truth, cuts, folder, digests(evaluated.built_from))
        inputs = digests([*evaluated.built_from, *cut_from])
        return publish_user_ranges(workspace, HIT_RATE_DETAIL, ds, written, inputs)


@dataclass(frozen=True)
class ColdSource:
    """The cold items of a day, and the partition that their categories were read from."""

    items: ColdItems
    built_from: Manifest


class HitCounter:
    """Counts the hits of the model, of every baseline and of the merged lists for some users; a `RangeScorer`."""

    spec = HIT_COUNTS

    def __init__(
        self,
        ds: str,
        baselines: Mapping[str, SharedArrays],
        shared: SharedArrays | None,
        cold: ColdSource,
        part_users: pa.Array,
        workspace: Workspace,
    ) -> None:
        """Opens the model, the fitted baselines, and what channels have in common (None: there are no channels), of a day.

        Args:
            part_users: ids of the users for whom parts of the merged list are ranked.
        """
        self._part_users = part_users
        self._workspace, self._model, self._cold = workspace, DayVectors(workspace, ds), cold.items
        self._now_ms = start_of_day_ms(ds, workspace.config.calendar.timezone)
        self._merges, weights = read_merges(workspace, ds)
        self._shared = None if shared is None else open_shared(_open_files(shared))
        self._baselines = {name: _open_files(arrays) for name, arrays in baselines.items()}
        self._corpus = IdIndex(self._model.item_ids)
        history = find_history_days(workspace, ds)
        first = window_days(ds, workspace.config.window.days)[0]
        self._window, self._older = [day for day in history if day.ds >= first], [day for day in history if day.ds < first]
        others = (workspace.need("ground_truth", ds), workspace.need(cold.built_from.asset, cold.built_from.ds))
        self.inputs = digests([*self._model.built_from, history, weights, *others])
        release_memory()  # of reading the items' vectors

    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, ReportFacts]:
        """Returns the rows of hit_counts of these users, and who was counted."""
        model = self._model.scorer(truth.user_ids)
        window = read_interactions_of_users(self._workspace, self._window, truth.user_ids, self._corpus)
        history = read_interactions_of_users(self._workspace, self._older, truth.user_ids, self._corpus, window)
        scorers = [*baseline_scorers(self._baselines, window, history), *self._model_and_channels(model, history, truth)]
        interacted = InteractedItems(*(one.exclusions(truth.num_users) for one in (window, history)))
        ks, is_sampled = self._workspace.config.evaluation.k, find_positions(truth.user_ids, self._part_users) >= 0
        counts = count_hits(scorers, truth, interacted, ks, self._cold.scope(model), is_sampled, cuts.item_tier)
        return counts.table, report_facts(truth, model, counts)

    def _model_and_channels(self, model: ModelScorer, history: Interactions, truth: Truth) -> list[Scorer]:
        """Returns the model, the merged lists of these users and their channels alone."""
        if self._shared is None:
            return [model]
        settings = self._workspace.config.channels
        known = keep_lists(settings, model, truth.num_users)
        channels = make_day_channels(settings, self._shared, history, truth.num_users, known, self._now_ms)
        return [known, *channel_scorers(channels, self._merges, self._shared)]


class ListWriter:
    """Writes down the model's lists of some users; a `RangeScorer`."""

    spec = HIT_RATE_DETAIL

    def __init__(self, ds: str, workspace: Workspace) -> None:
        """Opens the model of a day."""
        self._k, self._model = workspace.config.evaluation.k[-1], DayVectors(workspace, ds)
        self.inputs = digests([*self._model.built_from, workspace.need("ground_truth", ds)])

    def rows(self, truth: Truth, cuts: Cuts) -> tuple[pa.Table, None]:
        """Returns the rows of hit_rate_detail of these users."""
        return hit_rate_detail(self._model.scorer(truth.user_ids), truth, cuts, k=self._k), None


@dataclass(frozen=True)
class EvaluatedUsers:
    """Who is evaluated on a day.

    Attributes:
        truth: of the evaluated users.
        item_ids: the corpus.
        built_from: item vectors, user vectors, ground truth.
        day_users: users of the day, of whom all or a sample is evaluated.
    """

    truth: Truth
    item_ids: pa.Array
    built_from: tuple[Manifest, ...]
    day_users: int


def read_evaluated_users(workspace: Workspace, ds: str) -> EvaluatedUsers:
    """Returns who is evaluated on a day: its users with truth, or a sample of `evaluation.max_users` of them."""
    config = workspace.config
    built_from = tuple(workspace.need(name, ds) for name in ("item_vectors", "user_vectors", "ground_truth"))
    item_ids = workspace.tables.read(built_from[0], [col.ITEM_ID]).column(0).combine_chunks()
    of_day = workspace.tables.read(built_from[2])
    sample = sample_users(of_day, config.evaluation.max_users, config.seed)
    return EvaluatedUsers(read_truth(sample, item_ids), item_ids, built_from, of_day.num_rows)


class DayVectors:
    """The vectors of a day as the scorer of some users after others."""

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Reads the corpus."""
        self._workspace = workspace
        self.built_from = tuple(workspace.need(name, ds) for name in ("item_vectors", "user_vectors"))
        self._items = workspace.tables.read(self.built_from[0])
        self._scorer: ModelScorer | None = None

    @property
    def item_ids(self) -> pa.ChunkedArray:
        return self._items.column(col.ITEM_ID)

    def scorer(self, user_ids: pa.Array) -> ModelScorer:
        """Returns the scorer of these users, who are ascending. Vectors of other users are not read."""
        users = read_rows_of_users(self._workspace, self.built_from[1], None, user_ids)
        if self._scorer is None:
            self._scorer = model_scorer(self._items, users, user_ids, stored_similarity(self._workspace.config.model))
            return self._scorer
        return self._scorer.for_users(users, user_ids)


def stored_similarity(model: Model) -> Similarity:
    """Returns how stored vectors are compared. Vectors widened by a prior or an embedding are not of unit length any more."""
    return Similarity.INNER_PRODUCT if model.prior or model.frozen_embedding else model.similarity


def read_fit_data(workspace: Workspace, ds: str, item_ids: pa.Array, user_ids: pa.Array, scratch: ScratchArrays) -> FitData:
    """Returns the interactions of all users before a day, large arrays in files.

    Args:
        user_ids: any users; ids are cast to their type.
    """
    window, settings, corpus = find_window_history(workspace, ds), workspace.config.evaluation, IdIndex(item_ids)
    first_recent = window_days(ds, settings.recent_days)[0]
    history = find_history_days(workspace, ds)
    recent = [day for day in history if day.ds >= first_recent]
    window_events = count_item_events(workspace, window, corpus)
    older = [day for day in history if day.ds < window[0].ds] if window else history
    return FitData(
        window_events=window_events,
        recent_events=count_item_events(workspace, recent, corpus),
        history_events=window_events + count_item_events(workspace, older, corpus),
        user_items=_read_user_items(workspace, window, user_ids, corpus, scratch),
        read_history=lambda: read_all_interactions(workspace, history, user_ids, corpus),
        settings=settings,
        allocate=scratch,
        seed=workspace.config.seed,
    )


def _read_user_items(
    workspace: Workspace, window: Sequence[Manifest], user_ids: pa.Array, corpus: IdIndex, scratch: ScratchArrays
) -> UserItems:
    """Returns the items of all users in the window, in files; user ids are cast to the type of the given ones."""
    lengths = [np.zeros(0, np.int64)]

    def read_items() -> Iterator[NDArray[np.int32]]:
        for interactions in read_all_interactions(workspace, window, user_ids, corpus):
            counts, items = recent_items(interactions)
            lengths.append(counts)
            yield items

    items = scratch.concat(read_items(), np.int32)
    return UserItems(offsets_of(np.concatenate(lengths)), items, len(corpus.ids))


SharedArrays = Mapping[str, NDArray[Any] | ScratchFile]
"""Arrays by name as another process of this machine can open them."""


def _to_files(arrays: Arrays) -> SharedArrays:
    return {name: ScratchFile.from_array(one) if isinstance(one, np.memmap) else one for name, one in arrays.items()}


def _open_files(arrays: SharedArrays) -> Arrays:
    return {name: one.open() if isinstance(one, ScratchFile) else one for name, one in arrays.items()}
