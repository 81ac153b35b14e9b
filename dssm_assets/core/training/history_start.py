"""Where the embeddings of past items start: at the codes that keep most of what pooled histories hold.

A user vector is one short vector for hundreds of own items among tens of thousands, and codes drawn at random keep a share
of sqrt(width / items) of it. The best codes are known in closed form. Let X hold the weights with which users' histories are
pooled, users by items. Q with orthonormal columns keeps most of X, in squares, when it spans the leading right singular
vectors of X; then user X Q meets item Q in X Q Q', which is near X: own items first, and behind them those of similar users.
Every basis of that span gives the same products, so it is found by orthogonal iteration

    Q <- orth(X' X Q)

where X Q is a look-up of all users' histories and X' (X Q) its gradient, as in a step of training. Cremonesi et al. 2010
("PureSVD") recommend by X Q Q' alone; here it is where learning starts.

Belongs here: the codes, and towers that begin with them. Does not belong here: what a pooling is (`models/history_pooling`),
that both towers read the codes alike (`models/skip_start`).

Letters: U users, V users of a block, n events, I items, N rows of the table, d its width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dssm_assets.core.errors import Fault
from dssm_assets.core.models.bags import Bags, IntArray, row_of
from dssm_assets.core.models.embedding import weighted_sums
from dssm_assets.core.models.tower_spec import Side, TowerFeature, TowerSpec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.train_data import TrainData
from dssm_assets.core.training_config import HistoryStart

_MOST_EVENTS = 1 << 25
"""That are held, 12 bytes each; of more the users are thinned out evenly."""
_BLOCK_EVENTS = 1 << 20
_BLOCK_ITEMS = 1 << 16
_REMEDY = "name a shared embedding, or unset training.history_start"


def start_faults(spec: TowerSpec, start: HistoryStart) -> list[Fault]:
    """Returns what keeps these towers from beginning at codes."""
    where, faults = "training.history_start", []
    if len(_features(spec, start)) < 2:
        shared = sorted({f.embedding_name for f in spec.sequences} & {f.embedding_name for f in spec.of(Side.ITEM)})
        expected = "an embedding that the history, in a pooling without attention, shares with a single-valued item feature"
        faults.append(
            Fault(f"{where}.embedding", expected, f"{start.embedding}; shared: {', '.join(shared) or 'none'}", _REMEDY)
        )
    if not spec.skip:
        faults.append(Fault(where, "model.skip, which begins both towers as one map", "skip is off", "set model.skip"))
    return faults


def start_at_codes(towers: TwoTower, data: TrainData, start: HistoryStart, ends: IntArray) -> None:
    """Has an embedding of past items begin at its codes, times the scale, and the layers beside the skips at 0 for them.

    What the layers make of the codes at random would only blur them.

    Args:
        towers: changed; without faults (`start_faults`).
        data: histories and corpus.
        start: which embedding, how large, how many passes.
        ends: where the events end that may be looked at, of each user [U].
    """
    past, item = _features(towers.spec, start)[:2]
    drawn = torch.empty(item.num_embeddings, item.embedding_dim).normal_(generator=torch.Generator().manual_seed(0))
    is_own = torch.from_numpy(_is_own_row(data, item))
    codes = leading_codes(_histories(data, past, ends), drawn * is_own[:, None], start.passes)
    base, table = towers.tables.bases[item.embedding_name], towers.tables.table(item.embedding_dim)
    with torch.no_grad():
        table[base + 1 : base + item.num_embeddings] = start.scale * codes[1:].to(table.device)
        for tower in (towers.user_tower, towers.item_tower):
            tower.linears[0].weight[:, tower.taste_columns] = 0.0


def leading_codes(histories: Sequence[Bags], drawn: Tensor, passes: int) -> Tensor:
    """Returns codes [N, d] whose products keep most of the histories, as far as so many passes find them.

    By hand: two users, one with items 1 and 2 and one with item 3, weights (1, 1, 0) and (0, 0, .5). Codes of width 1 are
    (.71, .71, 0), up to their sign: who took item 1 meets 1 and 2 alike, and item 3 has no room.

    Args:
        histories: of all users, some after the others.
        drawn: where the iteration starts; a row of zeros has no code and is not looked at [N, d].
        passes: 1 or more.
    """
    has_code = (drawn.abs().sum(1) > 0)[:, None]
    codes = _orthonormal(drawn) * has_code
    for _ in range(passes):
        found = torch.zeros_like(codes)
        for bags in histories:
            _add_part(found, codes, bags)
        # Columns that depend on others are filled up from anywhere, also from rows without a code.
        codes = _orthonormal(found * has_code) * has_code
    return codes


def _add_part(found: Tensor, codes: Tensor, bags: Bags) -> None:
    """Adds X' (X Q) of some users' histories."""
    if not len(bags.values):
        return
    pooled = weighted_sums(codes, bags.values, bags.offsets, bags.weights)  # X Q [V, d]
    order = np.argsort(bags.values, kind="stable")
    values, rows = bags.values[order], row_of(bags.offsets)[order]
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    offsets = np.append(starts, len(values))
    found.index_add_(0, torch.from_numpy(values[starts]), weighted_sums(pooled, rows, offsets, bags.weights[order]))


def _orthonormal(columns: Tensor) -> Tensor:
    """Returns an orthonormal basis of the columns' span; columns beyond the number of rows are 0 [N, d]."""
    basis = torch.linalg.qr(columns)[0]
    return functional.pad(basis, (0, columns.shape[1] - basis.shape[1]))


def _histories(data: TrainData, past: TowerFeature, ends: IntArray) -> list[Bags]:
    """Returns the first pooling's bags of a sub-feature, some users after the others."""
    place = data.spec.pooled_features.index(past)
    lengths = ends - data.user_starts
    every = 1 + int(lengths.sum()) // _MOST_EVENTS
    users = np.arange(0, len(ends), every)
    block = np.cumsum(lengths[users]) // _BLOCK_EVENTS
    parts = np.split(users, np.flatnonzero(np.diff(block)) + 1)
    return [data.history.read(data.user_starts[part], ends[part])[0][place] for part in parts]


def _is_own_row(data: TrainData, item: TowerFeature) -> np.ndarray:
    """Returns which rows stand for one item of the corpus alone: not those of unknown values and of collisions [N]."""
    place = [f for f in data.spec.of(Side.ITEM) if not f.is_multi].index(item)
    counts = np.zeros(item.num_embeddings, np.int64)
    for begin in range(0, data.num_items, _BLOCK_ITEMS):
        block = np.arange(begin, min(begin + _BLOCK_ITEMS, data.num_items))
        counts += np.bincount(data.read_items(block).singles[:, place], minlength=len(counts))
    counts[0] = 0
    return counts == 1


def _features(spec: TowerSpec, start: HistoryStart) -> list[TowerFeature]:
    """Returns the sub-feature as its first pooling reads it and the item feature of the embedding, as far as there are any."""
    past = [f for f in spec.pooled_features if f.embedding_name == start.embedding]
    item = [f for f in spec.of(Side.ITEM) if f.embedding_name == start.embedding and not f.is_multi]
    return [*past[:1], *item[:1]]
