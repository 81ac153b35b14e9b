"""Chooses what is added up for a text file, by validation inside its training part.

The last event of every user's training part is its validation item. The product's own search (`training.validation_days`) fits each
candidate to the events before and chooses its number of epochs by hit_rate@20 of items that are new to the user. Then to the
best candidate is added, one after the other, what gains most of the other candidates, codes in closed form, neighbours and
popularity, by NDCG@20. What gains less than one standard error over users is left out. A strength is 0 or
a power of two in deviations of the scores; the powers reach on until the best one is at neither end.

Letters: V users, I items, D vector width, S parts, C candidates of a user.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from dssm_assets.core.config.model import Targets
from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.models.prior import Prior
from dssm_assets.core.training.loop import FitContext, fit
from dssm_assets.core.training.validation import ValidationSet, item_vectors, user_blocks
from dssm_assets_tests.benchmarks.quality_data import SECONDS_PER_DAY, Split, popularity
from dssm_assets_tests.benchmarks.quality_ours import code_vectors, find_neighbours, print_progress, split_tables
from dssm_assets_tests.benchmarks.quality_scores import ByVectors
from dssm_assets_tests.benchmarks.quality_settings import Chosen, Settings

KS: Final = (5, 20)
"""Length of the lists by which epochs are compared: the largest below the number of items."""
LENGTH: Final = 20
"""Ranks that count when everything else is compared."""
PATIENCE: Final = 2
"""Epochs without a better hit rate after which a candidate's search ends."""
STRENGTHS: Final = tuple(2.0**power for power in range(-5, 2))
"""Strengths that are tried first, in deviations of the scores of the best candidate."""
MAX_STRENGTHS: Final = 20
"""Strengths of a part that are tried in all."""
CODES, NEIGHBOURS, POPULARITY = "codes", "neighbours", "popularity"
_MAX_USERS: Final = 10_000
"""Users that decide, evenly spaced: of 35,598 all would take a third of the encoder's search."""
_DEPTH: Final = 5
"""Candidates of a user are this many times the ranks that count, of each part the best."""
_BLOCK: Final = 64

_Floats = npt.NDArray[np.float64]


def choose_parts(split: Split, candidates: Mapping[str, Settings], codes: SvdInit) -> Chosen:
    """Returns the candidates that are added up, with their numbers of epochs, and what else is added.

    Args:
        split: the last event of each user is alone on the last day.
        candidates: by name; `training.epochs` are at most.
        codes: those that may be added.
    """
    found, vectors, validated = {}, {}, sample_last_events(split, _MAX_USERS)
    for name, settings in candidates.items():
        found[name], vectors[name], validation = _search(name, validated, settings)
    codes = codes.model_copy(update={"score_std": 1.0})
    lists, units = _read_lists(vectors, validation, split.without_last(), codes)
    names = (*vectors, CODES, NEIGHBOURS, POPULARITY)
    factors = choose_strengths(lists, names, len(vectors)) / units
    strengths = dict(zip(names, (factors / factors[: len(vectors)].max()).tolist(), strict=True))
    _print(f"factors of scores: {strengths}")
    return Chosen(
        tuple((found[name], strengths[name]) for name in found if strengths[name]),
        codes.model_copy(update={"score_std": strengths[CODES]}) if strengths[CODES] else None,
        _prior(strengths[POPULARITY]) if strengths[POPULARITY] else None,
        strengths[NEIGHBOURS],
    )


@dataclass(frozen=True)
class Lists:
    """What each user's candidates score more than its item, by each part.

    Attributes:
        margins: in deviations of a part's scores [V, C, S].
        is_counted: neither the item itself, nor left out of the list, nor a candidate that occurs again [V, C].
        is_found: the item is a candidate; others gain nothing [V].
    """

    margins: npt.NDArray[np.float32]
    is_counted: npt.NDArray[np.bool_]
    is_found: npt.NDArray[np.bool_]

    def gains(self, weights: _Floats) -> _Floats:
        """Returns the NDCG of each user, 1 / log2(rank + 2); among equal scores an item has the middle rank [V]."""
        scores = self.margins @ weights.astype(np.float32)
        ranks = ((scores > 0) & self.is_counted).sum(axis=1) + 0.5 * ((scores == 0) & self.is_counted).sum(axis=1)
        return np.where(self.is_found & (ranks < LENGTH), 1.0 / np.log2(ranks + 2.0), 0.0)


def choose_strengths(lists: Lists, names: tuple[str, ...], num_candidates: int) -> _Floats:
    """Returns the weight of every part, 0 of those left out, 1 of the best of the first `num_candidates` [S]."""
    alone = [lists.gains(row).mean() for row in np.eye(len(names))]
    _print(", ".join(f"{name} {gain:.4f}" for name, gain in zip(names, alone, strict=True)))
    base = int(np.argmax(alone[:num_candidates]))
    weights, left = np.eye(len(names))[base], set(range(len(names))) - {base}
    while left:
        trials = {part: _tune(lists, weights, part, names[part]) for part in sorted(left)}
        more = {part: lists.gains(trial) - lists.gains(weights) for part, trial in trials.items()}
        errors = {part: gains.std() / np.sqrt(len(gains)) for part, gains in more.items()}
        part = max(trials, key=lambda one: more[one].mean() - errors[one])
        is_added = more[part].mean() > errors[part]
        verb = "added" if is_added else "left out"
        _print(f"{names[part]} {verb}: NDCG@{LENGTH} +{more[part].mean():.4f}, error {errors[part]:.4f}")
        if not is_added:
            break
        left.remove(part)
        weights = trials[part]
        for other in set(np.flatnonzero(weights).tolist()) - {base, part}:
            weights = _tune(lists, weights, other, names[other])
    return weights


