"""The untrained floor of a file of sequences: counts of what came next, which nearly solve public next-item tables.

    score(j) = sum over the user's last three items i, the r-th from the end, of (t(i, j) + s(i, j) + a(i, j)) / r

t(i, j): the sum of 1 / d over users and events of j that come d events after one of i, up to five, per user of i.
s(i, j): damped cosine, common users / sqrt((users of i + 5) (users of j + 5)).
a(i, j): cosine of the items' attributes, weighted by ln(items / items with the attribute), if a file has them.

Shapes: E events, U users, I items, A attributes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import scipy.sparse as sp

from dssm_assets.core.evaluation.item_neighbors import DAMPING
from dssm_assets_tests.benchmarks.quality_data import Split, interactions, popularity, read_cells
from dssm_assets_tests.benchmarks.quality_ours import count_following, weigh_last
from dssm_assets_tests.benchmarks.quality_scores import ByScores

STEPS: Final = 5
"""Events after an item within which another one counts."""
LAST_ITEMS: Final = 3


def _of_distance(gaps: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return 1.0 / (gaps + 1.0)


def fit_floor(split: Split, known: Split, attributes: Any = None) -> ByScores:
    """Returns the floor of a training part for users as `known`; `attributes` as of `read_attributes`."""
    users = popularity(split)
    matrix = interactions(split)
    common = (matrix.T @ matrix).tocsr()
    common.setdiag(0.0)
    damped = sp.diags((users + DAMPING) ** -0.5)
    weights = sp.diags(1.0 / np.maximum(users, 1.0)) @ count_following(split, STEPS, _of_distance) + damped @ common @ damped
    if attributes is not None:
        alike = (attributes @ attributes.T).tocsr()
        alike.setdiag(0.0)
        weights = weights + alike
    last, weights = weigh_last(known, LAST_ITEMS, _of_distance), weights.tocsr()
    return ByScores(lambda rows: np.asarray((last[rows] @ weights).toarray()))


def read_attributes(path: Path, sequences: Path, split: Split) -> Any:
    """Returns unit rows of the items' attributes, csr [I, A], from lines "item attribute attribute ..."; others have none."""
    items = np.unique([item for _, _, item, _ in read_cells(sequences)])[split.item_ids]
    number = {item: row for row, item in enumerate(items.tolist())}
    cells = sorted({(number[item], name) for _, item, name, _ in read_cells(path) if item in number})
    rows = [row for row, _ in cells]
    names, columns = np.unique([name for _, name in cells], return_inverse=True)
    values = np.log(len(items) / np.bincount(columns))[columns]
    found = sp.csr_matrix((values, (rows, columns)), (len(items), len(names)))
    lengths = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    return sp.diags(1.0 / np.maximum(lengths, 1e-12)) @ found
