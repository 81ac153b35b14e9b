"""Initial values of item embeddings: codes that keep as much as possible of the pooled histories.

A user vector is one short vector for hundreds of own items among tens of thousands. Random codes keep a share of sqrt(width
/ items) of it; the best codes are known in closed form. Let X hold the weights with which users' histories are pooled, users
by items. Q with orthonormal columns keeps most of X, in squares, when it spans the leading right singular vectors of X. Then
user X Q meets item Q in X Q Q', which is near X: own items first, then the items of similar users. Cremonesi et al. 2010
("PureSVD") recommend by X Q Q' alone; here training starts from it.

With a ridge the codes come from a ridge regression of histories on themselves (`shrink_codes`; EASE, Steck 2019, without its
zero diagonal), because directions shared by few users are noise for items outside the histories. A popularity exponent keeps
the leading directions from following only the most popular items.

An item without events has no code of its own. With `group_by` the histories get one more column per group of items with
equal attributes: the sum of the group's columns times w = GROUP_WEIGHT. An item's code is then its own code plus w times its
group's code. Without events it is w times its group's code, times GROUP_SCALE. This is one factorisation of histories times
(I, w C)', where C is 1 for an item and its group (LightFM, Kula 2015, in closed form).

Letters: U users, I items, N rows of the table, d its width, G groups, F features of a group.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import svds
from torch import nn

from dssm_assets.core.arrays.ragged import FloatArray, IntArray
from dssm_assets.core.config.training import SvdInit
from dssm_assets.core.errors import Fault
from dssm_assets.core.models.group_codes import GroupCodes
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide, TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.data import TrainData

_MAX_EVENTS = 1 << 25
"""Most events in memory, 12 bytes each. If there are more, an even sample of the users is used."""
_BLOCK_EVENTS = 1 << 20
_MAX_PRODUCTS = 4_000_000
"""Products of users and items by which codes are scaled."""
_MEAN_FRAC = 0.05
"""Share of the mean added to a sum before taking a negative power, because the power of 0 would be infinite."""
GROUP_WEIGHT = 0.05
"""Weight of a group's events, if an item's events weigh 1: the larger, the more items of one group are alike."""
GROUP_SCALE = 4.0
"""Factor of the code of an item without events: the towers say little reliable about such an item."""
MAX_STRENGTH = 5.0
"""Highest factor for the code of a group with few items without events."""
_SMALLEST = 1e-6
"""Share of the largest singular value below which a singular value is rounding."""


def write_codes(towers: TwoTower, data: TrainData, section: SvdInit, ends: IntArray) -> GroupCodes | None:
    """Overwrites an embedding of history items with its codes times the scale. Returns the codes of groups of items.

    The first layers' weights for the codes become 0, so that only the skip connections read them: random weights would add noise.

    Args:
        towers: changed; `svd_init_faults` must find no fault.
        ends: where each user's known events end [U].
    """
    sequence, item = find_coded_features(towers.spec, section)
    histories = pool_histories(data, sequence, ends).multiply(_is_own_row(data, item)).tocsr()
    width = item.embedding_dim
    weighed = divide_rows(histories, section.user_exponent)
    joint = weighed
    if section.group_by:
        keys, members, row, group = read_groups(data, item, section)
        joint = sp.hstack([weighed, weighed @ members]).tocsr()
    totals = np.asarray(joint.sum(axis=0)).ravel()
    found = item_codes(joint, totals, width, section)
    rows, group_codes = found[: item.num_embeddings], found[item.num_embeddings :]
    if section.group_by:
        rows = np.asarray(rows + members @ group_codes, np.float32)
    factor = section.scale if section.score_std is None else np.float32(scale_to_std(histories, rows, section.score_std))
    rows *= factor
    is_frozen = item.embedding_name == towers.spec.frozen_embedding
    known = np.arange(1, item.num_embeddings)
    base = towers.tables.bases[item.embedding_name]
    with torch.no_grad():
        towers.tables.write_rows(item.embedding_dim, base + known, torch.from_numpy(rows), known)
        for tower in () if is_frozen else (towers.user_tower, towers.item_tower):
            first: nn.Linear = tower.linears[0]  # type: ignore[assignment]
            first.weight[:, tower.shared_columns] = 0.0
    if not section.group_by:
        return None
    strength = GROUP_SCALE * GROUP_WEIGHT * factor * strength_of_groups(count_without_events(row, group, totals))
    return GroupCodes(tuple(section.group_by), keys, np.asarray(group_codes * strength[:, None], np.float32))


def svd_init_faults(spec: TowerSpec, section: SvdInit) -> list[Fault]:
    """Returns a fault for each reason why towers of this specification cannot start from codes."""
    where, faults = "training.svd_init", []
    shared = sorted({f.embedding_name for f in spec.sequences} & {f.embedding_name for f in spec.features_of(TowerSide.ITEM)})
    if len(find_coded_features(spec, section)) < 2:
        expected = "an embedding that the history, in a pooling without attention, shares with a single-valued item feature"
        got = f"{section.embedding}; shared: {', '.join(shared) or 'none'}"
        faults.append(Fault(f"{where}.embedding", expected, got, "name a shared embedding, or unset training.svd_init"))
    if section.group_by and spec.frozen_embedding is None:
        expected = "model.frozen_embedding, because codes changed by training no longer match their groups' codes"
        faults.append(Fault(f"{where}.group_by", expected, "none", "set it, or remove group_by"))
    known = [f.name for f in spec.features_of(TowerSide.ITEM) if not f.is_multi and f.embedding_name != section.embedding]
    if unknown := [name for name in section.group_by if name not in known]:
        expected = f"single-valued item features: {', '.join(known)}"
        faults.append(Fault(f"{where}.group_by", expected, ", ".join(unknown), "name such features"))
    if spec.frozen_embedding is not None:
        if section.embedding != spec.frozen_embedding:
            expected = f"{spec.frozen_embedding}, the embedding of model.frozen_embedding"
            faults.append(Fault(f"{where}.embedding", expected, section.embedding, "set both to the same embedding"))
        return faults
    width = sum(
        {f.embedding_name: f.embedding_dim for f in spec.features_of(TowerSide.ITEM) if f.embedding_name in shared}.values()
    )
    if spec.output_dim < width:
        expected = f"model.output_dim of at least {width}, an output for every column of the shared embeddings"
        faults.append(Fault(where, expected, str(spec.output_dim), "widen the vectors or narrow the embeddings"))
    if not spec.skip:
        expected = "model.skip, a residual connection that starts as the same map in both towers"
        faults.append(Fault(where, expected, "skip is off", "set model.skip"))
    return faults


def find_coded_features(spec: TowerSpec, section: SvdInit) -> list[TowerFeature]:
    """Returns the embedding's sub-feature in its first pooling, and its item feature; either may be missing."""
    sequence = [f for f in spec.pooled_features if f.embedding_name == section.embedding]
    item = [f for f in spec.features_of(TowerSide.ITEM) if f.embedding_name == section.embedding and not f.is_multi]
    return [*sequence[:1], *item[:1]]


