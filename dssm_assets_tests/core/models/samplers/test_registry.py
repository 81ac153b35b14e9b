"""Every name in `model.sampler` has a sampler, and each draws from the distribution it discloses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.errors import ConfigError
from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler
from dssm_assets.core.models.samplers.registry import SAMPLERS, CorpusSamplers
from dssm_assets.core.models.samplers.weighted import AllItemsSampler, UniformSampler, WeightedSampler

WEIGHTS = np.array([3.0, 1.0])
EDGES = HardEdges(np.array([0, 1]), np.array([1], np.int32), np.array([0], np.int32))
"""One user, who was shown item 1."""
EXPECTED = {
    Sampler.UNIFORM: (UniformSampler, [0.5, 0.5]),
    Sampler.ALL: (AllItemsSampler, [0.5, 0.5]),
    Sampler.WEIGHTED: (WeightedSampler, [0.75, 0.25]),
    Sampler.V2: (WeightedSampler, [0.75, 0.25]),
    Sampler.MIXED: (WeightedSampler, [0.625, 0.375]),
    Sampler.HARD: (HardSampler, [0.75, 0.25]),
    Sampler.HARD_V2: (HardSampler, [0.75, 0.25]),
}


@pytest.mark.parametrize("name", Sampler)
def test_each_name_has_its_distribution(name: Sampler) -> None:
    sampler = SAMPLERS[name](Model(sampler=name), WEIGHTS, HardEdges.empty())
    kind, distribution = EXPECTED[name]
    assert type(sampler) is kind
    assert sampler.probability == pytest.approx(distribution)
    drawn, probability = sampler.draw(7, np.random.default_rng(1))
    assert probability.tolist() == sampler.probability[drawn].tolist()


@pytest.mark.parametrize("name", [Sampler.HARD, Sampler.HARD_V2])
def test_hard_samplers_draw_from_the_edges(name: Sampler) -> None:
    sampler = SAMPLERS[name](Model(sampler=name), WEIGHTS, EDGES)
    assert isinstance(sampler, HardSampler)
    assert sampler.draw_hard(np.array([0], np.int32), 3, np.random.default_rng(1)).items.tolist() == [1]


@pytest.mark.parametrize("name", Sampler)
def test_only_the_v2_samplers_mask_what_the_user_interacted_with(name: Sampler) -> None:
    assert Model(sampler=name).masks_user_positives == (name in (Sampler.V2, Sampler.HARD_V2))


ALL_DAYS, BEFORE_DAY_2 = np.array([2.0, 3.0, 1.0]), np.array([2.0, 1.0, 1.0])


def weights_before(day: int | None) -> np.ndarray[Any, Any]:
    return ALL_DAYS if day is None else BEFORE_DAY_2


def samplers() -> CorpusSamplers:
    return CorpusSamplers(weights_before, HardEdges.empty())


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"sampler": "weighted"}, {"sampler": "uniform"}),
        ({"sampler": "hard", "num_hard_sample": 8}, {"sampler": "hard", "num_hard_sample": 16}),
        ({"num_sample": 8}, {"num_sample": 16}),
    ],
)
def test_sampler_cache_distinguishes_every_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    cache = samplers()
    assert cache.sampler_for(Model(**one), 2) is not cache.sampler_for(Model(**other), 2)


def test_sampler_cache_distinguishes_days() -> None:
    cache, model = samplers(), Model()
    assert cache.sampler_for(model, None).probability == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert cache.sampler_for(model, 2).probability == pytest.approx([2 / 4, 1 / 4, 1 / 4])


def test_sampler_cache_returns_one_instance_for_equal_sections() -> None:
    cache = samplers()
    assert cache.sampler_for(Model(num_sample=7), 2) is cache.sampler_for(Model(num_sample=7), 2)


def test_mixed_sampler_has_the_weights_of_its_day() -> None:
    mixed = samplers().sampler_for(Model(sampler="mixed"), 2)
    assert mixed.probability == pytest.approx(0.5 / 3 + 0.5 * BEFORE_DAY_2 / 4)


def test_hard_negatives_without_their_table_are_refused() -> None:
    bare = CorpusSamplers(weights_before, None)
    with pytest.raises(ConfigError, match=r"hard_negatives\.arrow"):
        bare.sampler_for(Model(sampler="hard"), None)
    assert bare.sampler_for(Model(sampler="hard", num_hard_sample=0), None).probability.sum() == pytest.approx(1.0)
