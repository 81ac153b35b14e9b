"""The peers: what a user could choose instead, each with settings chosen on the inner split.

A peer whose library is not installed is reported as missing; the extra `bench` brings all of them.

Samples per CPU-second: training events times passes over them (RecTools: one triplet per user and epoch) over the CPU time
of the process.

Belongs here: fitting the peers. Does not belong here: scoring them (`quality_scores.py`), their settings
(`quality_settings.py`).

Shapes: E events, U users, I items.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from dssm_assets_tests.benchmarks.quality_features import Entities
from dssm_assets_tests.benchmarks.quality_lightgcn import fit_lightgcn
from dssm_assets_tests.benchmarks.quality_rectools import fit_rectools, fit_sasrec
from dssm_assets_tests.benchmarks.quality_scores import ByScores, ByVectors, Recommender
from dssm_assets_tests.benchmarks.quality_splits import Ints, Split

Settings = dict[str, Any]
MAX_ITEMS = 12_500
"""Items up to which EASE, whose memory is their square, and LightGCN, which reads the whole graph for each batch, are fitted."""


@dataclass(frozen=True)
class Peer:
    """One recommender of another library.

    Attributes:
        name: in the tables.
        needs: the module that must be installed; empty if none.
        fit: split, settings, seed, features -> the fitted recommender and samples per CPU-second.
        is_seeded: whether it depends on the seed.
        max_items: of more items its memory or time would be too large; None: any number.
        needs_side: it reads the tables of users and items.
        texts_only: it has settings for text files alone.
    """

    name: str
    needs: str
    fit: Callable[[Split, Settings, int, Entities | None], tuple[Recommender, float]]
    is_seeded: bool = True
    max_items: int | None = None
    needs_side: bool = False
    texts_only: bool = False

    @property
    def is_installed(self) -> bool:
        """Whether its library can be imported."""
        try:
            return not self.needs or bool(importlib.import_module(self.needs))
        except ImportError:  # the library, or one that it needs
            return False

    def find_obstacle(self, num_items: int, *, has_side: bool) -> str | None:
        """Returns why it can not be fitted; None: it can."""
        if not self.is_installed:
            return f"{self.needs} is not installed"
        if self.max_items is not None and num_items > self.max_items:
            return f"{num_items:,} items are more than {self.max_items:,}"
        if self.texts_only and has_side:
            return "its settings are for text files"
        return "the data set has no tables of users and items" if self.needs_side and not has_side else None


def interactions(split: Split) -> csr_matrix:
    """Returns the interactions, float32 [U, I] of zeros and ones."""
    ones = np.ones(len(split.user), np.float32)
    return csr_matrix((ones, (split.user, split.item)), shape=(len(split.user_ids), len(split.item_ids)))


def fit_popularity(split: Split, settings: Settings, seed: int, entities: Entities | None) -> tuple[Recommender, float]:
    """Returns the list of the most frequent items, for every user the same."""
    del settings, seed, entities
    begin = time.process_time()
    counts = np.bincount(split.item, minlength=len(split.item_ids)).astype(np.float64)
    speed = len(split.user) / max(time.process_time() - begin, 1e-9)
    return ByScores(lambda users: np.broadcast_to(counts, (len(users), len(counts)))), speed


def fit_ease(split: Split, settings: Settings, seed: int, entities: Entities | None) -> tuple[Recommender, float]:
    """Returns EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equation 8)."""
    del seed, entities
    begin = time.process_time()
    matrix = interactions(split)
    gram = (matrix.T @ matrix).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += settings["l2"]
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)  # [I, I]
    np.fill_diagonal(weights, 0.0)
    speed = len(split.user) / (time.process_time() - begin)

    def score(users: Ints) -> Any:
        return matrix[users] @ weights

    return ByScores(score), speed


def fit_als(split: Split, settings: Settings, seed: int, entities: Entities | None) -> tuple[Recommender, float]:
    """Returns implicit's alternating least squares (Hu, Koren and Volinsky 2008)."""
    del entities
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings, random_state=seed, num_threads=1, use_gpu=False)
    begin = time.process_time()
    model.fit(interactions(split), show_progress=False)
    speed = len(split.user) * settings["iterations"] / (time.process_time() - begin)
    return ByVectors(np.asarray(model.user_factors), np.asarray(model.item_factors)), speed


PEERS = (
    Peer("popularity", "", fit_popularity, is_seeded=False),
    Peer("ease", "", fit_ease, is_seeded=False, max_items=MAX_ITEMS),
    Peer("als", "implicit", fit_als),
    Peer("rectools", "rectools.models", fit_rectools, needs_side=True),
    Peer("sasrec", "rectools.models.nn.transformers.sasrec", fit_sasrec, texts_only=True),
    Peer("lightgcn", "", fit_lightgcn, max_items=MAX_ITEMS, texts_only=True),
)
