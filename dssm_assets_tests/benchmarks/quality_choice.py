"""Chooses among fixed candidates for a text file, by validation inside its training part.

The last event of every user's training part is the validation day: the product's own search (`training.validation_days`) fits each
candidate to the events before and chooses its number of epochs. Then every candidate alone, and the sum of all, is compared by
hit_rate@20 of items that are new to the user, with the popularity prior that is best for it. A sum of scores is one inner
product of concatenated vectors. The best is fitted again to the whole training part; what is held out from that is not read.

Belongs here: the search and what is kept of it. Does not belong here: the candidates (`quality_text_settings.py`), fitting
and scoring what was chosen (`quality.py`).

Letters: V users of the validation day, I items, D vector width.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from dssm_assets.core.arrays.ragged import FloatArray, row_of_value
from dssm_assets.core.config.model import Targets
from dssm_assets.core.models.prior import Prior, append_one, append_prior
from dssm_assets.core.training.closed_form.prior_choice import PriorSearch
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.fit_options import FitContext
from dssm_assets.core.training.fit_report import Progress
from dssm_assets.core.training.loop import fit
from dssm_assets.core.training.validation import ValidationSet, hit_rate, item_vectors, scored_k, user_blocks, validation_set
from dssm_assets_tests.benchmarks.quality_ours import split_tables
from dssm_assets_tests.benchmarks.quality_settings import Settings
from dssm_assets_tests.benchmarks.quality_splits import Split

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
        parts: settings whose vectors are concatenated.
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
    users: FloatArray  # [V, D]
    items: FloatArray  # [I, D]


def choose_parts(split: Split, candidates: Mapping[str, Settings], seed: int = 0) -> Chosen:
    """Returns the best candidate, or all of them, with their numbers of epochs and a prior.

    Args:
        split: the last event of each user is alone on the last day (`quality_texts.py`).
        candidates: by name, with one temperature; `training.epochs` are at most.
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
    best, chosen = -1.0, Chosen((), None)
    for name, parts in ways.items():
        rate, prior = _score(parts, validation, search)
        _print(f"{name}: validation hit_rate@{_length(validation)} {rate:.4f}")
        if rate > best:
            best, chosen = rate, Chosen(tuple(part.settings for part in parts), prior)
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
    items = item_vectors(result.two_tower, validation)
    return _Found(settings.with_training(epochs=best.epoch), users, items), data, first_day


def _score(parts: Sequence[_Found], validation: ValidationSet, search: PriorSearch) -> tuple[float, Prior]:
    """Returns the hit rate of the parts' sum with the best prior, and that prior."""
    users, items = (np.concatenate([getattr(part, side) for part in parts], axis=1) for side in ("users", "items"))
    k, scale = _length(validation), 1.0 / parts[0].settings.model.temperature
    truth_users, truth_items = row_of_value(validation.truth.offsets), validation.truth.items
    found = search.choose(users, items, truth_users, truth_items, scale=scale, k=k, excluded=validation.excluded)
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
