"""The step of channel_weights: learns the weight of each channel on days before the evaluation day.

On a held-out day, every channel sees only data from before that day: the history, popularity and neighbours of the window before it,
and vectors of towers that were not fitted to the day. Such vectors exist for the validation days of the fit. Without validation
days, the other channels are fitted alone, and the vectors take the weight of item_to_item. If the validation days have too few
pairs, the other channels' weights are first fitted on more days, and serve as the prior of the fit.

If `evaluation.span_days` days are evaluated together, equally many are held out together: all data end before the span.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import pyarrow as pa

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex, cast_ids, find_positions
from dssm_assets.core.arrays.ragged import ItemSets, offsets_of
from dssm_assets.core.channels.channel import OwnItems, SharedData, make_channels
from dssm_assets.core.channels.fit import HeldOutDay, fit_merges
from dssm_assets.core.channels.merge import CHANNEL_WEIGHTS, Merge, default_merges, to_table
from dssm_assets.core.config.channels import MergeWeights
from dssm_assets.core.errors import InputError, SchemaError
from dssm_assets.core.evaluation.scorer import ModelScorer
from dssm_assets.core.evaluation.truth import ground_truth, read_truth, sample_users
from dssm_assets.core.file_names import ModelFile, TrainSamplesFile
from dssm_assets.core.models.prior import Prior, append_one, append_prior
from dssm_assets.core.progress import count_progress
from dssm_assets.core.retrieval.exact import Corpus
from dssm_assets.core.retrieval.vectors import vector_faults
from dssm_assets.core.training.closed_form.prior_choice import PriorSearch
from dssm_assets.core.training.validation import ValidationSet, item_vectors, user_blocks
from dssm_assets.steps.dssm_model import open_train_data
from dssm_assets.steps.fit_job import map_model
from dssm_assets.steps.scoring import read_fit_data, stored_similarity
from dssm_assets.steps.stored_interactions import find_event_days, read_interactions_of_users
from dssm_assets.steps.vectors import find_model
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests, each_day
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets.storage.manifest import Manifest

HELD_OUT_USERS: Final = 2000
"""At most so many users of a held-out day are used, sampled by a hash of their ids."""


class ValidationVectors:
    """Vectors for the validation days of a day's model, from towers that were not fitted to these days.

    Attributes:
        days: the validation days, the latest first. Empty if the model was fitted without validation days.
        built_from: the manifests of the model and the samples.
    """

    def __init__(self, workspace: Workspace, ds: str) -> None:
        """Opens the model of a day. Raises the errors of `find_model`."""
        model, settings = find_model(workspace, ds)
        samples = workspace.need("train_samples", ds)
        self.built_from: tuple[Manifest, ...] = (model, samples)
        training, self._model, self.days = settings.training, settings.model, list[str]()
        if not training.validation_days:
            return
        weights = ModelFile.SEARCH_WEIGHTS if training.refit else ModelFile.WEIGHTS
        self._towers = map_model(workspace.artifacts.local_path(model, weights), settings.spec)
        self._data = open_train_data(workspace, samples, settings.spec)
        self._user_ids = workspace.artifacts.map_table(samples, TrainSamplesFile.USERS).column(col.USER_ID).combine_chunks()
        self._prior = (
            Prior.model_validate_json(workspace.artifacts.read_bytes(model, ModelFile.PRIOR)) if settings.spec.prior else None
        )
        # Day d of the samples is the d-th of the model's window.
        self._day_of = {day_before(settings.first_day, -day): day for day in range(self._data.num_days)}
        self.days = sorted(self._day_of, reverse=True)[: training.validation_days]

    def scorer(self, day: str, user_ids: pa.Array, item_ids: pa.Array) -> ModelScorer | None:
        """Returns the vectors as a scorer, as of the beginning of a validation day. None if no user has one.

        Args:
            user_ids: distinct ids. Users without an event before the day have no vector.
        """
        try:
            found = ValidationSet(self._data, self._day_of[day])
        except SchemaError:
            return None  # no user of the day or of later days has a history
        known = cast_ids(self._user_ids.take(pa.array(found.user_index)), user_ids.type, "train_samples, users.arrow")
        places = find_positions(user_ids, known)
        with_vector = np.flatnonzero(places >= 0)
        if not len(with_vector):
            return None
        users = np.concatenate(list(user_blocks(self._towers, found, places[with_vector])))
        items = item_vectors(self._towers, found)
        if self._prior is not None:
            search = PriorSearch.from_days_before(self._data, self._day_of[day])
            users, items = append_one(users), append_prior(items, search.item_values(self._prior))
        rows = np.full(len(user_ids), -1, np.int64)
        rows[with_vector] = np.arange(len(with_vector))
        InputError.raise_if(vector_faults("item", items, item_ids))
        corpus = Corpus(items, stored_similarity(self._model))
        return ModelScorer(corpus, item_ids, rows, users.reshape(len(users), -1))


@dataclass
class _HeldOut:
    """Held-out days, their channels, and the partitions that the channels were read from.

    Attributes:
        vectors: the vectors of the validation days. None: the held-out days are other days.
    """

    workspace: Workspace
    ds: str
    scratch: ScratchArrays
    vectors: ValidationVectors | None
    days: list[HeldOutDay] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    built_from: list[Manifest] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        return sum(len(one.truth.items) for one in self.days)

    def read_days(self, days: Sequence[str]) -> None:
        """Adds all validation days. Without vectors, adds the latest days until they have as many pairs as configured."""
        config = self.workspace.config
        for span in held_out_spans(days, config.evaluation.span_days):
            if self.vectors is None and self.pairs >= config.channels.held_out_pairs:
                break
            is_stored = all(self.workspace.find("positive_sample", day) is not None for day in span)
            if is_stored and span[0] > config.calendar.start.isoformat():
                self._add_span(span)

    def _add_span(self, span: Sequence[str]) -> None:
        workspace, config, day = self.workspace, self.workspace.config, span[0]
        positives, days = workspace.need_all("positive_sample", span), find_event_days(workspace, day)
        events = pa.concat_tables([workspace.tables.read(one, [col.USER_ID, col.ITEM_ID]) for one in positives])
        of_day = ground_truth(events, [])
        if not of_day.num_rows:
            return
        corpus = workspace.need("negative_items", self.ds)
        item_ids = workspace.tables.read(corpus, [col.ITEM_ID]).column(0).combine_chunks()
        truth = read_truth(sample_users(of_day, HELD_OUT_USERS, config.seed), item_ids)
        model = None if self.vectors is None else self.vectors.scorer(day, truth.user_ids, item_ids)
        history = read_interactions_of_users(workspace, days.history, truth.user_ids, IdIndex(item_ids))
        is_kept = (np.diff(history.indptr) > 0)[truth.pair_user]  # Skip users without history.
        if (self.vectors is not None and model is None) or not is_kept.any():
            return
        name = day if len(span) == 1 else f"{day} to {span[-1]}"
        workspace.log(f"held out {name}: {int(is_kept.sum()):,} pairs")
        data = read_fit_data(workspace, days, item_ids, truth.user_ids, self.scratch)
        is_asked_for = np.bincount(history.item_index, minlength=len(item_ids)) > 0  # the other items have half of all pairs
        data = replace(data, neighbors_of=is_asked_for)
        own = OwnItems(history.indptr, history.item_index, history.count, history.last_time_ms)
        starts = offsets_of(np.bincount(truth.pair_user[is_kept], minlength=truth.num_users))
        to_find = ItemSets(starts, truth.pair_item[is_kept])
        channels = make_channels(config.channels.depths, SharedData.fit(data), own, model, days.now_ms)
        self.days.append(HeldOutDay(channels, to_find))
        self.names.append(name)
        self.built_from += [*positives, *days.history, corpus, *(self.vectors.built_from if self.vectors else ())]


@each_day
def channel_weights(workspace: Workspace, ds: str) -> StepResult:
    settings = workspace.config.channels
    held_out: list[_HeldOut] = []
    merges: list[Merge] = []
    with workspace.tables.partitions.staging() as scratch:
        if settings.is_enabled:
            merges = default_merges([source.name for source in settings.sources])
        if settings.is_enabled and settings.weights is MergeWeights.FITTED:
            held_out = _read_held_out(workspace, ds, ScratchArrays(scratch))
        for one in held_out:
            workspace.log(f"fitting {len(merges)} merges on {one.pairs:,} pairs of {', '.join(one.names)}")
            users = sum(int(np.count_nonzero(day.truth.lengths)) for day in one.days)
            merges = fit_merges(one.days, merges, count_progress(workspace.log, workspace.now, users, "users"))
    inputs = digests([one.built_from for one in held_out])
    manifest = workspace.tables.write(CHANNEL_WEIGHTS, ds, to_table(merges), inputs=inputs)
    has_vectors = bool(held_out) and held_out[-1].vectors is not None
    facts: dict[str, Any] = {"held_out_days": "none", "has_held_out_vectors": has_vectors}
    if held_out:
        facts |= {"held_out_days": ", ".join(held_out[-1].names), "held_out_pairs": held_out[-1].pairs}
    return StepResult(manifest, facts, report_markdown=_report(merges, held_out))


def _read_held_out(workspace: Workspace, ds: str, scratch: ScratchArrays) -> list[_HeldOut]:
    """Returns the held-out days of the weights: the fit's validation days last.

    Days without vectors come before them, and only if these have too few pairs.
    """
    settings = workspace.config.channels
    vectors = ValidationVectors(workspace, ds)
    best = _HeldOut(workspace, ds, scratch, vectors)
    best.read_days(vectors.days)
    if best.pairs >= settings.held_out_pairs:
        return [best]
    # Only days of the window, because the set of other stored days depends on earlier runs.
    count = min(max(settings.held_out_days, workspace.config.evaluation.span_days), workspace.config.window.days)
    days = days_between(day_before(ds, count), day_before(ds))
    others = _HeldOut(workspace, ds, scratch, None)
    others.read_days(days[::-1])
    return [one for one in (others, best) if one.days]


def held_out_spans(days: Sequence[str], length: int) -> list[list[str]]:
    """Cuts days into spans of consecutive days, the latest first. A shorter span is used only if there is no whole one.

    By hand: days 5, 4, 3, 2, 1 are the spans 4 to 5 and 2 to 3 of two days each, and 1 to 5 of seven.
    """
    starts = range(0, max(len(days) - length + 1, min(len(days), 1)), length)
    return [sorted(days[start : start + length]) for start in starts]


def _report(merges: Sequence[Merge], held_out: Sequence[_HeldOut]) -> str:
    if not merges:
        return "Channels are switched off (`channels.is_enabled`)."
    source = "Default weights: no day was held out"
    if held_out:
        source = f"Learned on {', '.join(held_out[-1].names)}"
        if held_out[-1].vectors is None:
            source += "; there are no vectors of a validation day, so they have the weight of item_to_item"
        elif len(held_out) > 1:
            source += f", starting from weights of the other channels that were learned on {', '.join(held_out[0].names)}"
    lines = [
        f"{source}. One unit of a signal, or of the product of two, adds its weight to "
        "the log-odds that the user interacts with the item.",
        "",
        "| channel | signal | times | " + " | ".join(merge.name for merge in merges) + " |",
    ]
    lines += ["|---|---|---|" + "---:|" * len(merges)]
    for term in merges[0].weights:
        times = "" if term.other is None else f"{term.other.channel} {term.other.name}"
        found = [f"{merge.weights[term]:.2f}" if term in merge.weights else "" for merge in merges]
        lines.append(f"| {term.signal.channel} | {term.signal.name} | {times} | {' | '.join(found)} |")
    return "\n".join(lines)
