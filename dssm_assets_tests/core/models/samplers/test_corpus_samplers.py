"""A sampler is built once per configuration and day, and never shared between two configurations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dssm_assets.core.config.model import Model
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.samplers.corpus_samplers import CorpusSamplers
from dssm_assets.core.models.samplers.hard import HardEdges

ALL_DAYS, BEFORE_DAY_2 = np.array([2.0, 3.0, 1.0]), np.array([2.0, 1.0, 1.0])


def weights_before(day: int | None) -> np.ndarray[Any, Any]:
    return ALL_DAYS if day is None else BEFORE_DAY_2


def samplers() -> CorpusSamplers:
    return CorpusSamplers(weights_before, HardEdges.empty())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"sampler": "weighted"}, {"sampler": "uniform"}),
        ({"sampler": "mixed", "uniform_frac": 0.1}, {"sampler": "mixed", "uniform_frac": 0.2}),
        ({"sampler": "hard", "num_hard_sample": 8}, {"sampler": "hard", "num_hard_sample": 16}),
        ({"num_sample": 8}, {"num_sample": 16}),
    ],
)
def test_sampler_cache_distinguishes_every_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    cache = samplers()
    assert cache.sampler_for(Model(**one), 2) is not cache.sampler_for(Model(**other), 2)


def test_sampler_cache_distinguishes_num_hard_sample() -> None:
    """A registered sampler may read any key: it must get the value of its own configuration."""
    cache = samplers()
    few, many = (cache.sampler_for(Model(sampler="hard", num_hard_sample=count), None) for count in (8, 16))
    assert few is not many


def test_sampler_cache_distinguishes_days() -> None:
    cache, model = samplers(), Model()
    assert cache.sampler_for(model, None).probability == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert cache.sampler_for(model, 2).probability == pytest.approx([2 / 4, 1 / 4, 1 / 4])


def test_sampler_cache_returns_one_instance_for_equal_sections() -> None:
    cache = samplers()
    assert cache.sampler_for(Model(uniform_frac=0.3), 2) is cache.sampler_for(Model(uniform_frac=0.3), 2)


def test_mixed_sampler_has_the_weights_of_its_day() -> None:
    mixed = samplers().sampler_for(Model(sampler="mixed", uniform_frac=0.4), 2)
    assert mixed.probability == pytest.approx(0.4 / 3 + 0.6 * BEFORE_DAY_2 / 4)


def test_hard_negatives_without_their_table_are_refused() -> None:
    bare = CorpusSamplers(weights_before, None)
    with pytest.raises(ConfigError, match=r"hard_negatives\.arrow"):
        bare.sampler_for(Model(sampler="hard"), None)
    assert bare.sampler_for(Model(sampler="hard", num_hard_sample=0), None).probability.sum() == pytest.approx(1.0)
