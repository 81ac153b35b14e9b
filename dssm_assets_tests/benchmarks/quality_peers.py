"""The peers: what a user could choose instead, each with settings chosen on the inner split.

The extra `bench` brings the libraries of all. Shapes: U users, I items.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from dssm_assets.core.arrays.ragged import ItemSets
from dssm_assets_tests.benchmarks.quality_data import Ints, Split, interactions, popularity
from dssm_assets_tests.benchmarks.quality_scores import ByScores, ByVectors, Recommender

Settings = dict[str, Any]
MAX_EASE_ITEMS = 20_000
"""Items up to which EASE inverts its matrix: 40,000 would take 30 GB."""


def fit_popularity(split: Split, settings: Settings, seed: int) -> Recommender:
    """Returns the list of the most frequent items, for every user the same."""
    del settings, seed
    counts = popularity(split)
    return ByScores(lambda users: np.broadcast_to(counts, (len(users), len(counts))))


def fit_ease(split: Split, settings: Settings, seed: int) -> Recommender:
    """Returns EASE (Steck 2019, "Embarrassingly Shallow Autoencoders for Sparse Data", equation 8)."""
    del seed
    matrix = interactions(split)
    if matrix.shape[1] > MAX_EASE_ITEMS:
        raise MemoryError(f"more than {MAX_EASE_ITEMS:,} items")
    gram = (matrix.T @ matrix).toarray().astype(np.float64)
    gram[np.diag_indices_from(gram)] += settings["l2"]
    inverse = np.linalg.inv(gram)
    weights = inverse / -np.diag(inverse)  # [I, I]
    np.fill_diagonal(weights, 0.0)
    return ByScores(lambda users: matrix[users] @ weights)


def fit_als(split: Split, settings: Settings, seed: int) -> Recommender:
    """Returns implicit's alternating least squares (Hu, Koren and Volinsky 2008)."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(**settings, random_state=seed, num_threads=1, use_gpu=False)
    model.fit(interactions(split), show_progress=False)
    return ByVectors(np.asarray(model.user_factors), np.asarray(model.item_factors))


@dataclass(frozen=True)
class _BySession:
    """Lists of RecTools' own search; a user's session is its training part."""

    model: Any
    dataset: Any

    def lists(self, users: Ints, k: int, excluded: ItemSets | None) -> Ints:
        """Returns the k best items of each user; excluded items are those of its training part."""
        found = self.model.recommend(users, self.dataset, k=k, filter_viewed=excluded is not None)
        lists = np.full((len(users), k), -1, np.int64)
        lists[np.searchsorted(users, found["user_id"]), found["rank"] - 1] = found["item_id"]
        return lists


def fit_sasrec(split: Split, settings: Settings, seed: int) -> Recommender:
    """Returns SASRec of RecTools, whose loss is a softmax of cosines."""
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
        model.fit(dataset)
    return _BySession(model, dataset)


PEERS = {"popularity": fit_popularity, "ease": fit_ease, "als": fit_als, "sasrec": fit_sasrec}
