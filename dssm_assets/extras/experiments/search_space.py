"""The settings that `dssm-assets tune` searches, around the configured ones.

The space is small: settings that matter on logs of every kind (`docs/what_was_learned.md`) and that need no other
features or samples. The configured value of each is inside, so the first trial is the configuration as it is. Epochs are not
searched: every trial stops at its best one on the validation days.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from dssm_assets.core.config.model import Similarity
from dssm_assets.core.config.pipeline import PipelineConfig, value_of
from dssm_assets.extras.experiments.settings import drop_configured

CONFIGURED: Final = "as configured"
_FACTOR: Final = 5.0
"""Rates are searched between the configured one divided by and times this."""
_TEMPERATURE_FACTOR: Final = 2.0
_DIMS: Final = (64, 96, 128)
_NEGATIVES: Final = (0, 256, 1024, 4096)
_POOLINGS: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "root": ({"kind": "root"},),
    "root and mean": ({"kind": "root"}, {"kind": "mean"}),
    "root, mean and recency": ({"kind": "root"}, {"kind": "mean"}, {"kind": "recency", "scale": 10.0}),
}
_SHORT: Final = 50
"""Events of the poolings behind the first."""

Value: TypeAlias = float | int | str


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    key: str
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Range:
    """A number between two, on a logarithmic scale if `is_log`."""

    key: str
    low: float
    high: float
    is_log: bool


Parameter: TypeAlias = Choice | Range


def search_space(config: PipelineConfig) -> tuple[Parameter, ...]:
    model, training = config.model, config.training
    found: list[Parameter] = [
        _range_around("training.learning_rate", training.learning_rate, _FACTOR),
        _range_around("training.embedding_learning_rate", training.embedding_learning_rate, _FACTOR),
        Choice("model.num_sample", _with(model.num_sample, _NEGATIVES if model.in_batch else _NEGATIVES[1:])),
        Choice("model.embedding_dropout", _with(model.embedding_dropout, (0.0, 0.2, 0.4))),
        Choice("model.recency_half_life_days", (CONFIGURED, "none", "window / 4", "window / 2", "window")),
    ]
    if model.similarity is Similarity.COSINE and not model.learn_temperature:
        found.append(_range_around("model.temperature", model.temperature, _TEMPERATURE_FACTOR))
    narrowest = _narrowest_vectors(config)
    if narrowest is not None:
        found.append(Choice("model.output_dim", _with(model.output_dim, tuple(dim for dim in _DIMS if dim >= narrowest))))
    if model.history_length and model.num_interests == 1:
        found.append(Choice("model.poolings", (CONFIGURED, *_POOLINGS)))
    return tuple(found)


def configured_values(space: tuple[Parameter, ...], config: PipelineConfig) -> dict[str, Value]:
    """Returns the value of each parameter that changes nothing."""
    return {
        one.key: CONFIGURED if isinstance(one, Choice) and CONFIGURED in one.values else value_of(config, one.key)
        for one in space
    }


def changes_of(values: Mapping[str, Value], config: PipelineConfig) -> dict[str, Any]:
    """Returns the settings of parameter values that differ from the configuration, as keys of the configuration."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        if value == CONFIGURED:
            continue
        if key == "model.poolings":
            settings[key] = _poolings(str(value), config)
        elif key == "model.recency_half_life_days":
            settings[key] = _half_life(str(value), config)
        else:
            settings[key] = value
    return drop_configured(config, settings)


def _range_around(key: str, value: float, factor: float) -> Range:
    return Range(key, value / factor, value * factor, is_log=True)


def _with(configured: Value, values: tuple[Value, ...]) -> tuple[Value, ...]:
    return tuple(sorted({configured, *values}))


def _narrowest_vectors(config: PipelineConfig) -> int | None:
    """Returns the smallest width that the towers allow; None if it is not known, and the width is not searched."""
    if config.training.svd_init is None:
        return 2
    frozen = config.model.frozen_embedding
    width = None if frozen is None else config.statistics.own_values([frozen], "embedding_dim").get(frozen)
    return int(str(width)) + 16 if width is not None else None


def _poolings(name: str, config: PipelineConfig) -> list[dict[str, Any]]:
    longest = max(pooling.length for pooling in config.model.history_poolings)
    first, *others = _POOLINGS[name]
    return [{**first, "length": longest}, *({**other, "length": min(_SHORT, longest)} for other in others)]


def _half_life(name: str, config: PipelineConfig) -> float | None:
    if name == "none":
        return None
    _, _, divisor = name.partition(" / ")
    return config.window.days / float(divisor or 1)
