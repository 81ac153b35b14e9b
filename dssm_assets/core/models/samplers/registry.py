"""Which sampler each name in `model.sampler` means, and the samplers of one corpus, each built once.

A new sampler is one class, one line in `SAMPLERS`, and its name as a member of `Sampler` in
core/config/model.py. From outside the package: `SAMPLERS["my_sampler"] = make_my_sampler`, in a plug-in (docs/platform.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.errors import ConfigError, Fault
from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler
from dssm_assets.core.models.samplers.weighted import (
    AllItemsSampler,
    NegativeSampler,
    UniformSampler,
    WeightedSampler,
    mix_with_uniform,
)

SamplerFactory: TypeAlias = Callable[[Model, npt.NDArray[np.float64], HardEdges], NegativeSampler]
"""Makes a sampler from the model section, the weight of each item [I] and what users were shown and did not interact with."""

SAMPLERS: Final[dict[str, SamplerFactory]] = {
    Sampler.UNIFORM: lambda model, weights, edges: UniformSampler(len(weights)),
    Sampler.ALL: lambda model, weights, edges: AllItemsSampler(len(weights)),
    Sampler.WEIGHTED: lambda model, weights, edges: WeightedSampler(weights),
    Sampler.MIXED: lambda model, weights, edges: mix_with_uniform(weights),
    Sampler.HARD: lambda model, weights, edges: HardSampler(weights, edges),
    # These draw alike; what differs is the mask of the user's positives (`Model.masks_user_positives`).
    Sampler.V2: lambda model, weights, edges: WeightedSampler(weights),
    Sampler.HARD_V2: lambda model, weights, edges: HardSampler(weights, edges),
}


class CorpusSamplers:
    """Builds and keeps the samplers of a corpus.

    Args:
        weights_before: returns the items' weights by the interactions before a day of the window; None: of all days [I].
        edges: what users were shown and did not interact with; None where the data have no hard negatives.
    """

    def __init__(self, weights_before: Callable[[int | None], npt.NDArray[np.float64]], edges: HardEdges | None) -> None:
        self._weights_before, self._edges = weights_before, edges
        self._samplers: dict[tuple[str, int | None], NegativeSampler] = {}

    def sampler_for(self, model: Model, end_day: int | None) -> NegativeSampler:
        """Returns the sampler that the model section names; the same instance for an equal section and day.

        Args:
            end_day: interactions from this day on are unknown to it; None: it knows the whole window.

        Raises:
            ConfigError: the section needs hard negatives and the data were built without them.
            SchemaError: a weight is negative or not finite, or none is positive.
        """
        if model.has_hard_negatives and self._edges is None:
            where, remedy = "training data, hard_negatives.arrow", "materialize train_samples again with this model section"
            raise ConfigError(Fault(where, f"the file that sampler {model.sampler} draws from", "no such file", remedy))
        # A factory may read any key of the section, so the whole section is part of the cache key.
        key = (model.model_dump_json(), end_day)
        if key not in self._samplers:
            edges = HardEdges.empty() if self._edges is None else self._edges
            self._samplers[key] = SAMPLERS[model.sampler](model, self._weights_before(end_day), edges)
        return self._samplers[key]
