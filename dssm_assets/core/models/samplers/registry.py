"""Which sampler each name in `model.sampler` means. A new sampler is one file next to this and one line here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from dssm_assets.core.config.model import Model, Sampler
from dssm_assets.core.models.samplers.hard import HardEdges, HardSampler
from dssm_assets.core.models.samplers.mixed import MixedSampler
from dssm_assets.core.models.samplers.sampler import NegativeSampler
from dssm_assets.core.models.samplers.uniform import UniformSampler
from dssm_assets.core.models.samplers.weighted import WeightedSampler

SamplerFactory: TypeAlias = Callable[[Model, npt.NDArray[np.float64], HardEdges], NegativeSampler]
"""Makes a sampler from the model section, the weight of each item [I] and what users were shown and did not interact with."""

SAMPLERS: Final[dict[str, SamplerFactory]] = {
    Sampler.UNIFORM: lambda model, weights, edges: UniformSampler(len(weights)),
    Sampler.WEIGHTED: lambda model, weights, edges: WeightedSampler(weights),
    Sampler.MIXED: lambda model, weights, edges: MixedSampler(weights, model.uniform_frac),
    Sampler.HARD: lambda model, weights, edges: HardSampler(weights, edges),
    # These draw alike; what differs is the mask of the user's positives (`Model.masks_user_positives`).
    Sampler.V2: lambda model, weights, edges: WeightedSampler(weights),
    Sampler.HARD_V2: lambda model, weights, edges: HardSampler(weights, edges),
}
