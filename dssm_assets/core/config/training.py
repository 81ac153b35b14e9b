"""The section `training`: how weights are fitted, validated, checkpointed and shared by processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pydantic import Field, model_validator

from dssm_assets.core.config.section import Section


class EmbeddingOptimiser(StrEnum):
    """How rows of embedding tables are updated."""

    ADAGRAD = "adagrad"
    """With one second moment per row."""
    ADAM = "adam"
    """With a first moment per value in addition."""


class Precision(StrEnum):
    """Number format of the factors in matrix products; weights and sums are always float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    AUTO = "auto"
    """bfloat16 if the processor has instructions for it."""


class Device(StrEnum):
    """Where the towers are fitted."""

    AUTO = "auto"
    """CUDA if there is a device."""
    CPU = "cpu"
    CUDA = "cuda"


class Launcher(StrEnum):
    """How the processes of a fit are started."""

    AUTO = "auto"
    """torchrun for several processes, in_process for one."""
    IN_PROCESS = "in_process"
    """The run's own process fits."""
    TORCHRUN = "torchrun"
    """The run starts `num_processes` on its machine and waits for them."""
    EXTERNAL = "external"
    """`dssm-assets fit` has been started on every machine, under torchrun; the run uses the model that it published."""


class SvdInit(Section):
    """Initialises embeddings of history items with leading singular vectors of the interaction matrix."""

    embedding: str = Field(description="The embedding_name that history and item tower share.")
    scale: float = Field(default=10.0, gt=0, le=1_000_000, description="Factor of the codes; their columns have length 1.")
    score_std: float | None = Field(
        default=None, gt=0, le=1000, description="In place of scale: mean std of a user's products; of cosines it is about 0.2."
    )
    user_exponent: float = Field(default=0.0, ge=0, le=1, description="User weights are divided by their sum to this power.")
    ridge: float = Field(default=0.0, ge=0, le=1_000_000_000, description="Singular value s counts s^2 / (s^2 + ridge) (EASE).")
    popularity_exponent: float = Field(
        default=0.0, ge=0, le=1, description="An item's weights, and its code, are divided by its total weight to this power."
    )
    group_by: list[str] = Field(
        default=[],
        description="Single-valued item features, e.g. product type and manufacturer: an item without events gets the code of "
        "the items with equal values. Needs model.frozen_embedding.",
    )


