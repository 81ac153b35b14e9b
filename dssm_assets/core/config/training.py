"""The training section: how weights are fitted, watched, stored on the way and spread over machines.

Belongs here: the keys and their bounds. Does not belong here: what is fitted (`model_config.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, model_validator

from dssm_assets.core.config.section import Section


class EmbeddingOptimiser(StrEnum):
    """How rows of embedding tables move; one number per row is kept beside the row's own moments."""

    ADAGRAD = "adagrad"
    ADAM = "adam"


class Precision(StrEnum):
    """Number format of products inside the towers and the loss; weights and sums are always float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    AUTO = "auto"
    """bfloat16 where the processor multiplies it natively."""


class Device(StrEnum):
    """Where the towers are fitted."""

    AUTO = "auto"
    """CUDA where there is one."""
    CPU = "cpu"
    CUDA = "cuda"


class Launcher(StrEnum):
    """What starts the processes of a fit."""

    AUTO = "auto"
    """torchrun for several processes, in_process for one."""
    IN_PROCESS = "in_process"
    """The run's own process fits."""
    TORCHRUN = "torchrun"
    """The run starts `num_processes` on its machine and waits for them."""
    EXTERNAL = "external"
    """`dssm-assets fit` has been started on every machine, under torchrun; the run takes what came of it."""


class SvdInit(Section):
    """Embeddings of past items that begin at codes which keep most of what histories hold (`training/svd_init.py`)."""

    embedding: str = Field(description="The embedding_name that history and item tower share.")
    scale: float = Field(default=10.0, gt=0, description="Factor of the codes, whose columns have length 1.")
    popularity: float = Field(
        default=0.0,
        ge=0,
        description="Times ln of all that histories hold of an item: added to everybody's product with it, in a column.",
    )
    ridge: float = Field(
        default=0.0,
        ge=0,
        description="A direction in which histories differ by singular value s counts s^2 / (s^2 + ridge): what few share is "
        "held for chance.",
    )
    popularity_exponent: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="What histories hold of an item, and its code, are divided by this power of all that they hold of it.",
    )


class Training(Section):
    """How the towers are fitted."""

    epochs: int = Field(default=5, ge=1, le=1000, description="At most; early stopping may end sooner.")
    epoch_frac: float = Field(
        default=1.0, gt=0, le=1, description="Share of the samples that an epoch reads, others each time."
    )
    batch_size: int = Field(default=1024, ge=2)
    group_sessions: bool = Field(
        default=False,
        description="Samples of one user with one past come in one batch, and the user tower runs once for them: makes long "
        "histories cheap. No effect on what each sample sees.",
    )
    learning_rate: float = Field(default=0.001, gt=0, le=10, description="AdamW, dense layers.")
    embedding_optimiser: EmbeddingOptimiser = EmbeddingOptimiser.ADAGRAD
    embedding_learning_rate: float = Field(default=0.05, gt=0, le=10, description="Of the embedding tables.")
    weight_decay: float = Field(default=0.0, ge=0)
    warmup_frac: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    final_learning_rate_frac: float = Field(default=0.1, ge=0, le=1, description="Share of the learning rate left at the end.")
    gradient_clip: float | None = Field(default=None, gt=0, description="Largest norm of the dense layers' gradient.")
    weight_average: float = Field(
        default=0.0, ge=0, lt=1, description="Decay per step of the moving average of the weights that is kept; 0: none."
    )
    validation_days: int = Field(
        default=0, ge=0, description="Last days of the window that the towers are first scored on; 0: none."
    )
    patience: int = Field(default=2, ge=1, description="Epochs without a better validation hit rate before training ends.")
    refit: bool = Field(
        default=True, description="After the best epoch is known, fits again on the whole window for as many epochs."
    )
    svd_init: SvdInit | None = Field(
        default=None, description="Embeddings of past items begin at codes of who took what; None: at random."
    )
    warm_start: bool = Field(default=False, description="Starts from the model of the partition before, where there is one.")
    checkpoint_minutes: float | None = Field(
        default=10.0, gt=0, description="A killed training goes on from a state at most this old; None: from the start."
    )
    precision: Precision = Precision.FLOAT32
    device: Device = Device.AUTO
    launcher: Launcher = Launcher.AUTO
    num_processes: int = Field(
        default=1,
        ge=1,
        description="Processes on one machine that share every batch; of `dssm-assets fit` torchrun says how many.",
    )
    shard_tables: bool = Field(
        default=False,
        description="Embedding tables are dealt out to the processes row by row, with their moments: each holds 1 / processes.",
    )
    logits_chunk_rows: int = Field(default=256, ge=1, description="Rows of logits that are held at once.")
    num_threads: int = Field(default=2, ge=1, description="CPU threads; part of the configuration because sums depend on it.")

    @model_validator(mode="after")
    def _can_be_started(self) -> Training:
        if self.launcher is Launcher.IN_PROCESS and self.num_processes > 1:
            raise ValueError(f"launcher in_process is one process, and num_processes is {self.num_processes}: use torchrun")
        return self

    @property
    def started_by(self) -> Launcher:
        """Returns what starts the processes, `auto` decided."""
        if self.launcher is not Launcher.AUTO:
            return self.launcher
        return Launcher.TORCHRUN if self.num_processes > 1 else Launcher.IN_PROCESS


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
