"""The model section of the configuration: the two towers, the history that they read, their negatives and their loss."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from dssm_assets.core.config.section import Section, check_registered


class Similarity(StrEnum):
    """How a user vector and an item vector are compared."""

    COSINE = "COSINE"
    """Cosine: both vectors have length 1."""
    INNER_PRODUCT = "INNER_PRODUCT"
    """Inner product of vectors of any length."""


class Norm(StrEnum):
    """The normalisation between a hidden layer and its activation."""

    LAYER = "layer"
    """Layer normalisation."""
    BATCH = "batch"
    """Batch normalisation."""
    NONE = "none"
    """No normalisation."""


class PoolingKind(StrEnum):
    """How the vectors of the items in a history become one vector."""

    MEAN = "mean"
    """Their mean, weighted by age if there is a half-life."""
    ROOT = "root"
    """Their sum divided by the square root of their number: a long history has a larger vector than a short one."""
    RECENCY = "recency"
    """Their mean weighted by exp(-rank / scale), where the newest event has rank 0."""
    ATTENTION = "attention"
    """Their mean with weights that the tower learns; with `num_interests`, one such mean per interest."""
    SEQUENCE = "sequence"
    """The last position of causal self-attention over the events in their order, with the time between them."""


class Pooling(Section):
    """One way to pool the history. The poolings of one history share its embeddings."""

    kind: PoolingKind | str = Field(
        default=PoolingKind.MEAN,
        union_mode="left_to_right",
        description="How the vectors of the history's items become one: a built-in kind, or the name under which a pooling of your own is registered "
        "(core/models/poolings.py).",
    )
    length: int = Field(default=50, ge=1, le=5000, description="Number of the user's latest events that are pooled.")
    half_life_days: float | None = Field(
        default=None,
        gt=0,
        le=36_600,
        description="For mean and root: days of age, counted from the newest event, in which an event's weight halves.",
    )
    sqrt_repeats: bool = Field(
        default=False,
        description="For all but attention and sequence: n events with one value together have the weight of sqrt(n) events.",
    )
    scale: float = Field(
        default=10.0,
        gt=0,
        le=1_000_000,
        description="For recency: the number of events back at which the weight falls to 1 / e.",
    )
    num_blocks: int = Field(
        default=2, ge=1, le=32, description="For sequence: blocks of self-attention and feed-forward layers."
    )
    num_heads: int = Field(
        default=2,
        ge=1,
        le=64,
        description="For sequence: heads of each self-attention; they share the width of the history's embeddings evenly.",
    )
    dropout: float = Field(
        default=0.2,
        ge=0,
        lt=1,
        description="For sequence: fraction of the inputs, attention weights and outputs of layers that are dropped in training.",
    )

    @field_validator("kind")
    @classmethod
    def _is_registered(cls, kind: PoolingKind | str) -> PoolingKind | str:
        if isinstance(kind, PoolingKind):
            return kind
        from dssm_assets.core.models.poolings import POOLINGS  # not at the top: it imports this module

        return check_registered("pooling", kind, POOLINGS)


class History(StrEnum):
    """Which part of its user's history a training sample sees."""

    EVENT = "event"
    """All events before the sample's event."""
    DAY = "day"
    """All events before the day of the sample's event, as for user vectors that are computed once a day."""
    LEAVE_ONE_OUT = "leave_one_out"
    """All events before the evaluation day, except those with the sample's own item."""


class Targets(StrEnum):
    """Which positive events are to be recalled: what is trained on and what validation counts."""

    ALL = "all"
    """All of them."""
    NEW = "new"
    """Those of items that are not in the user's history, as far as the sample sees it."""


class ItemSnapshot(StrEnum):
    """As of when a sample's own item has its features. Sampled negatives have them as of the day before the evaluation day."""

    SAMPLE = "sample"
    """The day before the sample. Statistics of own items are then older than those of sampled negatives, which the towers can
    tell apart by that alone."""
    CORPUS = "corpus"
    """The day before the evaluation day, as sampled negatives and as the item vectors that are searched. Statistics include the
    window that is trained on; they are the same for an item whether it is a sample's own or a negative."""


class HistoryCut(Section):
    """Histories that end earlier than they could, so that the towers learn to predict more than the next item."""

    sample_frac: float = Field(default=0.0, ge=0, le=1, description="Fraction of the training samples whose history is cut.")
    min_length_frac: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="A cut history keeps a fraction of its oldest events that is drawn uniformly between this and 1.",
    )


