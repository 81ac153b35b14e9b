"""The step of channel_weights: how strongly each channel counts, learned on days before the evaluation day.

For a held-out day, every channel sees what was known when that day began: the history up to the day before, popularity and
neighbours of the window before it, and vectors of a model that was not trained on the day. Such vectors are those of an earlier
evaluation day. Without any, the other channels are fitted alone, and the vectors take the weight of item_to_item. Where the days
with vectors have too few pairs, the weights of the other channels are first fitted on more days, and then drawn to those.

Belongs here: which days are held out, what is read of them. Does not belong here: the fit (`core/channels/fit.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dssm_assets.core import columns as col
from dssm_assets.core.arrays.ids import IdIndex
from dssm_assets.core.arrays.ragged import offsets_of
from dssm_assets.core.channels.fit import HeldOutDay, fit_merges
from dssm_assets.core.channels.merge import Merge, default_merges
from dssm_assets.core.channels.weights_table import CHANNEL_WEIGHTS, to_table
from dssm_assets.core.config.channels import MergeWeights
from dssm_assets.core.evaluation.truth import ground_truth, read_truth, sample_users
from dssm_assets.steps.channels import make_day_channels, open_shared, shared_arrays
from dssm_assets.steps.scoring import DayVectors, read_fit_data
from dssm_assets.steps.stored_interactions import read_interactions_of_users
from dssm_assets.steps.training import find_history_days
from dssm_assets.steps.workspace import StepResult, Workspace, day_before, days_between, digests, start_of_day_ms
from dssm_assets.storage.local_files import ScratchArrays
from dssm_assets.storage.manifest import Manifest


def channel_weights(workspace: Workspace, days: Sequence[str]) -> Iterator[StepResult]:
    """Fits the weights of each day's merged lists."""
    for ds in days:
        yield _fit_weights(workspace, ds)


@dataclass
class _HeldOut:
    """Held-out days, their channels and what these were read from."""

    has_vectors: bool
    days: list[HeldOutDay] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    built_from: list[Manifest] = field(default_factory=list)

    @property
    def pairs(self) -> int:
        """Returns the pairs of user and item to find."""
        return sum(len(one.truth_items) for one in self.days)


def _fit_weights(workspace: Workspace, ds: str) -> StepResult:
    settings = workspace.config.channels
    names = [source.name for source in settings.sources]
    held_out: list[_HeldOut] = []
    merges: list[Merge] = []
    facts: dict[str, Any] = {}
    with workspace.tables.partitions.staging() as scratch:
        if settings.is_enabled and settings.weights is MergeWeights.FITTED:
            held_out = _read_held_out(workspace, ds, ScratchArrays(scratch))
        if settings.is_enabled:
            merges = default_merges(names)
        for one in held_out:
            fitted = fit_merges(names, one.days, merges)
            merges, facts = fitted.merges, {"held_out_pairs": fitted.truth_pairs, "proposed_pairs": fitted.proposed_pairs}
    inputs = digests([one.built_from for one in held_out])
    manifest = workspace.tables.write(CHANNEL_WEIGHTS, ds, to_table(merges), inputs=inputs)
    facts["held_out_days"] = ", ".join(held_out[-1].names) if held_out else "none"
    facts["has_held_out_vectors"] = bool(held_out) and held_out[-1].has_vectors
    return StepResult(manifest, facts, report_markdown=_report(merges, held_out))


def _read_held_out(workspace: Workspace, ds: str, scratch: ScratchArrays) -> list[_HeldOut]:
    """Returns the latest days before ds that have as many pairs as configured, in the order in which weights are fitted on them.

    Days without vectors come first, and only if those with vectors have too few pairs.
    """
    settings = workspace.config.channels
    days = [
        day for day in days_between(day_before(ds, settings.held_out_days), day_before(ds)) if _can_hold_out(workspace, day)
    ]
    with_vectors = [day for day in days if all(workspace.find(name, day) for name in ("item_vectors", "user_vectors"))]
    best = _read_days(workspace, with_vectors, scratch, corpus_of=None)
    if best.pairs >= settings.held_out_pairs:
        return [best]
    return [one for one in (_read_days(workspace, days, scratch, corpus_of=ds), best) if one.days]