class Training(Section):
    """How the towers are fitted."""

    epochs: int = Field(default=5, ge=1, le=1000, description="Most epochs; early stopping may end the fit sooner.")
    epoch_frac: float = Field(default=1.0, gt=0, le=1, description="Share of samples that an epoch reads, another each time.")
    batch_size: int = Field(default=1024, ge=2, le=10_000_000, description="Samples of a batch; all processes together.")
    group_sessions: bool = Field(
        default=False, description="Samples of a user with one history share a batch and a user tower's run, which is cheaper."
    )
    group_users: bool = Field(
        default=False,
        description="Samples of one user share a batch, and a pooling of kind sequence runs once over the user's events, in "
        "windows of its length, with a target at every position.",
    )
    learning_rate: float = Field(default=0.001, gt=0, le=10, description="AdamW, dense layers.")
    embedding_optimiser: EmbeddingOptimiser = Field(
        default=EmbeddingOptimiser.ADAGRAD, description="Optimiser of embedding tables."
    )
    embedding_learning_rate: float = Field(default=0.05, gt=0, le=10, description="Learning rate of the embedding tables.")
    weight_decay: float = Field(
        default=0.0, ge=0, le=100, description="AdamW's weight decay, for the matrices of the dense layers."
    )
    warmup_frac: float = Field(default=0.05, ge=0, lt=1, description="Share of the steps in which the learning rate rises.")
    final_learning_rate_frac: float = Field(default=0.1, ge=0, le=1, description="Share of the learning rate left at the end.")
    gradient_clip: float | None = Field(
        default=None, gt=0, le=1_000_000, description="Largest norm of the dense layers' gradient (default: no clipping)."
    )
    weight_average: float = Field(
        default=0.0, ge=0, lt=1, description="Decay per step of the moving average of the weights that is published; 0: none."
    )
    validation_days: int = Field(default=0, ge=0, le=365, description="Last window days, which choose the number of epochs.")
    patience: int = Field(default=2, ge=1, le=1000, description="Epochs without a better hit rate that end the search.")
    refit: bool = Field(default=True, description="Fits again on the whole window, for the best number of epochs.")
    svd_init: SvdInit | None = Field(default=None, description="Embeddings begin at singular vectors (default: at random).")
    warm_start: bool = Field(default=False, description="Begins with the weights of the last model before the day.")
    checkpoint_minutes: float | None = Field(
        default=10.0, gt=0, le=100_000, description="Age limit of the state that a killed fit resumes; null: it starts again."
    )
    precision: Precision = Field(default=Precision.FLOAT32, description="Number format of products.")
    device: Device = Field(default=Device.AUTO, description="Where the towers are fitted.")
    launcher: Launcher = Field(default=Launcher.AUTO, description="What starts the processes of a fit.")
    num_processes: int = Field(
        default=1, ge=1, le=4096, description="Processes that share every batch; torchrun sets it for `dssm-assets fit`."
    )
    shard_tables: bool = Field(default=False, description="Each process holds every num_processes-th row of embedding tables.")
    num_threads: int = Field(default=2, ge=1, le=1024, description="CPU threads; the order of sums depends on it.")

    @model_validator(mode="after")
    def _can_be_started(self) -> Training:
        if self.launcher is Launcher.IN_PROCESS and self.num_processes > 1:
            raise ValueError(
                f"launcher in_process is one process, and num_processes is {self.num_processes}: set launcher to torchrun"
            )
        return self

    @property
    def started_by(self) -> Launcher:
        if self.launcher is not Launcher.AUTO:
            return self.launcher
        return Launcher.TORCHRUN if self.num_processes > 1 else Launcher.IN_PROCESS


@dataclass(frozen=True)
class StepPlan:
    """The steps of a fit: the learning rate rises during warm-up and falls over the last `decay_steps`."""

    num_steps: int
    decay_steps: int

    @property
    def warmup_steps(self) -> int:
        return self.num_steps - self.decay_steps

    def over(self, num_steps: int) -> StepPlan:
        """Returns the plan stretched to another number of steps: the share of warm-up stays, the decay ends at the last step.

        Example: 18 steps with 2 of warm-up become 9 steps with 1 of warm-up.
        """
        return StepPlan(num_steps, num_steps - -(-self.warmup_steps * num_steps // max(1, self.num_steps)))


def batches_per_epoch(count: int, training: Training) -> int:
    """Returns the number of batches in an epoch over `count` samples.

    Example: with 80 samples, epoch_frac .5 and batches of 32 it is 2: 40 samples rounded up to whole batches.
    """
    return math.ceil(round(count * training.epoch_frac, 6) / training.batch_size)


def samples_per_epoch(count: int, training: Training) -> int:
    """Returns how many of `count` samples an epoch reads.

    Example: with 80 samples, epoch_frac .5 and batches of 32 it is 64: 2 whole batches.
    """
    return min(count, batches_per_epoch(count, training) * training.batch_size)


def planned_steps(count: int, training: Training) -> StepPlan:
    """Returns the steps of a fit to `count` samples, without early stopping.

    Example: 300 samples in batches of 256 are 2 steps an epoch, 6 in 3 epochs; a warmup_frac of .05 is 1 step, rounded up.
    """
    steps = training.epochs * batches_per_epoch(count, training)
    return StepPlan(steps, steps - planned_warmup(steps, training))


def planned_warmup(num_steps: int, training: Training) -> int:
    """Returns the number of warm-up steps among `num_steps`."""
    return math.ceil(training.warmup_frac * num_steps)
