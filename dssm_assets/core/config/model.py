"""The model section: the two towers, the past that they read, their negatives and their loss.

Belongs here: the keys, their bounds and what one demands of another. Does not belong here: how weights are fitted
(`training_config.py`) and what the towers compute (`core/models`).
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dssm_assets.core.config.section import Section


class Similarity(StrEnum):
    """How the two towers' vectors are compared."""

    COSINE = "COSINE"
    INNER_PRODUCT = "INNER_PRODUCT"


class Norm(StrEnum):
    """What stands between a hidden layer and its activation."""

    LAYER = "layer"
    BATCH = "batch"
    NONE = "none"


class PoolingKind(StrEnum):
    """How the vectors of past items become one."""

    MEAN = "mean"
    """Their mean, by age if there is a half-life."""
    ROOT = "root"
    """Their sum divided by the root of their number: long histories count for more, but not in full."""
    RECENCY = "recency"
    """Their mean weighted by exp(-rank / scale), rank 0 the newest."""
    ATTENTION = "attention"
    """Their mean by weights that the tower learns; several with `num_interests`."""


class Pooling(Section):
    """One way to read the past; a tower may have several of one history, which share its embeddings."""

    kind: PoolingKind = PoolingKind.MEAN
    length: int = Field(default=50, ge=1, le=5000, description="Last items of the user history that are pooled.")
    half_life_days: float | None = Field(
        default=None, gt=0, description="mean and root: older items count half per this many days."
    )
    sqrt_repeats: bool = Field(
        default=False,
        description="All but attention: the events of one value count together the root of what they would count.",
    )
    scale: float = Field(default=10.0, gt=0, description="recency: the rank at which an item counts 1 / e of the newest.")


class History(StrEnum):
    """Which past a training sample sees."""

    EVENT = "event"
    """Everything strictly before the event."""
    DAY = "day"
    """Everything before the event's day: what a user tower that is called once a day sees."""
    LEAVE_ONE_OUT = "leave_one_out"
    """Everything that the user took up to the eve of the evaluation day, except the sample's own item."""


class HistoryCut(Section):
    """A past that ends earlier than it could, so that the tower learns to foresee more than the very next item."""

    sample_frac: float = Field(default=0.0, ge=0, le=1, description="Share of the samples whose past is cut.")
    min_length_frac: float = Field(
        default=0.75, ge=0, le=1, description="The share of the past that is kept is drawn evenly between this and 1."
    )


class Sampler(StrEnum):
    """Where sampled negatives come from."""

    UNIFORM = "uniform"
    """Every corpus item alike."""
    WEIGHTED = "weighted"
    """By the weights of negative_items."""
    V2 = "v2"
    """By weight; what a row's user is known to have taken does not count for that row."""
    MIXED = "mixed"
    """A share of them uniform, the others by weight."""
    HARD = "hard"
    """By weight, and beside them items that the row's user was shown and did not take."""
    HARD_V2 = "hard_v2"
    """As v2, and beside them items that the row's user was shown and did not take."""


class Loss(StrEnum):
    """What is minimised."""

    SOFTMAX = "softmax"
    """Cross entropy of the row's item against its negatives, with the logQ correction."""
    SIGMOID = "sigmoid"
    """Binary cross entropy of every pair by itself."""
    L2 = "l2"
    """Squared distance of every pair's similarity from 1 or 0."""