def _read_days(workspace: Workspace, days: Sequence[str], scratch: ScratchArrays, corpus_of: str | None) -> _HeldOut:
    """Returns the last of these days that together have as many pairs as configured; arguments as of `_read_day`."""
    found = _HeldOut(has_vectors=corpus_of is None)
    for day in reversed(days):
        held_out, read = _read_day(workspace, day, scratch, corpus_of)
        if held_out is not None:
            found.days.append(held_out)
            found.names.append(day)
            found.built_from.extend(read)
        if found.pairs >= workspace.config.channels.held_out_pairs:
            break
    return found


def _can_hold_out(workspace: Workspace, ds: str) -> bool:
    return ds > workspace.config.calendar.start.isoformat() and workspace.find("positive_sample", ds) is not None


def _read_day(
    workspace: Workspace, ds: str, scratch: ScratchArrays, corpus_of: str | None
) -> tuple[HeldOutDay | None, list[Manifest]]:
    """Returns a held-out day and what it was read from; None if it has no positive events.

    Args:
        workspace: has the day.
        ds: the day.
        scratch: where large arrays are.
        corpus_of: the day whose corpus is ranked without vectors; None: rank by the day's own vectors.
    """
    settings, config = workspace.config.channels, workspace.config
    positives, history_days = workspace.need("positive_sample", ds), find_history_days(workspace, ds)
    of_day = ground_truth(workspace.tables.read(positives, [col.USER_ID, col.ITEM_ID]), [])
    if not of_day.num_rows:
        return None, []
    vectors = DayVectors(workspace, ds) if corpus_of is None else None
    corpus = [workspace.need("negative_items", corpus_of)] if corpus_of is not None else []
    known = vectors.item_ids if vectors else workspace.tables.read(corpus[0], [col.ITEM_ID]).column(0)
    item_ids = known.combine_chunks()
    truth, index = read_truth(sample_users(of_day, settings.held_out_users, config.seed), item_ids), IdIndex(item_ids)
    data = read_fit_data(workspace, ds, item_ids, truth.user_ids, scratch)
    shared = open_shared(shared_arrays(data))
    history = read_interactions_of_users(workspace, history_days, truth.user_ids, index)
    model = vectors.scorer(truth.user_ids) if vectors else None
    now_ms = start_of_day_ms(ds, config.calendar.timezone)
    channels = make_day_channels(settings, shared, history, truth.num_users, model, now_ms)
    starts = offsets_of(np.bincount(truth.pair_user, minlength=truth.num_users))
    return HeldOutDay(channels, starts, truth.pair_item), [
        positives,
        *history_days,
        *(vectors.built_from if vectors else corpus),
    ]


def _report(merges: Sequence[Merge], held_out: Sequence[_HeldOut]) -> str:
    if not merges:
        return "Channels are switched off (`channels.is_enabled`)."
    source = "Default weights: no day was held out"
    if held_out:
        source = f"Learned on {', '.join(held_out[-1].names)}"
        if not held_out[-1].has_vectors:
            source += "; no earlier evaluation day has vectors, so they have the weight of item_to_item"
        elif len(held_out) > 1:
            source += f", starting from weights of the other channels that were learned on {', '.join(held_out[0].names)}"
    lines = [f"{source}. One unit of a signal adds its weight to the log-odds that the user interacts with the item.", ""]
    lines += ["| channel | signal | items | " + " | ".join(merge.name for merge in merges) + " |"]
    lines += ["|---|---|---|" + "---:|" * len(merges)]
    for term in merges[0].weights:
        which = "own" if term.is_own_only else "all"
        found = [f"{merge.weights[term]:.2f}" if term in merge.weights else "" for merge in merges]
        lines.append(f"| {term.channel} | {term.signal} | {which} | {' | '.join(found)} |")
    return "\n".join(lines)
