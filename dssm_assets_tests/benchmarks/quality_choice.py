"""Chooses among fixed candidates for a text file, by validation inside its training part.

The last event of every user's training part is the validation day: the product's own search (`training.validation_days`) fits each
candidate to the events before and chooses its number of epochs by hit_rate@20 of items that are new to the user. Then every
candidate alone, and the sum of all, each with and without codes in closed form, neighbours and popularity in several
strengths, is compared by NDCG@200: lists of 20 differ by too few hits for so many. A sum of scores is one inner product of
concatenated vectors, plus the sparse scores of neighbours. The best is fitted again to the whole training part; what is held
out from that is not read.

Belongs here: the search and what is kept of it. Does not belong here: the candidates (`quality_text_settings.py`), fitting
and scoring what was chosen (`quality.py`).

Letters: V users of the validation day, P their truth pairs, B users of a block, I items, D vector width.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import row_of_value
from dssm_assets.core.config.model import Targets
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets.core.training.validation import ValidationSet, item_vectors, user_blocks, validation_set
from dssm_assets_tests.benchmarks.quality_features import popularity
from dssm_assets_tests.benchmarks.quality_neighbours import find_neighbours
from dssm_assets_tests.benchmarks.quality_ours import code_vectors, print_progress, split_tables
from dssm_assets_tests.benchmarks.quality_scores import ByVectors
from dssm_assets_tests.benchmarks.quality_settings import Settings
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Split

KS: Final = (5, 20)
"""Length of the lists by which epochs are compared: the largest below the number of items."""
LENGTH: Final = 200
"""Ranks that count when everything else is compared."""
PATIENCE: Final = 3
"""Epochs without a better hit rate after which a candidate's search ends."""
POPULARITY: Final = (0.0, 0.25, 0.5, 1.0, 2.0)
"""Weights of ln(count + 1) beside the logits of one part."""
NEIGHBOURS: Final = (0.0, 0.025, 0.05)
"""Deviations of the scores of neighbours that are tried."""
_NO_DECAY_DAYS: Final = 1e6
"""Half-life of the prior's recent count: without times every event is as old as any other."""
_MAX_SCORES: Final = 100_000_000
"""Scores of a way, of an even sample of users."""
_BLOCK: Final = 512


@dataclass(frozen=True)
class Chosen:
    """What is fitted to the whole training part.

    Attributes:
        parts: settings whose vectors are concatenated; only the first may have codes, which are added once.
        prior: of the sum of their scores.
        neighbours_std: deviation of the scores of neighbours, which are added; 0: none are.
    """

    parts: tuple[Settings, ...]
    prior: Prior | None
    neighbours_std: float = 0.0


@dataclass(frozen=True)
class _Found:
    """A candidate with the number of epochs that was best, and its vectors on the validation day."""

    settings: Settings
    vectors: ByVectors  # [V, D] and [I, D]


class _Way(NamedTuple):
    """What is added to what."""

    parts: tuple[str, ...]
    with_codes: bool
    neighbours_std: float
    popularity: float


def choose_parts(split: Split, candidates: Mapping[str, Settings]) -> Chosen:
    """Returns the best candidate, or all of them, with their numbers of epochs and what is added.

    Args:
        split: the last event of each user is alone on the last day (`quality_text_settings.py`).
        candidates: by name, with one temperature and the same `added_codes`; `training.epochs` are at most.
    """
    found = {}
    for name, settings in candidates.items():
        begin = time.monotonic()
        found[name], data, first_day = _search(name, split, settings)
        epochs = found[name].settings.training.epochs
        _print(f"{name}: {epochs} epochs, {time.monotonic() - begin:.0f} s")
    validation = validation_set(data, first_day, Targets.NEW)
    best = _best_way(found, validation, before_last_day(split))
    first, *others = [replace(found[name].settings, added_codes=None) for name in best.parts]
    if best.with_codes:
        first = replace(first, added_codes=found[best.parts[0]].settings.added_codes)
    prior = Prior(popularity=best.popularity, recent=0.0, half_life_days=_NO_DECAY_DAYS) if best.popularity else None
    return Chosen((first, *others), prior, best.neighbours_std)