class Sampler(StrEnum):
    """The distribution that sampled negatives are drawn from."""

    UNIFORM = "uniform"
    """All items of the corpus with equal probability."""
    WEIGHTED = "weighted"
    """By the weights of the asset negative_items."""
    ALL = "all"
    """Every item of the corpus once, in place of num_sample draws: for corpora of up to some ten thousand items, together with
    in_batch: false."""
    V2 = "v2"
    """As weighted; the user's known positives are masked."""
    MIXED = "mixed"
    """Half uniformly, half by weight."""
    HARD = "hard"
    """As weighted, plus hard negatives: items that the row's user was shown and did not interact with."""
    HARD_V2 = "hard_v2"
    """As v2, plus hard negatives."""


class Loss(StrEnum):
    """The built-in losses."""

    SOFTMAX = "softmax"
    """Softmax cross entropy of the row's item against its negatives, with the logQ correction."""
    SIGMOID = "sigmoid"
    """Binary cross entropy of every pair of user and item by itself, with the logQ correction."""
    L2 = "l2"
    """Squared distance of every pair's similarity from its label, 1 or 0."""


class Model(Section):
    """The two towers, the history that they read, their negatives and their loss."""

    output_dim: int = Field(default=64, ge=2, le=4096, description="Number of dimensions of the user and item vectors.")
    hidden_units: list[Annotated[int, Field(ge=1, le=65_536)]] = Field(
        default=[128], max_length=32, description="Widths of each tower's hidden layers, the first one first."
    )
    norm: Norm = Field(default=Norm.LAYER, description="Normalisation between a hidden layer and its activation.")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="Fraction of the hidden units that are dropped in training.")
    skip: bool = Field(
        default=False,
        description="Adds a skip connection to each tower: a linear map from its shared-embedding columns to its output. These "
        "are the pooled history in the user tower and, in the item tower, the features that share an embedding with it.",
    )
    embedding_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="Fraction of the shared-embedding columns that are dropped in training."
    )
    similarity: Similarity = Field(default=Similarity.COSINE, description="How user and item vectors are compared.")
    frozen_embedding: str | None = Field(
        default=None,
        description="An embedding_name shared by history and item. Its vectors are concatenated to both towers' outputs and not "
        "trained: to a user's the first pooling of the history, to an item's its own vector. training.svd_init sets them.",
    )
    frozen_in_loss: bool = Field(
        default=True,
        description="Whether the loss sees the frozen embedding, so that the towers learn only what it leaves unexplained. "
        "If false, the towers learn without it, and the two scores are added only when the vectors are used.",
    )
    temperature: float = Field(
        default=0.1, gt=0, le=10, description="Similarities are divided by this before the loss; smaller is sharper."
    )
    learn_temperature: bool = Field(
        default=False, description="Whether the temperature is learned; training then starts at `temperature`."
    )
    learn_scale: bool = Field(
        default=False,
        description="For losses of pairs (sigmoid, l2): learns |w| and b of the similarity |w| * similarity + b.",
    )
    num_interests: int = Field(
        default=1, ge=1, le=16, description="Number of vectors per user; more than 1 needs a pooling of kind attention."
    )
    prior: bool = Field(
        default=False,
        description="Adds the items' popularity to the score, in one more dimension of the vectors. Its strength is chosen on "
        "the validation days, so training.validation_days must be above 0.",
    )
    history: History = Field(default=History.EVENT, description="Which part of its user's history a training sample sees.")
    targets: Targets = Field(
        default=Targets.ALL,
        description="Which positive events are trained on and counted on the validation days. With `new`, repeated interactions are "
        "left to the channel of own history.",
    )
    item_snapshot: ItemSnapshot = Field(
        default=ItemSnapshot.SAMPLE, description="As of when a sample's own item has its features."
    )
    history_cut: HistoryCut = Field(
        default=HistoryCut(), description="Cuts the history of some training samples to its oldest events."
    )
    history_length: int = Field(
        default=50, ge=0, le=5000, description="Number of the user's latest events that are pooled; 0: no history."
    )
    history_half_life_days: float | None = Field(
        default=None,
        gt=0,
        le=36_600,
        description="Days of age, counted from the newest event, in which an event's weight in the pooled history halves.",
    )
    poolings: list[Pooling] = Field(
        default=[],
        description="Ways to pool the history, side by side. If empty: the mean by history_length and history_half_life_days.",
    )
    min_history: int = Field(
        default=0, ge=0, le=1_000_000, description="Samples whose user had fewer events before are not trained on; in events."
    )
    context_dropout: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Fraction of the training samples without context features, as in user vectors computed once a day.",
    )
    loss: Loss | str = Field(
        default=Loss.SOFTMAX,
        union_mode="left_to_right",
        description="What is minimised: a built-in loss, or the name under which a loss of your own is registered "
        "(core/models/losses.py).",
    )
    logq: float = Field(
        default=1.0,
        ge=0,
        le=2,
        description="Strength of the logQ correction, which subtracts the log of how often an item is drawn as a negative; "
        "0 switches it off, 1 corrects fully.",
    )
    in_batch: bool = Field(default=True, description="Whether the other items of the batch are negatives.")
    sampler: Sampler | str = Field(
        default=Sampler.WEIGHTED,
        union_mode="left_to_right",
        description="The distribution that sampled negatives are drawn from: a built-in sampler, or the name under which a sampler of your own is "
        "registered (core/models/samplers.py).",
    )
    num_sample: int = Field(
        default=1024,
        ge=0,
        le=1_000_000,
        description="Number of sampled negatives per batch; all rows of the batch share them. The sampler `all` does not read it.",
    )
    num_hard_sample: int = Field(
        default=64, ge=0, le=1_000_000, description="For hard and hard_v2: largest number of hard negatives per batch."
    )
    queue_batches: int = Field(
        default=0,
        ge=0,
        le=10_000,
        description="Number of previous batches whose items are negatives too, with the vectors that they had then.",
    )
    user_positive_mask: bool = Field(
        default=False,
        description="Whether a negative that the row's user is known to have interacted with is left out for that row.",
    )
    event_weights: dict[str, Annotated[float, Field(gt=0, le=1_000_000)]] = Field(
        default={}, description="Weight in the loss of the samples of each positive event; 1 for events that are not named."
    )
    recency_half_life_days: float | None = Field(
        default=None,
        gt=0,
        le=36_600,
        description="Days before the evaluation day in which a sample's weight in the loss halves. If unset, age does not count.",
    )

    @property
    def history_poolings(self) -> tuple[Pooling, ...]:
        """The ways in which the history is pooled; none if there is no history."""
        if not self.history_length:
            return ()
        plain = Pooling(length=self.history_length, half_life_days=self.history_half_life_days)
        return tuple(self.poolings) or (plain,)

    @property
    def masks_user_positives(self) -> bool:
        """Whether negatives that the row's user is known to have interacted with are left out."""
        return self.user_positive_mask or self.sampler in (Sampler.V2, Sampler.HARD_V2)

    @property
    def has_hard_negatives(self) -> bool:
        """Whether items that a user was shown and did not interact with are negatives."""
        return self.sampler in (Sampler.HARD, Sampler.HARD_V2) and self.num_hard_sample > 0

    @field_validator("loss")
    @classmethod
    def _has_registered_loss(cls, loss: Loss | str) -> Loss | str:
        if isinstance(loss, Loss):
            return loss
        from dssm_assets.core.models.losses import LOSSES  # not at the top: it imports torch

        return check_registered("loss", loss, LOSSES)

    @field_validator("sampler")
    @classmethod
    def _has_registered_sampler(cls, sampler: Sampler | str) -> Sampler | str:
        if isinstance(sampler, Sampler):
            return sampler
        from dssm_assets.core.models.samplers import SAMPLERS  # not at the top: it imports this module

        return check_registered("sampler", sampler, SAMPLERS)

    @model_validator(mode="after")
    def _coherent(self) -> Model:
        faults = []
        if self.num_interests > 1 and not any(p.kind is PoolingKind.ATTENTION for p in self.history_poolings):
            faults.append("num_interests above 1 needs a pooling of kind attention")
        if self.poolings and not self.history_length:
            faults.append("poolings need a history_length above 0")
        if self.queue_batches and not self.in_batch:
            faults.append("queue_batches needs in_batch")
        if faults:
            raise ValueError("; ".join(faults))
        return self
