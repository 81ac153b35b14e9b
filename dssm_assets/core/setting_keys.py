"""Which settings can be tried in a run, and the keys of the configuration that they stand for.

Belongs here: the names alone, so that a form can be shown without loading what computes. Does not belong here: what a changed
setting means (`experiments.py`).
"""

from __future__ import annotations

from typing import Any, Final

from dssm_assets.core.config import PipelineConfig

KEYS: Final = {
    "epochs": "training.epochs",
    "learning_rate": "training.learning_rate",
    "temperature": "model.temperature",
    "num_sample": "model.num_sample",
    "k": "evaluation.k",
}
"""Setting of a run -> key of the configuration that it stands for."""


def value_of(config: PipelineConfig, key: str) -> Any:
    """Returns what the configuration says at a key `section.name`."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)
