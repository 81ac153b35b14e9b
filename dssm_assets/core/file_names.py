"""Names of the files inside artifacts and serving bundles, for those who write them and those who read them."""

from __future__ import annotations

from enum import StrEnum


class TrainSamplesFile(StrEnum):
    """Files of the artifact train_samples."""

    SAMPLES = "samples.arrow"
    USER_ROWS = "user_rows.arrow"
    ITEM_ROWS = "item_rows.arrow"
    USERS = "users.arrow"
    ITEMS = "items.arrow"
    HISTORY = "history.arrow"
    HARD_NEGATIVES = "hard_negatives.arrow"


class ModelFile(StrEnum):
    """Files of the artifact dssm_model."""

    WEIGHTS = "model.bin"
    TOWERS = "towers.json"
    LOSSES = "loss_by_step.json"
    REPORT = "report.json"
    VALIDATION = "validation.json"
    PRIOR = "prior.json"


class BundleFile(StrEnum):
    """Files of a serving bundle, without its manifest."""

    USER_TOWER = "user_tower.onnx"
    ITEM_TOWER = "item_tower.onnx"
    TOWERS = "towers.json"
    FG = "fg.json"
    FEATURE_CONFIG = "feature_config.parquet"
    FEATURE_COUNTS = "feature_counts.parquet"
    ITEM_IDS = "item_ids.arrow"
    ITEM_VECTORS = "item_vectors.arrow"
    ITEM_INDEX = "item_index.faiss"
    USER_VECTORS = "user_vectors.arrow"
    POPULAR_ITEMS = "popular_items.arrow"
