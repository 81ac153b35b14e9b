"""Negatives as those of v2 and, beside them, hard ones.

Belongs here: `HardV2Sampler`. Does not belong here: either half (`v2`, `hard`).
"""

from __future__ import annotations

from dssm_assets.core.models.samplers.hard import HardSampler
from dssm_assets.core.models.samplers.v2 import V2Sampler


class HardV2Sampler(HardSampler, V2Sampler):
    """Draws item indices by weight, hard negatives of the rows' users, and tells the law of what counts for a user."""