def strength_of_groups(count: IntArray) -> npt.NDArray[np.float64]:
    """Returns the factor for each group's code on items without events [G].

    By hand: one group has 1 such item, another 4. The mean over these items is 17 / 5, so the strengths are the roots of 3.4
    and .85. They are at most MAX_STRENGTH, since items with a stronger code would outrank items with events. If there is no
    such item, all are 1.

    Args:
        count: items without events of each group [G].
    """
    mean = (count @ count) / count.sum() if count.any() else 1.0
    return np.minimum(np.sqrt(mean / np.maximum(count, 1)), MAX_STRENGTH)


def read_groups(
    data: TrainData, item: TowerFeature, section: SvdInit
) -> tuple[npt.NDArray[np.int32], sp.csr_matrix, IntArray, IntArray]:
    """Groups the items of the corpus by `section.group_by`.

    Returns:
        The keys of each group (`GroupCodes`), int32 [G, F]. The weight of a row's group, float32 [N, G]; 0 if the row has no item or
        several. Each item's row, int64 [I]; -1 if it has no row of its own. Each item's group, int64 [I].
    """
    found = data.item_keys((item.name, *section.group_by))
    row, (keys, group) = found[:, 0], np.unique(found[:, 1:].astype(np.int32), axis=0, return_inverse=True)
    group = group.reshape(-1)
    is_own = _is_own_row(data, item)[row] > 0
    cells = np.full(int(is_own.sum()), GROUP_WEIGHT, np.float32), (row[is_own], group[is_own])
    return keys, sp.csr_matrix(cells, (item.num_embeddings, len(keys))), np.where(is_own, row, -1), group


