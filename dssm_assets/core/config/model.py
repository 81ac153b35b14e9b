"""The model section of the configuration: the two towers, the history that they read, their negatives and their loss."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, model_validator

from dssm_assets.core.config.section import Section, registered


class Similarity(StrEnum):
    """How a user vector and an item vector are compared."""

    COSINE = "COSINE"
    """Cosine: both vectors have length 1."""
    INNER_PRODUCT = "INNER_PRODUCT"
    """Inner product of vectors of any length."""


class Norm(StrEnum):
    """The normalisation between a hidden layer and its activation."""

    LAYER = "layer"
    BATCH = "batch"
    NONE = "none"


class PoolingKind(StrEnum):
    """How the vectors of the items in a history become one vector."""

    MEAN = "mean"
    """Their mean, weighted by age if there is a half-life."""
    ROOT = "root"
    """Their sum divided by the square root of their number: long histories have larger vectors."""
    RECENCY = "recency"
    """Their mean weighted by exp(-rank / scale), where the newest event has rank 0."""
    ATTENTION = "attention"
    """Their mean with learned weights; with `num_interests`, one such mean per interest."""
    SEQUENCE = "sequence"
    """The last position of causal self-attention over the events, with the time between them."""


class Pooling(Section):
    """One way to pool the history into a vector. All poolings share the embeddings."""

    kind: Annotated[
        PoolingKind | str,
        Field(union_mode="left_to_right"),
        registered("pooling", PoolingKind),
    ] = Field(default=PoolingKind.MEAN, description="A built-in kind, or one that a plug-in registers.")
    length: int = Field(default=50, ge=1, le=5000, description="Latest events that are pooled.")
    half_life_days: float | None = Field(
        default=None, gt=0, le=36_600, description="mean, root: days before the newest event that halve an event's weight."
    )
    sqrt_repeats: bool = Field(default=False, description="Not for attention, sequence: n equal values weigh as sqrt(n).")
    scale: float = Field(default=10.0, gt=0, le=1_000_000, description="recency: events after which a weight falls to 1 / e.")
    num_blocks: int = Field(default=2, ge=1, le=32, description="sequence: blocks of self-attention and feed-forward layers.")
    num_heads: int = Field(default=2, ge=1, le=64, description="sequence: heads; they divide the embedding's width evenly.")
    dropout: float = Field(default=0.2, ge=0, lt=1, description="sequence: dropout of inputs, attention weights and outputs.")


class History(StrEnum):
    """Which events of a user a training sample may see."""

    EVENT = "event"
    """Those before the sample's event."""
    DAY = "day"
    """Those before its day, as for the daily user vectors."""
    LEAVE_ONE_OUT = "leave_one_out"
    """Those before the evaluation day, except events with the sample's own item."""


class Targets(StrEnum):
    """Which positive events are training targets and count in validation."""

    ALL = "all"
    NEW = "new"
    """Those of items outside the history of the sample."""


class ItemSnapshot(StrEnum):
    """The day from which a sample's own item takes its features. Sampled negatives use the day before the evaluation day."""

    SAMPLE = "sample"
    """The day before the sample. Own items then have older statistics than sampled negatives, which the towers can learn."""
    CORPUS = "corpus"
    """The day before the evaluation day, as sampled negatives and item vectors. Statistics then include the training window."""


class HistoryCut(Section):
    """Cuts training histories earlier than necessary, so that the towers learn to predict more than the next item."""

    sample_frac: float = Field(default=0.0, ge=0, le=1, description="Fraction of the training samples with a cut history.")
    min_length_frac: float = Field(
        default=0.75, ge=0, le=1, description="A cut history keeps its oldest events: a fraction drawn between this and 1."
    )


class Sampler(StrEnum):
    """The distribution from which negatives are sampled."""

    UNIFORM = "uniform"
    """All items with equal probability."""
    WEIGHTED = "weighted"
    """By the weights of the asset negative_items."""
    ALL = "all"
    """Every item once, for up to some ten thousand items with `in_batch: false`."""
    V2 = "v2"
    """As weighted; the user's known positives are masked."""
    MIXED = "mixed"
    """Half uniformly, half by weight."""
    HARD = "hard"
    """As weighted, plus hard negatives: items that the user was shown and did not interact with."""
    HARD_V2 = "hard_v2"
    """As v2, plus hard negatives."""


class Loss(StrEnum):
    """The built-in losses."""

    SOFTMAX = "softmax"
    """Softmax cross entropy of an item against its negatives, with the logQ correction."""
    SIGMOID = "sigmoid"
    """Binary cross entropy of every pair of user and item, with the logQ correction."""
    L2 = "l2"
    """Squared distance of every pair's similarity from its label, 1 or 0."""