def _tune(lists: Lists, weights: _Floats, part: int, name: str) -> _Floats:
    """Returns the weights with the best one of a part, which may be 0."""
    one, found = np.eye(len(weights))[part], {}
    tried = [0.0, *STRENGTHS]
    while tried and len(found) < MAX_STRENGTHS:
        found |= {value: lists.gains(weights * (1 - one) + value * one).mean() for value in tried}
        best = max(found, key=lambda value: (found[value], -value))
        ends = {max(found): 2.0, min(set(found) - {0.0}): 0.5}
        tried = [best * ends[best]] if best in ends else []
    if tried:
        _print(f"{name}: strength {best:g} is the end of what was tried")
    return weights * (1 - one) + best * one


def _read_lists(
    vectors: Mapping[str, ByVectors], validation: ValidationSet, split: Split, codes: SvdInit
) -> tuple[Lists, _Floats]:
    """Returns the candidates of the users, and the deviation of every part's scores over all items, mean over users [S].

    Args:
        vectors: of the validation day by name, [V, D] and [I, D]; the other parts are fitted to the split.
    """
    coded, neighbours = code_vectors(split, codes, split), find_neighbours(split, 1.0, split)
    values = _prior(1.0).values_for(popularity(split), popularity(split))
    blocks, units = [], np.zeros(0)
    for block in np.array_split(np.arange(validation.num_users), -(-validation.num_users // _BLOCK)):
        users, items = validation.user_index[block], validation.truth.items[validation.truth.offsets[block]]
        scores = np.stack(
            [
                *(one.users[block] @ one.items.T for one in vectors.values()),
                coded.users[users] @ coded.items.T,
                neighbours.score(users),
                np.broadcast_to(values, (len(users), len(values))),
            ]
        )  # [S, users of the block, I]
        units = units if len(units) else scores.std(axis=2, dtype=np.float64).mean(axis=1) + 1e-9
        scores /= units[:, None, None].astype(np.float32)
        left_out, rows = validation.excluded.select_users(block), np.arange(len(block))[:, None]
        is_open = np.ones(scores.shape[1:], np.bool_)
        is_open[left_out.users, left_out.items] = False
        depth = min(_DEPTH * LENGTH, len(values))
        best = np.argpartition(np.where(is_open, -scores, np.inf), depth - 1, axis=2)[:, :, :depth]
        chosen = np.sort(np.concatenate(best, axis=1), axis=1)
        is_own = chosen == items[:, None]
        is_counted = (np.diff(chosen, axis=1, prepend=-1) > 0) & ~is_own & is_open[rows, chosen]
        margins = scores[:, rows, chosen] - scores[:, rows, items[:, None]]
        blocks.append((np.moveaxis(margins, 0, 2), is_counted, is_own.any(axis=1)))
    return Lists(*(np.concatenate(column) for column in zip(*blocks, strict=True))), units


def _prior(weight: float) -> Prior:
    """Returns popularity; without times every event is as old as any other."""
    return Prior(popularity=weight, recent=0.0, half_life_days=1e6)


def sample_last_events(split: Split, count: int) -> Split:
    """Returns the split with the events of its last day of at most `count` users, evenly spaced, and all earlier ones."""
    day = split.time_s // SECONDS_PER_DAY
    is_last = day == day.max()
    users = np.unique(split.user[is_last])
    chosen = users[np.unique(np.linspace(0, len(users) - 1, min(len(users), count)).astype(np.int64))]
    kept = ~is_last | np.isin(split.user, chosen)
    return replace(split, user=split.user[kept], item=split.item[kept], time_s=split.time_s[kept])


def _search(name: str, split: Split, settings: Settings) -> tuple[Settings, ByVectors, ValidationSet]:
    """Returns the settings with the best number of epochs, its vectors fitted to the days before the last one, and the last day."""
    settings = settings.with_model(targets=Targets.NEW)
    data = split_tables(split, None, settings).train_data()
    result = fit(
        data,
        model=settings.model,
        training=settings.with_training(validation_days=1, patience=PATIENCE, refit=False).training,
        seed=0,
        context=FitContext(progress=print_progress(name), ks=KS),
    )
    best = max(result.scores, key=lambda score: score.hit_rate).epoch
    _print(f"{name}: {best} epochs{', the most that are tried' * (best == settings.training.epochs)}")
    validation = ValidationSet(data, data.num_days - 1, Targets.NEW)
    users = np.concatenate(list(user_blocks(result.two_tower, validation)))
    return settings.with_training(epochs=best), ByVectors(users, item_vectors(result.two_tower, validation)), validation


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
