"""Chooses among fixed candidates for a text file, by validation inside its training part.

The last event of every user's training part is the validation day: the product's own search (`training.validation_days`) fits each
candidate to the events before and chooses its number of epochs by hit_rate@20 of items that are new to the user. Then every
candidate alone, and the sum of all, each with and without codes in closed form, neighbours and popularity in several
strengths, is compared by NDCG@200: lists of 20 differ by too few hits for so many. A sum of scores is one inner product of
concatenated vectors, plus the sparse scores of neighbours. The best is fitted again to the whole training part; what is held
out from that is not read.

Letters: V users of the validation day, P their truth pairs, B users of a block, I items, D vector width.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from dssm_assets.core.arrays.ragged import row_of_value
from dssm_assets.core.config.model import Targets
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets.core.training.validation import ValidationSet, item_vectors, user_blocks, validation_set
from dssm_assets_tests.benchmarks.quality_data import SECONDS_PER_DAY, Split, popularity
from dssm_assets_tests.benchmarks.quality_ours import code_vectors, find_neighbours, print_progress, split_tables
from dssm_assets_tests.benchmarks.quality_scores import ByVectors
from dssm_assets_tests.benchmarks.quality_settings import Settings

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
    """What is fitted to the whole training part: settings whose vectors are concatenated, the first of which may add codes once."""

    parts: tuple[Settings, ...]
    prior: Prior | None
    neighbours_std: float = 0.0


_Found = tuple[Settings, ByVectors]
"""A candidate with its best number of epochs, and its vectors on the validation day [V, D] and [I, D]."""


class _Way(NamedTuple):
    """What is added to what."""

    parts: tuple[str, ...]
    with_codes: bool
    neighbours_std: float
    popularity: float


def choose_parts(split: Split, candidates: Mapping[str, Settings]) -> Chosen:
    """Returns the best candidate, or all of them, with their numbers of epochs and what is added.

    Args:
        split: the last event of each user is alone on the last day (`read_sequence_split`).
        candidates: by name, with one temperature and the same `added_codes`; `training.epochs` are at most.
    """
    found: dict[str, _Found] = {}
    for name, settings in candidates.items():
        found[name], validation = _search(name, split, settings)
        print(f"{name}: {found[name][0].training.epochs} epochs", file=sys.stderr, flush=True)
    best = _best_way(found, validation, _before_last_day(split))
    parts = [replace(found[name][0], added_codes=None) for name in best.parts]
    if best.with_codes:
        parts[0] = found[best.parts[0]][0]
    prior = Prior(popularity=best.popularity, recent=0.0, half_life_days=_NO_DECAY_DAYS) if best.popularity else None
    return Chosen(tuple(parts), prior, best.neighbours_std)


def _best_way(found: Mapping[str, _Found], validation: ValidationSet, split: Split) -> _Way:
    """Returns the way with the largest NDCG; of equal ones the first, which adds least."""
    names, settings = tuple(found), next(iter(found.values()))[0]
    sets = [(name,) for name in names] + ([names] if len(names) > 1 else [])
    ways = [
        _Way(parts, with_codes, std, weight * settings.model.temperature)
        for parts in sets
        for with_codes in ((False,) if settings.added_codes is None else (False, True))
        for std in NEIGHBOURS
        for weight in POPULARITY
    ]
    codes = None if settings.added_codes is None else code_vectors(split, settings.added_codes)
    neighbours = find_neighbours(split, 1.0)
    values = Prior(popularity=1.0, recent=0.0, half_life_days=_NO_DECAY_DAYS).values_for(popularity(split), popularity(split))
    gains = np.zeros(len(ways))
    for places, rows, items in _blocks(validation):
        users = validation.user_index[places]
        left_out = validation.excluded.select_users(places)
        products = {name: vectors.users[places] @ vectors.items.T for name, (_, vectors) in found.items()}
        of_codes = 0.0 if codes is None else codes.users[users] @ codes.items.T
        of_neighbours = neighbours.scores(users)
        for number, way in enumerate(ways):
            scores = sum(products[name] for name in way.parts) + way.with_codes * of_codes
            scores = scores + np.float32(way.neighbours_std) * of_neighbours + np.float32(way.popularity) * values
            scores[left_out.users, left_out.items] = -np.inf
            gains[number] += _gains(scores, rows, items).sum()
    best = ways[int(gains.argmax())]
    print(f"validation NDCG@{LENGTH} {gains.max() / len(validation.truth.items):.4f} by {best}", file=sys.stderr, flush=True)
    return best


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


def _search(name: str, split: Split, settings: Settings) -> tuple[_Found, ValidationSet]:
    """Returns the vectors of the best epoch that was fitted to the days before the last one, and the last day."""
    settings = settings.with_model(targets=Targets.NEW)
    tables = split_tables(split, None, settings)
    data = tables.train_data()
    result = fit(
        data,
        model=settings.model,
        training=settings.with_training(validation_days=1, patience=PATIENCE, refit=False).training,
        seed=0,
        context=FitContext(progress=print_progress(name), ks=KS),
    )
    best = max(result.scores, key=lambda score: score.hit_rate)
    validation = validation_set(data, data.num_days - 1, Targets.NEW)
    users = np.concatenate(list(user_blocks(result.two_tower, validation)))
    vectors = ByVectors(users, item_vectors(result.two_tower, validation))
    return (settings.with_training(epochs=best.epoch), vectors), validation


def _before_last_day(split: Split) -> Split:
    """Returns the split with what the search is fitted to as its training part, users and items numbered as before."""
    day = split.time_s // SECONDS_PER_DAY
    kept = day < day.max()
    return replace(split, user=split.user[kept], item=split.item[kept], time_s=split.time_s[kept])
