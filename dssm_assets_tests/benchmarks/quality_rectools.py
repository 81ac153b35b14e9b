"""Models of RecTools on a split.

DSSM has a triplet loss, euclidean distance, and one triplet per user and epoch. Users have the same features as in ours. Items
have their id, genres and year, because the item tower knows an item only by its features. SASRec knows ids alone; its loss is a
softmax of cosines. The library is imported when it is used.

Belongs here: putting a split into the library's form and fitting. Does not belong here: its settings
(`quality_settings.py`).
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dssm_assets.core.arrays.ragged import Exclusions
from dssm_assets.core.retrieval.vectors import Metric
from dssm_assets_tests.benchmarks.quality_features import Entities, FeatureColumn, item_columns, user_columns
from dssm_assets_tests.benchmarks.quality_scores import ByVectors, Recommender
from dssm_assets_tests.benchmarks.quality_splits import Ints, Split


def fit_rectools(split: Split, settings: dict[str, Any], seed: int, entities: Entities | None) -> tuple[Recommender, float]:
    """Returns the fitted vectors, and triplets per CPU-second."""
    import torch

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pytorch_lightning

        torch.set_num_threads(1)
        pytorch_lightning.seed_everything(seed, verbose=False)
        dataset = _dataset(split, entities)
        model = _model(dataset, settings)
        begin = time.process_time()
        model.fit(dataset)
        speed = len(split.user_ids) * settings["epochs"] / (time.process_time() - begin)
        user_vectors, item_vectors = model.get_vectors(dataset)
    # Internally the library numbers ids in the order of the events.
    user_place = dataset.user_id_map.convert_to_internal(np.arange(len(split.user_ids)))
    item_place = dataset.item_id_map.convert_to_internal(np.arange(len(split.item_ids)))
    return ByVectors(user_vectors[user_place], item_vectors[item_place], Metric.L2), speed


@dataclass(frozen=True)
class _BySession:
    """Lists of the library's own search; a user's session is its training part."""

    model: Any
    dataset: Any

    def lists(self, users: Ints, k: int, excluded: Exclusions | None) -> Ints:
        """Returns the k best items of each user; those that are excluded are those of its training part."""
        found = self.model.recommend(users, self.dataset, k=k, filter_viewed=excluded is not None)
        lists = np.full((len(users), k), -1, np.int64)
        lists[np.searchsorted(users, found["user_id"]), found["rank"] - 1] = found["item_id"]
        return lists


def fit_sasrec(split: Split, settings: dict[str, Any], seed: int, entities: Entities | None) -> tuple[Recommender, float]:
    """Returns the fitted SASRec, and events per CPU-second."""
    del entities
    import torch

    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pytorch_lightning
        from rectools.dataset import Dataset
        from rectools.models import SASRecModel

        def quiet_trainer() -> Any:
            return pytorch_lightning.Trainer(
                max_epochs=settings["epochs"],
                accelerator="cpu",
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )

        torch.set_num_threads(1)
        pytorch_lightning.seed_everything(seed, verbose=False)
        own = ("epochs", "temperature", "session_max_len")
        model = SASRecModel(
            **{name: value for name, value in settings.items() if name not in own},
            # Every session is padded to this length.
            session_max_len=int(min(settings["session_max_len"], np.bincount(split.user).max())),
            similarity_module_kwargs={"distance": "cosine"},
            lightning_module_kwargs={"logits_t": settings["temperature"]},
            get_trainer_func=quiet_trainer,
        )
        dataset = Dataset.construct(_events(split))
        begin = time.process_time()
        model.fit(dataset)
        speed = len(split.user) * settings["epochs"] / (time.process_time() - begin)
    return _BySession(model, dataset), speed


def _events(split: Split) -> Any:
    """Returns the training events as the library's table of interactions."""
    import pandas as pd
    from rectools import Columns

    return pd.DataFrame(
        {
            Columns.User: split.user,
            Columns.Item: split.item,
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(split.time_s, unit="s"),
        }
    )


def _dataset(split: Split, entities: Entities | None) -> Any:
    from rectools.dataset import Dataset

    users = _feature_rows(user_columns(split, entities))
    items = _feature_rows(item_columns(split, entities, with_counts=False))
    return Dataset.construct(
        _events(split),
        user_features_df=users,
        cat_user_features=sorted(set(users["feature"])),
        item_features_df=items,
        cat_item_features=sorted(set(items["feature"])),
    )


def _model(dataset: Any, settings: dict[str, Any]) -> Any:
    """Returns the library's model, without the callbacks that write to the screen and to the working folder."""
    from rectools.models.nn.dssm import DSSM, DSSMModel

    network = DSSM(
        n_factors_user=settings["n_factors"],
        n_factors_item=settings["n_factors"],
        dim_input_user=dataset.user_features.get_sparse().shape[1],
        dim_input_item=dataset.item_features.get_sparse().shape[1],
        dim_interactions=dataset.get_user_item_matrix().shape[1],
        lr=settings["lr"],
        log_to_prog_bar=False,
    )
    model = DSSMModel(
        model=network,
        max_epochs=settings["epochs"],
        batch_size=settings["batch_size"],
        trainer_accelerator="cpu",
        loggers=False,
        deterministic=True,
    )
    unwanted = ("TQDMProgressBar", "ModelSummary", "ModelCheckpoint")
    trainer = model._trainer
    trainer.callbacks = [callback for callback in trainer.callbacks if type(callback).__name__ not in unwanted]
    return model


def _feature_rows(columns: Sequence[FeatureColumn]) -> Any:
    """Returns one row per entity and value: id, value, feature."""
    import pandas as pd

    rows = [
        pd.DataFrame({"id": column.owners(), "value": column.values, "feature": column.name})
        for column in columns
        if column.size
    ]
    return pd.concat(rows, ignore_index=True)
