"""Generated data of the bench and its sizes: raw columns with feature definitions, training tables, vectors. Seeded.

Letters: E samples, U users, I items, D vector width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from dssm_assets.core.config.evaluation import IndexKind
from dssm_assets.core.errors import Fault, InputError
from dssm_assets.core.models.tower_spec import TowerFeature, TowerSide


@dataclass(frozen=True)
class BenchSizes:
    """Sizes of one bench; the defaults take half a minute to a minute on one core.

    Attributes:
        rows: rows of feature generation.
        samples: training samples of one epoch.
        users: users of the training data, whose vectors are computed too.
        items: items of the training data, whose vectors are computed too.
        corpus: items that are searched.
        queries: users that search.
        dims: width of the vectors.
        k: length of the lists.
        seed: seed of the data and of training.
    """

    rows: int = 500_000
    samples: int = 200_000
    users: int = 20_000
    items: int = 20_000
    corpus: int = 200_000
    queries: int = 2_048
    dims: int = 64
    k: int = 200
    index: IndexKind = IndexKind.IVF
    threads: int = 1
    seed: int = 17

    def __post_init__(self) -> None:
        """Checks the sizes.

        Raises:
            InputError: naming every size that is too small.
        """
        least = {"samples": 64, "dims": 2, "corpus": 64}
        counts = {name: value for name, value in vars(self).items() if isinstance(value, int) and name != "seed"}
        faults = [
            Fault(f"bench, {name}", f"at least {least.get(name, 1)}", str(value), "choose a larger size")
            for name, value in counts.items()
            if value < least.get(name, 1)
        ]
        if self.k > self.corpus:
            faults.append(Fault("bench, k", f"at most the corpus, {self.corpus}", str(self.k), "choose shorter lists"))
        InputError.raise_if(faults)


CATEGORIES: Final = (5, 20, 60, 200, 1_000, 5_000, 20_000, 100_000)
"""Number of distinct values of each categorical column."""
NUMBERS: Final = 8
_TAGS: Final = 500
_MAX_TAGS: Final = 5
_DAY_MS: Final = 86_400_000
_DAYS: Final = 30
_DIRECTIONS: Final = 16
_USER: Final = (2, 8, 100, 1_000, 10_000)
_ITEM: Final = (5, 50, 1_000)
_WIDTH: Final = 16


def feature_definitions() -> dict[str, Any]:
    """Returns an fg.json of 19 features: 8 categories, 8 numbers, 2 combinations, 1 list of tags."""
    hashed = {"hash_bucket_size": 100_000}
    categories = [
        {
            "feature_name": f"cat_{place}",
            "feature_type": "id_feature",
            "expression": f"user:cat_{place}",
            "value_dim": 1,
            **hashed,
        }
        for place in range(len(CATEGORIES))
    ]
    bounds = {"boundaries": [1, 5, 10, 20, 50, 100]}
    numbers = [
        {"feature_name": f"num_{place}", "feature_type": "raw_feature", "expression": f"user:num_{place}", **bounds}
        for place in range(NUMBERS)
    ]
    combos = [
        {
            "feature_name": f"combo_{a}",
            "feature_type": "combo_feature",
            "expression": [f"user:cat_{a}", f"user:cat_{b}"],
            **hashed,
        }
        for a, b in ((1, 2), (3, 0))
    ]
    tags = {"feature_name": "tags", "feature_type": "id_feature", "expression": "user:tags", **hashed}
    return {"features": [*categories, *numbers, *combos, tags]}


def raw_rows(rows: int, seed: int) -> pa.Table:
    """Returns the columns that `feature_definitions` reads."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {}
    for place, count in enumerate(CATEGORIES):
        values = pa.array([f"cat_{place}_value_{number}" for number in range(count)])
        columns[f"cat_{place}"] = values.take(pa.array(_skewed(rng, count, rows)))
    for place in range(NUMBERS):
        columns[f"num_{place}"] = pa.array(rng.lognormal(3.0, 1.0, rows))
    lengths = rng.integers(0, _MAX_TAGS + 1, rows)
    words = pa.array([f"tag_{number}" for number in range(_TAGS)]).take(pa.array(_skewed(rng, _TAGS, int(lengths.sum()))))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.table({**columns, "tags": pa.ListArray.from_arrays(pa.array(offsets), words)})


