"""Chooses among fixed candidates for a text file, by validation inside its training part.

The last event of every user's training part is the validation day: the product's own search (`training.validation_days`) fits each
candidate to the events before and chooses its number of epochs. Then every candidate alone, and the sum of all, each with and
without codes in closed form, is compared by hit_rate@20 of items that are new to the user, with the popularity prior that is
best for it. A sum of scores is one inner product of concatenated vectors. The best is fitted again to the whole training part; what is held out from that is not read.

Belongs here: the search and what is kept of it. Does not belong here: the candidates (`quality_text_settings.py`), fitting
and scoring what was chosen (`quality.py`).

Letters: V users of the validation day, I items, D vector width.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from dssm_assets.core.arrays.ragged import row_of_value
from dssm_assets.core.config.model import Targets
from dssm_assets.core.models.prior import Prior, append_one, append_prior
from dssm_assets.core.training.closed_form.prior_choice import PriorSearch
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_options import FitContext
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.core.training.loop import fit
from dssm_assets.core.training.validation import ValidationSet, hit_rate, item_vectors, scored_k, user_blocks, validation_set
from dssm_assets_tests.benchmarks.quality_ours import code_vectors, concatenate_vectors, split_tables
from dssm_assets_tests.benchmarks.quality_scores import ByVectors
from dssm_assets_tests.benchmarks.quality_settings import Settings
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Split

KS: Final = (5, 20)
"""Length of the lists that are compared: the largest below the number of items."""
PATIENCE: Final = 3
"""Epochs without a better hit rate after which a candidate's search ends."""
_NO_DECAY_DAYS: Final = 1e6
"""Half-life of the prior's recent count: without times every event is as old as any other."""


@dataclass(frozen=True)
class Chosen:
    """What is fitted to the whole training part.

    Attributes:
        parts: settings whose vectors are concatenated; only the first may have codes, which are added once.
        prior: of the sum of their scores.
    """

    parts: tuple[Settings, ...]
    prior: Prior | None

    def to_json(self) -> dict[str, Any]:
        """Returns the settings of the only part, or of every part, and the prior."""
        parts = [part.to_json() for part in self.parts]
        prior = None if self.prior is None else self.prior.model_dump()
        return {**(parts[0] if len(parts) == 1 else {"parts": parts}), "prior": prior}


@dataclass(frozen=True)
class _Found:
    """A candidate with the number of epochs that was best, and its vectors on the validation day."""

    settings: Settings
    vectors: ByVectors  # [V, D] and [I, D]


def choose_parts(split: Split, candidates: Mapping[str, Settings], seed: int = 0) -> Chosen:
    """Returns the best candidate, or all of them, with their numbers of epochs and a prior.

    Args:
        split: the last event of each user is alone on the last day (`quality_texts.py`).
        candidates: by name, with one temperature and the same `added_codes`; `training.epochs` are at most.
        seed: of every search.
    """
    found = {}
    for name, settings in candidates.items():
        begin = time.monotonic()
        found[name], data, first_day = _search(split, settings, seed)
        epochs = found[name].settings.training.epochs
        _print(f"{name}: {epochs} epochs, {time.monotonic() - begin:.0f} s")
    validation = validation_set(data, first_day, Targets.NEW)
    search = PriorSearch.from_days_before(data, first_day)
    ways = {name: (one,) for name, one in found.items()}
    if len(found) > 1:
        ways["sum of all"] = tuple(found.values())
    section = next(iter(candidates.values())).added_codes
    codes = None if section is None else code_vectors(before_last_day(split), section)
    best, chosen = -1.0, Chosen((), None)
    for name, parts in ways.items():
        vectors = concatenate_vectors([part.vectors for part in parts])
        first, *others = [replace(part.settings, added_codes=None) for part in parts]
        tried = {name: (first, vectors)}
        if codes is not None:
            of_users = replace(codes, users=codes.users[validation.user_index])
            tried[f"{name} and codes"] = replace(first, added_codes=section), concatenate_vectors([vectors, of_users])
        for way, (settings, scored) in tried.items():
            rate, prior = _score(scored, settings.model.temperature, validation, search)
            _print(f"{way}: validation hit_rate@{_length(validation)} {rate:.4f}")
            if rate > best:
                best, chosen = rate, Chosen((settings, *others), prior)
    return chosen


def _search(split: Split, settings: Settings, seed: int) -> tuple[_Found, TrainData, int]:
    """Returns what the best epoch found that was fitted to the days before the last one, the data, and that day."""
    settings = settings.with_model(targets=Targets.NEW)
    model, training = settings.model, settings.with_training(validation_days=1, patience=PATIENCE, refit=False).training
    tables = split_tables(split, None, settings)
    data, context = tables.train_data(), FitContext(ks=KS)
    result = fit(
        data, tables.spec, model=model, training=training, seed=seed, progress=_quiet, now=time.monotonic, context=context
    )
    best = max(result.scores, key=lambda score: score.hit_rate)
    first_day = data.num_days - 1
    validation = validation_set(data, first_day, Targets.NEW)
    users = np.concatenate(list(user_blocks(result.two_tower, validation)))
    vectors = ByVectors(users, item_vectors(result.two_tower, validation))
    return _Found(settings.with_training(epochs=best.epoch), vectors), data, first_day


def before_last_day(split: Split) -> Split:
    """Returns the split with what the search is fitted to as its training part, users and items numbered as before."""
    day = split.time_s // SECONDS_PER_DAY
    kept = day < day.max()
    return replace(split, user=split.user[kept], item=split.item[kept], time_s=split.time_s[kept])


def _score(vectors: ByVectors, temperature: float, validation: ValidationSet, search: PriorSearch) -> tuple[float, Prior]:
    """Returns the hit rate of these vectors with the best prior, and that prior."""
    k, users, items = _length(validation), vectors.users, vectors.items
    truth_users, truth_items = row_of_value(validation.truth.offsets), validation.truth.items
    found = search.choose(users, items, truth_users, truth_items, scale=1.0 / temperature, k=k, excluded=validation.excluded)
    prior = Prior(popularity=found.popularity, recent=found.recent, half_life_days=_NO_DECAY_DAYS)
    values = prior.values_for(search.counts, search.counts)
    return hit_rate([append_one(users)], append_prior(items, values), validation, k), prior


def _length(validation: ValidationSet) -> int:
    return scored_k(KS, validation.num_items)


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _quiet(progress: Progress) -> None:
    del progress