class Model(Section):
    """The two towers and their loss."""

    output_dim: int = Field(default=64, ge=2, le=4096, description="Width D of both towers' vectors.")
    hidden_units: list[int] = Field(default=[128], description="Hidden layers of each tower.")
    norm: Norm = Norm.LAYER
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Of hidden layers.")
    skip: bool = Field(
        default=False,
        description="Adds to each tower's output a linear map without bias: of the pooled history in the user tower, of "
        "the item features that share an embedding with it in the item tower.",
    )
    embedding_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Of the pooled history, and of the item features that share its embedding."
    )
    similarity: Similarity = Similarity.COSINE
    frozen_embedding: str | None = Field(
        default=None,
        description="embedding_name that past and item share: no tower changes it and nothing moves it. The last places of a "
        "user's vector are its first pooling of the past, of an item's its own row, as training.svd_init begins them.",
    )
    frozen_in_loss: bool = Field(
        default=True,
        description="The loss sees the held embedding: towers learn what it leaves open. Off: they learn all by themselves, and "
        "the two are added up where they are served.",
    )
    temperature: float = Field(default=0.1, gt=0, le=10)
    learn_temperature: bool = Field(default=False, description="The temperature is where the learning starts.")
    learn_scale: bool = Field(default=False, description="Point-wise losses: learns |w| * similarity + b.")
    num_interests: int = Field(default=1, ge=1, le=16, description="Vectors per user; more than 1 needs attention pooling.")
    prior: bool = Field(
        default=False,
        description="A popularity prior of the items in one dimension more, chosen on the validation days: needs them.",
    )
    history: History = History.EVENT
    history_cut: HistoryCut = HistoryCut()
    history_length: int = Field(
        default=50, ge=0, le=5000, description="Last items of the user history that are pooled; 0: no history."
    )
    history_half_life_days: float | None = Field(
        default=None, gt=0, description="Older history counts half per this many days."
    )
    poolings: list[Pooling] = Field(
        default=[], description="Ways to pool the history; none: the mean by history_length and history_half_life_days."
    )
    min_history: int = Field(default=0, ge=0, description="Samples whose user took less than this before are not trained on.")
    context_dropout: float = Field(default=0.5, ge=0, le=1, description="Share of samples trained without context features.")
    loss: Loss | str = Field(
        default=Loss.SOFTMAX,
        union_mode="left_to_right",
        description="What is minimised: a built-in loss, or the name under which a loss of your own is registered "
        "(core/models/losses/registry.py).",
    )
    logq: float = Field(default=1.0, ge=0, le=2, description="Strength of the logQ correction; 0 switches it off.")
    in_batch: bool = Field(default=True, description="The batch's other items are negatives.")
    sampler: Sampler = Sampler.WEIGHTED
    num_sample: int = Field(default=1024, ge=0, description="Sampled negatives per batch, shared by its rows.")
    uniform_frac: float = Field(default=0.5, ge=0, le=1, description="mixed: share of the sampled negatives drawn uniformly.")
    num_hard_sample: int = Field(default=64, ge=0, description="hard, hard_v2: hard negatives per batch, at most.")
    queue_batches: int = Field(
        default=0, ge=0, description="Items of this many batches before are negatives too, with the vectors they had then."
    )
    collision_mask: bool = Field(default=True, description="A negative that is the row's own item does not count.")
    user_positive_mask: bool = Field(
        default=False, description="A negative that the user is known to have taken does not count."
    )
    event_weights: dict[str, float] = Field(
        default={}, description="Positive event -> weight of its samples in the loss (default 1)."
    )
    recency_half_life_days: float | None = Field(
        default=None, gt=0, description="A sample counts half per this many days before the evaluation day."
    )

    @property
    def history_poolings(self) -> tuple[Pooling, ...]:
        """The ways in which the history is pooled; none where there is no history."""
        if not self.history_length:
            return ()
        plain = Pooling(length=self.history_length, half_life_days=self.history_half_life_days)
        return tuple(self.poolings) or (plain,)

    @property
    def masks_user_positives(self) -> bool:
        """Whether what a row's user is known to have taken does not count for it."""
        return self.user_positive_mask or self.sampler in (Sampler.V2, Sampler.HARD_V2)

    @property
    def has_hard_negatives(self) -> bool:
        """Whether items that were shown and not taken are negatives."""
        return self.sampler in (Sampler.HARD, Sampler.HARD_V2) and self.num_hard_sample > 0

    @field_validator("loss")
    @classmethod
    def _check_registered(cls, loss: Loss | str) -> Loss | str:
        if isinstance(loss, Loss):
            return loss
        from dssm_assets.core.models.losses.registry import LOSSES  # not at the top: it imports torch

        if loss not in LOSSES:
            raise PydanticCustomError("unknown_loss", f"a registered loss: {', '.join(LOSSES)}")
        return loss

    @model_validator(mode="after")
    def _coherent(self) -> Model:
        faults = []
        if self.num_interests > 1 and not any(p.kind is PoolingKind.ATTENTION for p in self.history_poolings):
            faults.append("num_interests above 1 needs a pooling of kind attention")
        if self.poolings and not self.history_length:
            faults.append("poolings need a history_length above 0")
        if self.queue_batches and not self.in_batch:
            faults.append("queue_batches needs in_batch")
        if bad := [name for name, weight in self.event_weights.items() if not weight > 0]:
            faults.append(f"event_weights must be above 0: {', '.join(bad)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self
