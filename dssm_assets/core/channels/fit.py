"""Fits the weights of a merge on held-out days, by logistic regression of interactions on the channels' signals.

The weights are a maximum a posteriori estimate: each has a normal prior around its default, or around its value from other
days. So few held-out pairs move them little, and a signal absent from the held-out days keeps its default.

Shapes: U users, B users of a block, C candidates, N rows, S signals, F terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
from scipy.special import expit
from threadpoolctl import threadpool_limits

from dssm_assets.core.arrays.ragged import ItemSets, Mask, row_blocks
from dssm_assets.core.channels.channel import Channel, Float64Array
from dssm_assets.core.channels.merge import (
    DEFAULT_WEIGHTS,
    IS_OWN_ITEM,
    RANK_OF_NEIGHBORS,
    RANK_OF_VECTORS,
    SIMILARITY_OF_NEIGHBORS,
    Candidates,
    Merge,
    Term,
    find_candidates,
    signals_of,
)
from dssm_assets.core.config.channels import ChannelName

PRIOR_PAIRS: Final = 20.0
"""How many pairs the defaults are worth."""
ROWS_PER_USER: Final = 80
"""Sampled candidates of a user in a fit, besides the positive candidates; weighted to represent all others."""
MAX_STEPS: Final = 50
_DECIMALS: Final = 9
"""Decimals of a stored weight. The last digits of a float64 depend on where in memory a process has its arrays."""
_BLOCK_USERS: Final = 64


@dataclass(frozen=True)
class HeldOutDay:
    """A day for fitting weights.

    Attributes:
        channels: as they were at the beginning of the day.
        truth: each user's items on the day; -1 is an item outside the corpus. Users without items are skipped.
    """

    channels: tuple[Channel, ...]
    truth: ItemSets


class _Rows(NamedTuple):
    signals: Float64Array  # [S, N]
    is_positive: Mask  # [N]
    weight: Float64Array  # [N], number of candidates that each represents


def fit_merges(
    days: Sequence[HeldOutDay], start: Sequence[Merge], on_read: Callable[[int], None] = lambda users: None
) -> list[Merge]:
    """Fits the merge of all channels, and the merges without each channel.

    A merge is fitted on the candidates of its own channels, because it ranks no others. If the days have no vectors, their
    weight follows from the weight of `item_to_item` (`_stand_in`).

    Args:
        days: one or more, with the same channels each; `vectors` may be missing.
        start: merges with the prior's weights: defaults, or fitted on other days.
        on_read: called with the number of users of each block of candidates.
    """
    known = [channel.name for channel in days[0].channels]
    rows: list[list[_Rows]] = [[] for _ in start]
    for day in days:
        with_truth = np.flatnonzero(day.truth.lengths)
        for block in row_blocks(len(with_truth), _BLOCK_USERS):
            users = with_truth[block]
            candidates = find_candidates(day.channels, users)
            is_positive = day.truth.select_users(users).contains(np.arange(len(users))[:, None], candidates.items)  # [B, C]
            for merge, found in zip(start, rows, strict=True):
                found.append(_choose_rows(merge, candidates, is_positive))
            on_read(len(users))
    with threadpool_limits(1, user_api="blas"):  # more gain nothing, and beside other processes take 20 times as long
        return [_fit_merge(merge, known, found) for merge, found in zip(start, rows, strict=True)]


def _choose_rows(merge: Merge, candidates: Candidates, is_positive: Mask) -> _Rows:
    """Takes a merge's positive candidates, and a sample of the others."""
    items, signals = candidates.of_channels(merge.channels)
    chosen, weight = _sample((items >= 0) & ~is_positive)
    chosen |= (items >= 0) & is_positive
    weights = np.where(is_positive, 1.0, weight[:, None])[chosen]
    return _Rows(np.array([values[chosen] for values in signals]), is_positive[chosen], weights)


def _fit_merge(merge: Merge, known: Sequence[ChannelName], rows: Sequence[_Rows]) -> Merge:
    signals, is_positive, weight = (np.concatenate(column, axis=-1) for column in zip(*rows, strict=True))
    if not is_positive.any():
        return merge
    by_name = dict(zip(signals_of([name for name in merge.channels if name in known]), signals, strict=True))
    lacks_vectors = ChannelName.VECTORS in merge.channels and ChannelName.VECTORS not in known
    # Two signals of neighbours say nearly the same. The vectors take over the signal of `_stand_in`.
    terms = [
        term for term in merge.weights if _is_known(term, known) and not (lacks_vectors and SIMILARITY_OF_NEIGHBORS in term)
    ]
    values = np.stack([by_name[one] if other is None else by_name[one] * by_name[other] for one, other in terms], axis=1)
    intercept, found = fit_logistic(values, is_positive, weight, np.array([merge.weights[term] for term in terms]))
    weights = {**merge.weights, **dict(zip(terms, found.round(_DECIMALS).tolist(), strict=True))}
    if ChannelName.VECTORS not in known:
        weights = _stand_in(weights)
    return replace(merge, weights=weights, intercept=round(intercept, _DECIMALS))