def count_without_events(row: IntArray, group: IntArray, totals: npt.NDArray[Any]) -> IntArray:
    """Counts each group's items without events [G]. For `row` and `group` see `read_groups`. `totals`: events of each row [N]."""
    is_known = (row >= 0) & (totals[row] > 0)
    return np.bincount(group[~is_known], minlength=1 + int(group.max(initial=-1)))


def item_codes(histories: sp.csr_matrix, totals: npt.NDArray[Any], width: int, section: SvdInit) -> FloatArray:
    """Returns the codes of these histories under the section's ridge and popularity exponent, float32 [N, d].

    Args:
        histories: weights of each user's values, float32 [U, N].
        totals: sums of the histories over users [N].
        section: with ridge 0 and exponent 0 the codes are the leading singular vectors.
    """
    factors = popularity_factors(totals, section.popularity_exponent)
    weighed = histories.multiply(factors).tocsr() if section.popularity_exponent else histories
    codes = leading_codes(weighed, width)
    if section.ridge:
        codes = shrink_codes(weighed, codes, section.ridge)
    return factors[:, None] * codes


def divide_rows(histories: sp.csr_matrix, exponent: float) -> sp.csr_matrix:
    """Divides each user's weights [U, N] by a power of their sum.

    By hand: weights 1, 1, 1 and 1 become .5 each with exponent .5.
    """
    if not exponent:
        return histories
    sums = np.asarray(histories.sum(axis=1)).ravel()
    factors = np.where(sums > 0, sums, 1.0) ** -exponent
    return sp.csr_matrix(sp.diags_array(factors.astype(np.float32)) @ histories)