class Model(Section):
    """The two towers, the history that they read, their negatives and their loss."""

    output_dim: int = Field(default=64, ge=2, le=4096, description="Dimensions of the user and item vectors.")
    hidden_units: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
        default=[128], max_length=32, description="Widths of each tower's hidden layers, the first one first."
    )
    norm: Norm = Field(default=Norm.LAYER, description="Normalisation between a hidden layer and its activation.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Fraction of the hidden units dropped in training.")
    skip: bool = Field(
        default=False,
        description="Adds a linear map from a tower's shared-embedding columns to its output: the pooled history of the user, "
        "and the item's features of the same embedding.",
    )
    embedding_dropout: float = Field(default=0.0, ge=0, lt=1, description="Dropout of the shared-embedding columns.")
    similarity: Similarity = Field(default=Similarity.COSINE, description="How user and item vectors are compared.")
    frozen_embedding: str | None = Field(
        default=None,
        description="An embedding_name of history and item, set by training.svd_init and not trained. The first pooling of "
        "the history is concatenated to the user tower's output, the item's vector to the item tower's.",
    )
    frozen_in_loss: bool = Field(
        default=True, description="Whether the loss sees the frozen embedding; if not, its score is added in use."
    )
    temperature: float = Field(default=0.1, gt=0, le=10, description="Divides similarities in the loss; smaller is sharper.")
    learn_temperature: bool = Field(default=False, description="Whether the temperature is learned, starting at `temperature`.")
    learn_scale: bool = Field(default=False, description="sigmoid, l2: learns |w| and b of |w| * similarity + b.")
    num_interests: int = Field(default=1, ge=1, le=16, description="Vectors per user; above 1 needs an attention pooling.")
    prior: bool = Field(
        default=False,
        description="Adds the items' popularity and growth as one more dimension; training.validation_days choose how much.",
    )
    history: History = Field(default=History.EVENT, description="Which events of its user a training sample sees.")
    targets: Targets = Field(
        default=Targets.ALL, description="Positive events to train on. `new` leaves repeats to the channel of own history."
    )
    item_snapshot: ItemSnapshot = Field(default=ItemSnapshot.SAMPLE, description="Day of the features of a sample's own item.")
    history_cut: HistoryCut = Field(default=HistoryCut(), description="Cuts the history of some training samples.")
    history_length: int = Field(default=50, ge=0, le=5000, description="Latest events that are pooled; 0: no history.")
    poolings: list[Pooling] = Field(default=[], description="Side by side; if empty, the mean of history_length events.")
    min_history: int = Field(default=0, ge=0, le=1_000_000, description="Samples after fewer events are left out.")
    context_dropout: float = Field(
        default=0.5, ge=0, le=1, description="Fraction of training samples without context features, as in daily user vectors."
    )
    loss: Annotated[Loss | str, Field(union_mode="left_to_right"), registered("loss", Loss)] = Field(
        default=Loss.SOFTMAX, description="A built-in loss, or one that a plug-in registers."
    )
    logq: float = Field(
        default=1.0, ge=0, le=2, description="Strength of the logQ correction, which subtracts the log of an item's draw rate."
    )
    in_batch: bool = Field(default=True, description="Whether the other items of the batch are negatives.")
    sampler: Annotated[
        Sampler | str,
        Field(union_mode="left_to_right"),
        registered("sampler", Sampler),
    ] = Field(default=Sampler.WEIGHTED, description="A built-in sampler, or one that a plug-in registers.")
    num_sample: int = Field(
        default=1024, ge=0, le=1_000_000, description="Sampled negatives of a batch, for all rows; not for sampler `all`."
    )
    num_hard_sample: int = Field(default=64, ge=0, le=1_000_000, description="hard, hard_v2: most hard negatives per batch.")
    user_positive_mask: bool = Field(
        default=False, description="Whether a user's known items are left out of the negatives of that user's rows."
    )
    event_weights: dict[str, Annotated[float, Field(gt=0, le=1_000_000)]] = Field(
        default={}, description="Positive event -> weight of its samples in the loss; 1 for others."
    )
    recency_half_life_days: float | None = Field(
        default=None, gt=0, le=36_600, description="Days before the evaluation day that halve a sample's weight."
    )

    @property
    def history_poolings(self) -> tuple[Pooling, ...]:
        if not self.history_length:
            return ()
        return tuple(self.poolings) or (Pooling(length=self.history_length),)

    @property
    def masks_user_positives(self) -> bool:
        return self.user_positive_mask or self.sampler in (Sampler.V2, Sampler.HARD_V2)

    @property
    def has_hard_negatives(self) -> bool:
        return self.sampler in (Sampler.HARD, Sampler.HARD_V2) and self.num_hard_sample > 0

    @model_validator(mode="after")
    def _coherent(self) -> Model:
        faults = []
        if self.num_interests > 1 and not any(p.kind is PoolingKind.ATTENTION for p in self.history_poolings):
            faults.append("num_interests above 1 needs a pooling of kind attention")
        if self.poolings and not self.history_length:
            faults.append("poolings need a history_length above 0")
        if faults:
            raise ValueError("; ".join(faults))
        return self