def _best_way(found: Mapping[str, _Found], validation: ValidationSet, split: Split) -> _Way:
    """Returns the way with the largest NDCG; of equal ones the first, which adds least."""
    names, temperature = tuple(found), next(iter(found.values())).settings.model.temperature
    section = next(iter(found.values())).settings.added_codes
    sets = [(name,) for name in names] + ([names] if len(names) > 1 else [])
    ways = [
        _Way(parts, with_codes, std, weight * temperature)
        for parts in sets
        for with_codes in ((False,) if section is None else (False, True))
        for std in NEIGHBOURS
        for weight in POPULARITY
    ]
    codes = None if section is None else code_vectors(split, section)
    neighbours = find_neighbours(split, 1.0)
    values = Prior(popularity=1.0, recent=0.0, half_life_days=_NO_DECAY_DAYS).values_for(popularity(split), popularity(split))
    gains = np.zeros(len(ways))
    for places, rows, items in _blocks(validation):
        users = validation.user_index[places]
        left_out = validation.excluded.select_users(places).mask(validation.num_items)
        products = {name: one.vectors.users[places] @ one.vectors.items.T for name, one in found.items()}
        of_codes = 0.0 if codes is None else codes.users[users] @ codes.items.T
        of_neighbours = neighbours.scores(users)
        for number, way in enumerate(ways):
            scores = sum(products[name] for name in way.parts) + way.with_codes * of_codes
            scores = scores + np.float32(way.neighbours_std) * of_neighbours + np.float32(way.popularity) * values
            scores[left_out] = -np.inf
            gains[number] += _gains(scores, rows, items).sum()
    gains /= len(validation.truth.items)
    for parts in sets:
        of_parts = [number for number, way in enumerate(ways) if way.parts == parts]
        plain, top = of_parts[0], max(of_parts, key=lambda number: gains[number])
        _print(
            f"{' and '.join(parts)}: validation NDCG@{LENGTH} {gains[plain]:.4f}, at best {gains[top]:.4f} by {ways[top][1:]}"
        )
    return ways[int(gains.argmax())]


def _blocks(validation: ValidationSet) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yields places of users [B], and the place in the block and item of each of their pairs; of an even sample of users."""
    count = min(validation.num_users, max(1, _MAX_SCORES // validation.num_items))
    chosen = np.unique(np.linspace(0, validation.num_users - 1, count).astype(np.int64))
    owner = row_of_value(validation.truth.offsets)
    for begin in range(0, len(chosen), _BLOCK):
        places = chosen[begin : begin + _BLOCK]
        is_here = np.isin(owner, places)
        yield places, np.searchsorted(places, owner[is_here]), validation.truth.items[is_here]


def _gains(
    scores: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], items: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Returns 1 / log2(rank + 2) of each pair, 0 behind `LENGTH`; among equal scores a pair has the middle rank [P]."""
    of_rows, own = scores[rows], scores[rows, items][:, None]
    ranks = (of_rows > own).sum(axis=1) + 0.5 * ((of_rows == own).sum(axis=1) - 1)
    return np.where(ranks < LENGTH, 1.0 / np.log2(ranks + 2.0), 0.0)


def _search(name: str, split: Split, settings: Settings) -> tuple[_Found, TrainData, int]:
    """Returns what the best epoch found that was fitted to the days before the last one, the data, and that day."""
    settings = settings.with_model(targets=Targets.NEW)
    model, training = settings.model, settings.with_training(validation_days=1, patience=PATIENCE, refit=False).training
    tables = split_tables(split, None, settings)
    data, context = tables.train_data(), FitContext(progress=print_progress(name), ks=KS)
    result = fit(
        data,
        tables.spec,
        model=model,
        training=training,
        seed=0,
        context=context,
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


def _print(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
