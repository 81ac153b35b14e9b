"""How many steps a fit takes, and how its learning rate is spread over them: `step_config` and the fit count alike.

Belongs here: the counting and the plan. Does not belong here: the table of the plan (`features/feature_config`), the
learning rate of a step (`training/optimisers`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from dssm_assets.core.training_config import Training


@dataclass(frozen=True)
class StepPlan:
    """The steps of a fit: the learning rate rises over the first of them and falls over the last `decay_steps`.

    Attributes:
        num_steps: of all epochs.
        decay_steps: num_steps less those of the warm-up.
    """

    num_steps: int
    decay_steps: int

    @property
    def warmup_steps(self) -> int:
        """Returns how many steps come before the decay."""
        return self.num_steps - self.decay_steps

    def over(self, num_steps: int) -> StepPlan:
        """Returns the plan spread over another number of steps: the same share warms up, the decay ends at the last step.

        Example: of 18 steps, 2 of them of warm-up, over 9 there is 1 of warm-up.
        """
        if num_steps == self.num_steps:
            return self
        return StepPlan(num_steps, num_steps - -(-self.warmup_steps * num_steps // max(1, self.num_steps)))


def batches_per_epoch(count: int, training: Training) -> int:
    """Returns how many batches an epoch of so many samples has.

    Example: of 80 samples the share .5 in batches of 32 is 2 batches, 40 samples rounded up to whole batches.
    """
    return math.ceil(round(count * training.epoch_frac, 6) / training.batch_size)


def samples_per_epoch(count: int, training: Training) -> int:
    """Returns how many of so many samples an epoch reads.

    Example: of 80 samples the share .5 in batches of 32 is 2 whole batches, 64 samples.
    """
    return min(count, batches_per_epoch(count, training) * training.batch_size)


def planned_steps(count: int, training: Training) -> StepPlan:
    """Returns the steps of a fit to so many samples if no epoch is saved by stopping early.

    Example: 300 samples in batches of 256 are 2 steps an epoch, in 3 epochs 6, of which a share of .05 warms up: 1, rounded up.
    """
    steps = training.epochs * batches_per_epoch(count, training)
    return StepPlan(steps, steps - planned_warmup(steps, training))


def planned_warmup(num_steps: int, training: Training) -> int:
    """Returns how many of so many steps warm up."""
    return math.ceil(training.warmup_frac * num_steps)