def tower_features(items: int) -> list[TowerFeature]:
    """Returns the features of both towers: five of users, the item and three of its attributes, the items of the history."""
    sizes = [(f"user_{place}", TowerSide.USER, size) for place, size in enumerate(_USER)]
    sizes += [
        ("item", TowerSide.ITEM, items + 1),
        *((f"item_{place}", TowerSide.ITEM, size) for place, size in enumerate(_ITEM)),
    ]
    features = [_feature(name, side, name, size) for name, side, size in sizes]
    return [*features, _feature("history__item", TowerSide.SEQUENCE, "item", items + 1)]


def training_tables(sizes: BenchSizes, seed: int) -> dict[str, pa.Table]:
    """Returns the tables of `TrainData`. Every sample is an event of its user's history and sees the earlier events."""
    rng = np.random.default_rng(seed)
    events, users, items = sizes.samples, sizes.users, sizes.items
    user = np.sort(_skewed(rng, users, events)).astype(np.int32)
    item = _skewed(rng, items, events).astype(np.int32)
    time_ms = rng.permutation(events) * (_DAYS * _DAY_MS // events)
    time_ms = time_ms[np.lexsort((time_ms, user))]
    by_time = np.argsort(time_ms)
    starts = np.searchsorted(user, np.arange(users + 1))
    item_columns = {"item": np.arange(1, items + 1, dtype=np.int32)}
    item_columns |= {f"item_{place}": _indices(rng, size, items) for place, size in enumerate(_ITEM)}
    samples = {
        "item_index": item[by_time],
        "user_index": user[by_time],
        "history_end": by_time,
        "weight": np.ones(events, np.float32),
        "event_time_ms": time_ms[by_time],
        "day": (time_ms[by_time] // _DAY_MS).astype(np.int32),
        "user_row": user[by_time],
        "item_row": item[by_time],
    }
    return {
        "samples": pa.table(samples),
        "user_rows": pa.table({f"user_{place}": _indices(rng, size, users) for place, size in enumerate(_USER)}),
        "item_rows": pa.table(item_columns),
        "items": pa.table({"weight": np.bincount(item, minlength=items) + 1.0, **item_columns}),
        "users": pa.table({"history_start": starts[:-1], "history_end": starts[1:]}),
        "history": pa.table({"item_index": item, "event_time_ms": time_ms, "history__item": item + np.int32(1)}),
    }


def unit_vectors(count: int, dims: int, seed: int) -> npt.NDArray[np.float32]:
    """Returns vectors of length 1 [count, dims] close to a subspace of 16 dimensions, like the output of towers."""
    rng = np.random.default_rng(seed)
    space = np.random.default_rng(0).standard_normal((_DIRECTIONS, dims))
    rows = rng.standard_normal((count, _DIRECTIONS)) @ space + 0.3 * rng.standard_normal((count, dims))
    vectors: npt.NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return vectors


def _feature(name: str, side: TowerSide, embedding: str, size: int) -> TowerFeature:
    return TowerFeature(name=name, side=side, embedding_name=embedding, embedding_dim=_WIDTH, num_embeddings=size)


def _indices(rng: np.random.Generator, size: int, count: int) -> npt.NDArray[np.int32]:
    return rng.integers(0, size, count, dtype=np.int32)


def _skewed(rng: np.random.Generator, size: int, count: int) -> npt.NDArray[np.int64]:
    """Returns numbers below size; r is drawn with probability proportional to 1 / (r + 20)."""
    below = np.cumsum(1.0 / (np.arange(size) + 20.0))
    return np.minimum(np.searchsorted(below / below[-1], rng.random(count), side="right"), size - 1)