def scale_to_std(histories: sp.csr_matrix, codes: FloatArray, wanted: float) -> float:
    """Returns a factor for the codes, so that the products of a user with all items have the wanted mean standard deviation.

    A user's vector is a row of `pool_histories` divided by the root of its sum, as in the towers. Only items in some history
    count, and an even sample of the users.

    By hand: three items are in histories, with codes (1), (1) and (0). A user with items 1 and 2 has the vector 2 / root 2. Its
    products are 1.41, 1.41 and 0, with deviation .667. If .06 is wanted, the factor is the root of .09.
    """
    sums = np.asarray(histories.sum(axis=1)).ravel()
    known = np.flatnonzero(np.asarray(histories.sum(axis=0)).ravel() > 0)
    users = np.flatnonzero(sums > 0)
    if not len(known) or not len(users):
        return 1.0
    users = users[:: 1 + len(users) // max(8, _MAX_PRODUCTS // len(known))]
    vectors = (histories[users] @ codes) / np.sqrt(sums[users])[:, None]
    spread = float((vectors @ codes[known].T).std(axis=1).mean())
    return float(np.sqrt(wanted / spread)) if spread > 0 else 1.0


def popularity_factors(totals: npt.NDArray[Any], exponent: float) -> FloatArray:
    """Returns (total / mean + .05) ** -exponent, float32 [N]. The mean is over items with a total above 0.

    By hand, with exponent .5 and totals 0, 1, 3: the mean is 2. So .05, .55 and 1.55 to the power -.5: 4.47, 1.35 and .80.
    """
    mean = totals.sum() / max(1, np.count_nonzero(totals))
    return np.asarray((totals / max(mean, _SMALLEST) + _MEAN_FRAC) ** -exponent, np.float32)


def shrink_codes(histories: sp.csr_matrix, codes: FloatArray, ridge: float) -> FloatArray:
    """Rotates the codes to singular vectors, and multiplies each by the root of s^2 / (s^2 + ridge), float32 [N, d].

    Multiplying histories by these codes and back gives the prediction of a ridge regression of the histories on themselves, within
    the span of the codes: X V diag(s^2 / (s^2 + ridge)) V'.

    By hand: histories (2, 0) and (0, 1), codes of length 1, ridge 2. s^2 is 4 and 1, so the factors are the roots of 2/3 and 1/3.
    """
    users = (histories @ codes).astype(np.float64)
    squares, rotation = np.linalg.eigh(users.T @ users)
    squares = np.maximum(squares, 0.0)
    return np.asarray(codes @ (rotation * np.sqrt(squares / (squares + ridge))), np.float32)


def leading_codes(histories: sp.csr_matrix, width: int) -> FloatArray:
    """Returns the leading right singular vectors of the histories, float32 [N, d]; columns beyond the rank are 0.

    By hand: one user has items 1 and 2, another item 3, with weights (1, 1, 0) and (0, 0, .5). Codes of width 1 are (.71, .71,
    0), up to their sign: items 1 and 2 are alike, and there is no room for item 3.

    Args:
        histories: weights, float32 [U, N].
    """
    codes, (least, _) = np.zeros((histories.shape[1], width), np.float32), sorted(histories.shape)
    if not histories.nnz:
        return codes
    if least <= width:
        _, values, rows = np.linalg.svd(histories.toarray().astype(np.float64), full_matrices=False)
    else:
        start = np.ones(least)  # else ARPACK begins with random numbers
        _, values, rows = svds(histories.astype(np.float64), k=width, v0=start, return_singular_vectors="vh")
    known = np.flatnonzero(values > _SMALLEST * values.max())
    codes[:, : len(known)] = rows[known].T
    codes[np.asarray(histories.sum(axis=0)).ravel() == 0] = 0.0  # exactly 0: an item without events has no code
    return codes


def pool_histories(data: TrainData, sequence: TowerFeature, ends: IntArray) -> sp.csr_matrix:
    """Returns the weight of each value in a user's history, as in the first pooling of a sub-feature, float32 [U, N].

    A user's weights are multiplied by their sum, because users with long histories also have more future interactions. For a
    root pooling this undoes the division by the root of the sum. For a mean pooling it changes nothing, because the sum is 1.
    """
    place = data.spec.pooled_features.index(sequence)
    lengths = ends - data.user_starts
    users = np.arange(0, len(ends), 1 + int(lengths.sum()) // _MAX_EVENTS)
    block = np.cumsum(lengths[users]) // _BLOCK_EVENTS
    parts = []
    for part in np.split(users, np.flatnonzero(np.diff(block)) + 1):
        bags = data.history.read(data.user_starts[part], ends[part]).bags[place]
        cells = bags.weights, bags.values.astype(np.int32), bags.offsets
        parts.append(sp.csr_matrix(cells, (len(part), sequence.num_embeddings)))
    pooled = sp.vstack(parts, format="csr")
    pooled.sum_duplicates()
    pooled.data *= np.repeat(np.asarray(pooled.sum(axis=1)).ravel(), np.diff(pooled.indptr))
    return pooled


def _is_own_row(data: TrainData, item: TowerFeature) -> npt.NDArray[np.float32]:
    """Returns 1 for rows with exactly one item of the corpus, 0 for unknown values and hash collisions [N]."""
    counts = np.bincount(data.item_keys((item.name,))[:, 0], minlength=item.num_embeddings)
    counts[0] = 0
    return np.asarray(counts == 1, np.float32)
