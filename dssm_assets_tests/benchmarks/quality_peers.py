"""The peers: what a user could choose instead, each with settings chosen on the inner split.

A peer whose library is not installed is reported as missing; the extra `bench` brings all of them.

Samples per CPU-second: training events times passes over them, over the CPU time of the process.

Belongs here: fitting the peers. Does not belong here: scoring them (`quality_scores.py`), their settings
(`quality_settings.py`).

Shapes: E events, U users, I items.
"""

from __future__ import annotations

import importlib
import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from dssm_assets.core.arrays.ragged import Exclusions
from dssm_assets_tests.benchmarks.quality_scores import ByScores, ByVectors, Recommender
from dssm_assets_tests.benchmarks.quality_splits import Ints, Split

Settings = dict[str, Any]
MAX_ITEMS = 12_500
"""Items up to which EASE, whose memory is their square, is fitted."""


@dataclass(frozen=True)
class Peer:
    """One recommender of another library.

    Attributes:
        name: in the tables.
        needs: the module that must be installed; empty if none.
        fit: split, settings, seed -> the fitted recommender and samples per CPU-second.
        is_seeded: whether it depends on the seed.
        max_items: of more items its memory would be too large; None: any number.
        texts_only: it has settings for text files alone.
    """

    name: str
    needs: str
    fit: Callable[[Split, Settings, int], tuple[Recommender, float]]
    is_seeded: bool = True
    max_items: int | None = None
    texts_only: bool = False

    def find_obstacle(self, num_items: int, *, is_text: bool) -> str | None:
        """Returns why it can not be fitted; None: it can."""
        try:
            importlib.import_module(self.needs or "numpy")
        except ImportError:  # the library, or one that it needs
            return f"{self.needs} is not installed"
        if self.max_items is not None and num_items > self.max_items:
            return f"{num_items:,} items are more than {self.max_items:,}"
        return "its settings are for text files" if self.texts_only and not is_text else None


def interactions(split: Split) -> csr_matrix:
    """Returns the interactions, float32 [U, I] of zeros and ones."""
    ones = np.ones(len(split.user), np.float32)
    return csr_matrix((ones, (split.user, split.item)), shape=(len(split.user_ids), len(split.item_ids)))


def fit_popularity(split: Split, settings: Settings, seed: int) -> tuple[Recommender, float]:
    """Returns the list of the most frequent items, for every user the same."""
    del settings, seed
    begin = time.process_time()
    counts = np.bincount(split.item, minlength=len(split.item_ids)).astype(np.float64)
    speed = len(split.user) / max(time.process_time() - begin, 1e-9)
    return ByScores(lambda users: np.broadcast_to(counts, (len(users), len(counts)))), speed


def fit_ease(split: Split, settings: Settings, seed: int) -> tuple[Recommender, float]:
    """Returns EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equation 8)."""
    del seed
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


def fit_als(split: Split, settings: Settings, seed: int) -> tuple[Recommender, float]:
    """Returns implicit's alternating least squares (Hu, Koren and Volinsky 2008)."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings, random_state=seed, num_threads=1, use_gpu=False)
    begin = time.process_time()
    model.fit(interactions(split), show_progress=False)
    speed = len(split.user) * settings["iterations"] / (time.process_time() - begin)
    return ByVectors(np.asarray(model.user_factors), np.asarray(model.item_factors)), speed


@dataclass(frozen=True)
class _BySession:
    """Lists of RecTools' own search; a user's session is its training part."""

    model: Any
    dataset: Any

    def lists(self, users: Ints, k: int, excluded: Exclusions | None) -> Ints:
        """Returns the k best items of each user; excluded items are those of its training part."""
        found = self.model.recommend(users, self.dataset, k=k, filter_viewed=excluded is not None)
        lists = np.full((len(users), k), -1, np.int64)
        lists[np.searchsorted(users, found["user_id"]), found["rank"] - 1] = found["item_id"]
        return lists


def fit_sasrec(split: Split, settings: Settings, seed: int) -> tuple[Recommender, float]:
    """Returns SASRec of RecTools, whose loss is a softmax of cosines, and events per CPU-second."""
    import pandas as pd
    import pytorch_lightning
    import torch
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import SASRecModel

    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    pytorch_lightning.seed_everything(seed, verbose=False)
    own = ("epochs", "temperature", "session_max_len")
    times = pd.to_datetime(split.time_s, unit="s")
    events = {Columns.User: split.user, Columns.Item: split.item, Columns.Weight: 1.0, Columns.Datetime: times}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = Dataset.construct(pd.DataFrame(events))
        model = SASRecModel(
            **{name: value for name, value in settings.items() if name not in own},
            # Every session is padded to this length.
            session_max_len=int(min(settings["session_max_len"], np.bincount(split.user).max())),
            similarity_module_kwargs={"distance": "cosine"},
            lightning_module_kwargs={"logits_t": settings["temperature"]},
            get_trainer_func=lambda: pytorch_lightning.Trainer(max_epochs=settings["epochs"], accelerator="cpu", **quiet),
        )
        begin = time.process_time()
        model.fit(dataset)
        speed = len(split.user) * settings["epochs"] / (time.process_time() - begin)
    return _BySession(model, dataset), speed


PEERS = (
    Peer("popularity", "", fit_popularity, is_seeded=False),
    Peer("ease", "", fit_ease, is_seeded=False, max_items=MAX_ITEMS),
    Peer("als", "implicit", fit_als),
    Peer("sasrec", "rectools.models.nn.transformers.sasrec", fit_sasrec, texts_only=True),
)
