"""Where the embeddings of past items start: at the codes that keep most of what pooled histories hold.

A user vector is one short vector for hundreds of own items among tens of thousands, and codes drawn at random keep a share
of sqrt(width / items) of it. The best codes are known in closed form. Let X hold the weights with which users' histories are
pooled, users by items. Q with orthonormal columns keeps most of X, in squares, when it spans the leading right singular
vectors of X; then user X Q meets item Q in X Q Q', which is near X: own items first, and behind them those of similar users.
Every basis of that span gives the same products. It comes from the eigenvectors of X X', users by users; of many users some
are taken evenly, and one step of orthogonal iteration, Q <- orth(X' X Q), then hears all of them. Cremonesi et al. 2010
("PureSVD") recommend by X Q Q' alone; here it is where learning starts.

Beside it popularity may begin in a column of its own, which every user meets with the same number.

Where histories are to foretell other items than their own, directions that few of them share are chance. Under a ridge
codes are those of a regression of histories on themselves (`shrunk`; EASE, Steck 2019, without its zero diagonal), and a power of
takers keeps the directions from being those of what everybody takes. Such codes may also stay as they are, beside
the towers (`models/frozen_columns`).

Belongs here: the codes, and towers that begin with them. Does not belong here: what a pooling is (`models/history_pooling`),
that both towers read the codes alike (`models/skip_start`).

Letters: U users, I items, N rows of the table, d its width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from torch import nn

from dssm_assets.core.arrays.ragged import FloatArray, IntArray
from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.errors import Fault
from dssm_assets.core.models.skip_start import Coordinate
from dssm_assets.core.models.tower_spec import Side, TowerFeature, TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.data import TrainData

_MOST_EVENTS = 1 << 25
"""That are held, 12 bytes each; of more the users are thinned out evenly."""
_MOST_USERS = 4096
"""Whose products with one another are held, 8 bytes each."""
_BLOCK_EVENTS, _BLOCK_ITEMS = 1 << 20, 1 << 16
_CONSTANT = 10.0
"""What users hold where items hold their popularity: as large as what pooled codes are, so that all weights learn alike."""
_NEVER = 0.3
_FEW = 0.05
"""Of the mean: what is added to it before a power of it, which would be without bound for what nobody takes."""
_SMALLEST = 1e-9
"""Of the largest eigenvalue: what is less is rounding."""
_REMEDY = "name a shared embedding, or unset training.svd_init"


def start_faults(spec: TowerSpec, start: SvdInit) -> list[Fault]:
    """Returns what keeps these towers from beginning at codes."""
    where, faults = "training.svd_init", []
    if len(_features(spec, start)) < 2:
        shared = sorted({f.embedding_name for f in spec.sequences} & {f.embedding_name for f in spec.of(Side.ITEM)})
        expected = "an embedding that the history, in a pooling without attention, shares with a single-valued item feature"
        faults.append(
            Fault(f"{where}.embedding", expected, f"{start.embedding}; shared: {', '.join(shared) or 'none'}", _REMEDY)
        )
    if spec.frozen_embedding is not None:
        return faults + _held_faults(spec, start)
    shared_names = {f.embedding_name for f in spec.sequences}
    width = sum({f.embedding_name: f.embedding_dim for f in spec.of(Side.ITEM) if f.embedding_name in shared_names}.values())
    if spec.output_dim < width:
        expected = f"model.output_dim of at least {width}, an output for every place of a shared embedding"
        faults.append(Fault(where, expected, str(spec.output_dim), "widen the vectors or narrow the embeddings"))
    if not spec.skip:
        faults.append(Fault(where, "model.skip, which begins both towers as one map", "skip is off", "set model.skip"))
    return faults


def _held_faults(spec: TowerSpec, start: SvdInit) -> list[Fault]:
    """Returns what keeps codes from standing beside the towers."""
    where, faults = "training.svd_init", []
    if start.embedding != spec.frozen_embedding:
        remedy = "begin the embedding that model.frozen_embedding names"
        faults.append(Fault(f"{where}.embedding", str(spec.frozen_embedding), start.embedding, remedy))
    if start.popularity:
        remedy = "leave popularity to the towers or to model.prior"
        faults.append(Fault(f"{where}.popularity", "0: beside the towers stand codes alone", str(start.popularity), remedy))
    return faults


def init_from_codes(towers: TwoTower, data: TrainData, start: SvdInit, ends: IntArray) -> None:
    """Has an embedding of past items begin at its codes, times the scale, and the layers beside the skips at 0 for them.

    What the layers make of the codes at random would only blur them.

    Args:
        towers: changed; without faults (`start_faults`).
        data: histories and corpus.
        start: which embedding, how large.
        ends: where the events end that may be looked at, of each user [U].
    """
    past, item = _features(towers.spec, start)
    is_own = _is_own_row(data, item)
    histories = pooled_histories(data, past, ends).multiply(is_own).tocsr()
    width = item.embedding_dim - (start.popularity > 0)
    taken = np.asarray(histories.sum(axis=0)).ravel()
    rows = start.scale * start_codes(histories, taken, width, start)
    if start.popularity:
        rows = np.concatenate([rows, (start.popularity / _CONSTANT * log_counts(taken))[:, None]], axis=1)
        _add_constant(towers, (item.embedding_name, width))
    is_held = item.embedding_name == towers.spec.frozen_embedding
    known = np.arange(1, item.num_embeddings)
    base = towers.tables.bases[item.embedding_name]
    with torch.no_grad():
        towers.tables.put(item.embedding_dim, base + known, torch.from_numpy(rows), known)
        for tower in () if is_held else (towers.user_tower, towers.item_tower):
            first: nn.Linear = tower.linears[0]  # type: ignore[assignment]
            first.weight[:, tower.shared_columns] = 0.0


def start_codes(histories: sp.csr_matrix, taken: npt.NDArray[Any], width: int, start: SvdInit) -> FloatArray:
    """Returns the codes of these histories under the start's ridge and power of takers, float32 [N, d].

    Args:
        histories: weights, float32 [U, N].
        taken: their sums [N].
        width: d.
        start: with 0 and 0 the codes are the leading ones.
    """
    shares = taken_shares(taken, start.popularity_exponent)
    weighed = histories.multiply(shares).tocsr() if start.popularity_exponent else histories
    codes = leading_codes(weighed, width)
    if start.ridge:
        codes = shrunk(weighed, codes, start.ridge)
    return shares[:, None] * codes


def taken_shares(taken: npt.NDArray[Any], power: float) -> FloatArray:
    """Returns (taken / mean + .05) ** -power, the mean over items that were taken at all, float32 [N].

    By hand, with power .5 and 0, 1, 3: the mean is 2, so .05, .55 and 1.55, to the -.5: 4.47, 1.35 and .80.
    """
    mean = taken.sum() / max(1, np.count_nonzero(taken))
    return np.asarray((taken / max(mean, _SMALLEST) + _FEW) ** -power, np.float32)


def shrunk(histories: sp.csr_matrix, codes: FloatArray, ridge: float) -> FloatArray:
    """Returns the codes turned to singular vectors, each times the root of s^2 / (s^2 + ridge), float32 [N, d].

    The products of histories with these codes and back are what ridge regression of the histories on themselves foretells,
    as far as the codes reach: X V diag(s^2 / (s^2 + ridge)) V'.

    By hand: histories (2, 0) and (0, 1), codes of length 1 for both items, ridge 2: s^2 is 4 and 1, so the roots of 2/3
    and of 1/3.
    """
    seen = (histories @ codes).astype(np.float64)
    squares, turn = np.linalg.eigh(seen.T @ seen)
    squares = np.maximum(squares, 0.0)
    return np.asarray(codes @ (turn * np.sqrt(squares / (squares + ridge))), np.float32)


def log_counts(counts: npt.NDArray[Any]) -> FloatArray:
    """Returns ln(count + .3), as the prior has it (`models/prior`), less the mean, float32 [N].

    By hand: of counts 0 and 1 ln .3 = -1.204 and ln 1.3 = .262, so -.733 and .733.
    """
    values = np.log(counts + _NEVER)
    return np.asarray(values - values.mean(), np.float32)


def _add_constant(towers: TwoTower, coordinate: Coordinate) -> None:
    """Has every user begin with one number in the output in which items begin with this coordinate, whatever its past."""
    user, item = towers.user_tower, towers.item_tower
    assert user.skip is not None and item.skip is not None  # as `start_faults` demands
    output = int(item.skip.weight[:, towers.item_reading.taste.index(coordinate)].argmax())
    last: nn.Linear = user.linears[-1]  # type: ignore[assignment]
    with torch.no_grad():
        user.skip.weight[output] = 0.0
        last.bias[output] = _CONSTANT


def leading_codes(histories: sp.csr_matrix, width: int, most_users: int = _MOST_USERS) -> FloatArray:
    """Returns codes whose products keep most of the histories, float32 [N, d]; columns that nothing is left for are 0.

    By hand: two users, one with items 1 and 2 and one with item 3, weights (1, 1, 0) and (0, 0, .5). Codes of width 1 are
    (.71, .71, 0), up to their sign: who took item 1 meets 1 and 2 alike, and item 3 has no room.

    Args:
        histories: weights, float32 [U, N].
        width: d.
        most_users: that are looked at at once; of more these many decide alone but for a last step.
    """
    every = max(1, -(-histories.shape[0] // most_users))
    some = histories[::every]
    values, vectors = np.linalg.eigh((some @ some.T).toarray().astype(np.float64))  # ascending
    kept = np.flatnonzero(values > _SMALLEST * values.max(initial=0.0))[::-1][:width]
    codes = some.T @ (vectors[:, kept] / np.sqrt(values[kept])).astype(np.float32)
    if every > 1:
        codes = np.linalg.qr(histories.T @ (histories @ codes))[0]
    return np.pad(codes, ((0, 0), (0, width - codes.shape[1]))).astype(np.float32)


def pooled_histories(data: TrainData, past: TowerFeature, ends: IntArray) -> sp.csr_matrix:
    """Returns the weights with which the first pooling of a sub-feature reads each value, float32 [U, N].

    A user's weights are multiplied by their sum: who took more will take more, and is most of what is to be foretold. What a
    root has divided by the root of the sum is whole again; a mean stays as it is.
    """
    place = data.spec.pooled_features.index(past)
    lengths = ends - data.user_starts
    users = np.arange(0, len(ends), 1 + int(lengths.sum()) // _MOST_EVENTS)
    block = np.cumsum(lengths[users]) // _BLOCK_EVENTS
    parts = []
    for part in np.split(users, np.flatnonzero(np.diff(block)) + 1):
        bags = data.history.read(data.user_starts[part], ends[part])[0][place]
        parts.append(
            sp.csr_matrix((bags.weights, bags.values.astype(np.int32), bags.offsets), (len(part), past.num_embeddings))
        )
    found = sp.vstack(parts, format="csr")
    found.sum_duplicates()
    found.data *= np.repeat(np.asarray(found.sum(axis=1)).ravel(), np.diff(found.indptr))
    return found


def _is_own_row(data: TrainData, item: TowerFeature) -> npt.NDArray[np.float32]:
    """Returns 1 for rows that stand for one item of the corpus alone, 0 for those of unknown values and of collisions [N]."""
    place = [f for f in data.spec.of(Side.ITEM) if not f.is_multi].index(item)
    counts = np.zeros(item.num_embeddings, np.int64)
    for begin in range(0, data.num_items, _BLOCK_ITEMS):
        block = np.arange(begin, min(begin + _BLOCK_ITEMS, data.num_items))
        counts += np.bincount(data.read_items(block).singles[:, place], minlength=len(counts))
    counts[0] = 0
    return np.asarray(counts == 1, np.float32)


def _features(spec: TowerSpec, start: SvdInit) -> list[TowerFeature]:
    """Returns the embedding's sub-feature, as its first pooling reads it, and its item feature, as far as there are any."""
    past = [f for f in spec.pooled_features if f.embedding_name == start.embedding]
    item = [f for f in spec.of(Side.ITEM) if f.embedding_name == start.embedding and not f.is_multi]
    return [*past[:1], *item[:1]]