def _stand_in(weights: Mapping[Term, float]) -> dict[Term, float]:
    """Gives the vectors the weight fitted for `item_to_item`, if it is above 0, and sets that channel's to 0.

    Both list items that go with the user's. Beside neighbours whose weight was fitted alone, vectors with a weight of their own would
    push own items out of the list. Like the neighbours, they then say nothing of own items.
    """
    vectors, neighbors = Term(RANK_OF_VECTORS), Term(RANK_OF_NEIGHBORS)
    changed = dict(weights)
    if vectors in weights and neighbors in weights:
        is_useful = weights[neighbors] > 0
        changed |= {vectors: weights[neighbors] if is_useful else DEFAULT_WEIGHTS[vectors], neighbors: 0.0}
    own_vectors = Term(RANK_OF_VECTORS, IS_OWN_ITEM)
    if own_vectors in weights:
        changed[own_vectors] = -changed[vectors]
    return changed


def _is_known(term: Term, known: Sequence[ChannelName]) -> bool:
    """Returns whether the held-out days can tell a weight.

    Without vectors only the signals, and their products with own items: other products would be fitted to lists that lack the vectors'
    items, and then rank these.
    """
    is_settled = ChannelName.VECTORS in known or term.other is None or IS_OWN_ITEM in term
    return is_settled and all(signal.channel in known for signal in term if signal is not None)


def fit_logistic(
    values: Float64Array, is_positive: Mask, weight: Float64Array, defaults: Float64Array
) -> tuple[float, Float64Array]:
    """Returns intercept and weights [F] of the regularised logistic regression, by Newton's method with halved steps.

    Minimises sum_n weight_n * log-loss_n + PRIOR_PAIRS / 2 * sum_f (deviation_f * (w_f - default_f))^2, where deviation_f is the
    standard deviation of term f.

    Args:
        values: float64 [N, F].
        is_positive: bool [N], at least one is true.
        weight: float64 [N].
        defaults: float64 [F].
    """
    total = weight.sum()
    mean = weight @ values / total
    deviation = np.sqrt(weight @ (values - mean) ** 2 / total)
    is_used = deviation > 1e-9
    rows = np.concatenate([np.ones((len(values), 1)), (values[:, is_used] - mean[is_used]) / deviation[is_used]], axis=1)
    penalty = np.append(0.0, np.full(is_used.sum(), PRIOR_PAIRS))
    base = np.append(0.0, (defaults * deviation)[is_used])
    positives = weight @ is_positive

    def loss(at: Float64Array) -> float:
        odds = rows @ at
        return float(weight @ (np.logaddexp(0.0, odds) - is_positive * odds) + 0.5 * penalty @ (at - base) ** 2)

    found = base + np.append(np.log(positives / max(total - positives, 1.0)), np.zeros(is_used.sum()))
    current = loss(found)
    for _ in range(MAX_STEPS):
        chance = expit(rows @ found)
        gradient = (weight * (chance - is_positive)) @ rows + penalty * (found - base)
        curvature = (rows * (weight * chance * (1.0 - chance))[:, None]).T @ rows + np.diag(penalty + 1e-9)
        step = np.linalg.solve(curvature, gradient)
        while (now := loss(found - step)) > current and np.abs(step).max() > 1e-9:
            step /= 2
        if now > current:
            break
        found, change, current = found - step, current - now, now
        if change < 1e-6 * max(current, 1.0):
            break
    weights = defaults.copy()
    weights[is_used] = found[1:] / deviation[is_used]
    return float(found[0] - weights[is_used] @ mean[is_used]), weights


def _sample(is_row: Mask) -> tuple[Mask, Float64Array]:
    """Keeps about ROWS_PER_USER of the marked entries of each row, evenly spaced. Returns their mask, and the number of entries that each represents."""
    count = is_row.sum(axis=1)
    step = (np.minimum(count, ROWS_PER_USER) / np.maximum(count, 1))[:, None]
    place = np.cumsum(is_row, axis=1) - 1
    # An entry is kept where place * kept / count passes a whole number.
    is_kept = is_row & (np.floor((place + 1) * step + 1e-9) > np.floor(place * step + 1e-9))
    return is_kept, count / np.maximum(is_kept.sum(axis=1), 1)
