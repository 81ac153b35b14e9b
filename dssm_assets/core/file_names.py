"""Names of the files inside artifacts and serving bundles, shared by writers and readers."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


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
    SEARCH_WEIGHTS = "search_model.bin"
    TOWERS = "towers.json"
    LOSSES = "loss_by_step.json"
    REPORT = "report.json"
    VALIDATION = "validation.json"
    PRIOR = "prior.json"
    GROUP_CODES = "group_codes.arrow"


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
    ITEM_COLUMNS = "item_columns.arrow"
    CHANNELS = "channels.json"
    ITEM_CHANNELS = "item_channels.arrow"
    OWN_ITEMS = "own_items.arrow"
    USER_INPUTS = "user_inputs.arrow"


class ItemChannelColumn(StrEnum):
    """Columns of item_channels.arrow next to `channel.COUNTS`: one row per item, in the bundle's order."""

    NEIGHBORS = "neighbors"
    SIMILARITIES = "similarities"


class OwnItemColumn(StrEnum):
    """Columns of own_items.arrow: one row per user, in the bundle's order. The lists of a row are equally long; items ascend."""

    ROWS = "item_rows"
    COUNTS = "counts"
    LAST_TIMES_MS = "last_times_ms"


CHANNELS_VERSION: Final = 5
"""Version of the contents of channels.json."""
