"""The settings of each data set and split, and where they were chosen.

All were chosen on the inner split (the rule applied again inside the training part) and are used once per seed on the outer one.
ML-1M has its own pace (batch, rates); otherwise splits differ in the history that a sample sees: for the last 20 % one that ends
up to a quarter early, for leave-one-out the exact history, for calendar splits any share of it, or all other items of the user.

Settings of text files are the same for every file, up to the numbers of events and items. Validation inside the training part
decides what is added to the best of the candidates, how strongly, and how many epochs each is fitted (`quality_choice.py`). Their
values were chosen on the inner splits of files that are derived from MovieLens, Online Retail and Complete Journey.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from dssm_assets.core.config.model import History, HistoryCut, Model, Norm, Pooling, PoolingKind, Sampler
from dssm_assets.core.config.training import EmbeddingOptimiser, SvdInit, Training
from dssm_assets.core.models.prior import Prior
from dssm_assets_tests.benchmarks.quality_data import CODE, Split

MEAN_50 = Pooling(kind=PoolingKind.MEAN, length=50)
ROOT_200 = Pooling(kind=PoolingKind.ROOT, length=200)
ROOT_ALL = Pooling(kind=PoolingKind.ROOT, length=3000)
RECENCY_10 = Pooling(kind=PoolingKind.RECENCY, length=50, scale=10.0)


@dataclass(frozen=True)
class Settings:
    """One configuration of ours.

    Attributes:
        with_user_id: the user id is a feature.
        with_side: gender, age, occupation, zip; genres, year.
        with_counts: an item's popularity is a feature of it.
        with_gap: the time since the user's last event is a feature of the query.
        is_timed: events have times; without, popularity is that of all events only.
        id_dim: width of item and user embeddings; side_dim: of the others; code_dim: of the frozen embedding, 0 without.
        fits: number of fits with seeds of their own, whose vectors are concatenated.
    """

    model: Model
    training: Training
    with_user_id: bool = True
    with_side: bool = True
    with_counts: bool = True
    with_gap: bool = False
    is_timed: bool = True
    id_dim: int = 64
    side_dim: int = 16
    code_dim: int = 0
    fits: int = 1

    def with_model(self, **changes: Any) -> Settings:
        return replace(self, model=Model.model_validate({**self.model.model_dump(), **changes}))

    def with_training(self, **changes: Any) -> Settings:
        return replace(self, training=Training.model_validate({**self.training.model_dump(), **changes}))


@dataclass(frozen=True)
class Chosen:
    """What is added up.

    Attributes:
        parts: settings, and the factor of their vectors' products.
        codes: codes in closed form whose products are added, with an embedding of no feature.
        prior: in one more dimension, in units of the products.
        neighbours_std: deviation of the scores of neighbours that are added; 0 without.
    """

    parts: tuple[tuple[Settings, float], ...]
    codes: SvdInit | None = None
    prior: Prior | None = None
    neighbours_std: float = 0.0

    def with_gap(self) -> Chosen:
        """Returns the same with queries that know how long after the user's last event they are."""
        return replace(self, parts=tuple((replace(settings, with_gap=True), factor) for settings, factor in self.parts))


@dataclass(frozen=True)
class _Pace:
    """Batches, rates and epochs of a data set."""

    batch_size: int
    rate: float
    weight_average: float
    epochs: int


SMALL = _Pace(batch_size=256, rate=1e-3, weight_average=0.998, epochs=6)
LARGE = _Pace(batch_size=512, rate=2e-3, weight_average=0.999, epochs=4)


_Recipe = dict[str, Any]
"""Keys of `Settings` and `Chosen`; `model` and `training` hold what differs between splits."""
_LAST_PART: _Recipe = {"model": {"history_cut": HistoryCut(sample_frac=0.5, min_length_frac=0.75)}}
_LAST_ONE: _Recipe = {}
# Batch and rates by the training loss of the first steps on the inner split; negatives by two epochs of a third of its users; blocks by
# six epochs; codes and neighbours, beside two encoders of two blocks, by HR@200 of a third of the users; epochs by an hour.
_ENCODED: _Recipe = {
    "model": {
        "output_dim": 64,
        "hidden_units": [],
        "dropout": 0.0,
        "embedding_dropout": 0.0,
        "temperature": 0.07,
        "poolings": [Pooling(kind=PoolingKind.SEQUENCE, length=200, num_blocks=8, num_heads=2, dropout=0.2)],
        "sampler": Sampler.ALL,
        "in_batch": False,
    },
    "training": {"group_users": True, "embedding_learning_rate": 6e-3, "warmup_frac": 0.02, "final_learning_rate_frac": 0.1},
    "with_user_id": False,
    "with_side": False,
    "with_counts": False,
    "codes": SvdInit(embedding=CODE, score_std=0.035, ridge=30.0, user_exponent=0.5),
    "neighbours_std": 0.03,
}
# Codes and prior of both calendar splits on the mean of the inner split and the same 15 and 30 (90 and 180) days earlier, one seed.
_ANY_SHARE: _Recipe = {
    "model": {
        "history_cut": HistoryCut(sample_frac=1.0, min_length_frac=0.0),
        "recency_half_life_days": 41.6,
        "poolings": [ROOT_ALL, MEAN_50, RECENCY_10],
        "history_length": 3000,
    },
    "training": {"svd_init": SvdInit(embedding=CODE, scale=5.0, ridge=1000.0)},
    "with_user_id": False,
    "prior": Prior(popularity=0.0, recent=0.4, half_life_days=5.0),
    "code_dim": 32,
}
_ALL_OTHERS: _Recipe = {
    "model": {
        "history": History.LEAVE_ONE_OUT,
        "min_history": 20,
        "poolings": [ROOT_ALL, Pooling(kind=PoolingKind.MEAN, length=400)],
        "history_length": 3000,
        "recency_half_life_days": 253.0,
        "frozen_in_loss": False,
    },
    "training": {"svd_init": SvdInit(embedding=CODE, scale=6.9, ridge=3000.0, popularity_exponent=0.25)},
    "with_user_id": False,
    "prior": Prior(popularity=0.0, recent=0.3, half_life_days=60.0),
    "code_dim": 128,
}
_CHOSEN: dict[tuple[str, str], tuple[_Pace, _Recipe]] = {
    ("ml-100k", "lastpct-20"): (SMALL, _LAST_PART),
    ("ml-100k", "loo"): (SMALL, _LAST_ONE),
    ("ml-100k", "temporal-60"): (SMALL, _ANY_SHARE),
    ("ml-1m", "lastpct-20"): (LARGE, _LAST_PART),
    ("ml-1m", "loo"): (_Pace(batch_size=1600, rate=3e-3, weight_average=0.998, epochs=10), _ENCODED),
    ("ml-1m", "temporal-180"): (replace(LARGE, weight_average=0.998, epochs=1), _ALL_OTHERS),
}
_EASE_L2: Final = {
    ("ml-100k", ""): 700.0,
    ("ml-100k", "loo"): 500.0,
    ("ml-100k", "temporal-60"): 3000.0,
    ("ml-1m", ""): 3000.0,
    ("ml-1m", "loo"): 1000.0,
}
"""Data set and split, or "" for the other splits -> l2."""


def chosen(dataset: str, split: str) -> Chosen:
    """Returns the settings chosen for a data set and split; for other splits those of the nearest known one."""
    kind = split.partition("-")[0]
    pace, recipe = _CHOSEN.get((dataset, split)) or next(
        value for (_, known), value in _CHOSEN.items() if known.partition("-")[0] == kind
    )
    code_dim = recipe.get("code_dim", 0)
    model = {
        "output_dim": 128 + code_dim,
        "frozen_embedding": CODE if code_dim else None,
        "hidden_units": [128],
        "norm": Norm.NONE,
        "dropout": 0.1,
        "skip": True,
        "embedding_dropout": 0.2,
        "temperature": 0.1,
        "history_length": 200,
        "poolings": [MEAN_50, ROOT_200, RECENCY_10],
        "num_sample": 0,
        **recipe.get("model", {}),
    }
    added = {name: value for name, value in recipe.items() if name in ("codes", "prior", "neighbours_std")}
    given = {name: value for name, value in recipe.items() if name not in added}
    given |= {"model": Model(**model), "training": _training(pace, **recipe.get("training", {}))}
    return Chosen(((Settings(**given), 1.0),), **added)


def _training(pace: _Pace, **changes: Any) -> Training:
    values = {
        "epochs": pace.epochs,
        "batch_size": pace.batch_size,
        "learning_rate": pace.rate,
        "embedding_optimiser": EmbeddingOptimiser.ADAM,
        "embedding_learning_rate": pace.rate,
        "warmup_frac": 0.0,
        "final_learning_rate_frac": 1.0,
        "weight_average": pace.weight_average,
        "checkpoint_minutes": None,
        "num_threads": 1,
    }
    return Training(**{**values, **changes})


def peer_settings(name: str, dataset: str, split: str) -> dict[str, Any] | None:
    """Returns the settings of a peer for a log: EASE's of the split, else of the data set; None for a peer without any."""
    l2 = _EASE_L2.get((dataset, split)) or _EASE_L2.get((dataset, "")) or _EASE_L2["ml-100k", ""]
    als = {"factors": 16, "alpha": 5.0, "regularization": 10.0, "iterations": 15}
    return {"popularity": {}, "ease": {"l2": l2}, "als": als}.get(name)


MAX_SOFTMAX_ITEMS: Final = 8_000
"""Items up to which the loss is a softmax over all of them; of more items, those of the batch and others are drawn."""
MAX_SAMPLES: Final = 6_000_000
"""Samples of all epochs of one fit: some quarter of an hour on one thread."""
LARGE_EVENTS: Final = 500_000
"""Events from which on batches are large."""
SMALL_EVENTS: Final = 200_000
"""Events up to which a candidate has two fits and 4,096 negatives, else one, 2,048 and twice the batch, which has the same hit rate after
each epoch in two thirds of the time: some 40 CPU-minutes of a set."""
LONG_EVENTS: Final = 50.0
"""Events per user from which on the encoder reads 200 of them, with less dropout."""
TEXT_PEERS: Final[dict[str, dict[str, Any]]] = {
    "popularity": {},
    "ease": {"l2": 500.0},
    "als": {"factors": 64, "alpha": 5.0, "regularization": 10.0, "iterations": 15},
    "sasrec": {
        "n_factors": 64,
        "n_blocks": 2,
        "n_heads": 2,
        "dropout_rate": 0.5,
        "session_max_len": 50,
        "loss": "softmax",
        "temperature": 0.05,
        "lr": 4e-3,
        "batch_size": 128,
        "epochs": 40,
    },
}
ADDED_CODES: Final = SvdInit(embedding=CODE, ridge=30.0, popularity_exponent=0.25, user_exponent=0.5)
"""Codes that validation may add, in the strength that it finds."""


def text_candidates(split: Split) -> dict[str, Settings]:
    """Returns the candidates by name, for a training part of this size."""
    events = len(split.user)
    poolings = {"poolings": _poolings(events, is_ordered=split.is_ordered)}
    per_user = events / max(1, len(split.user_ids))
    return {"encoder": _encoder(events, len(split.item_ids), per_user), **poolings} if split.is_ordered else poolings


def _encoder(events: int, items: int, events_per_user: float) -> Settings:
    """The encoder alone, whose state is the user's vector."""
    is_long = events_per_user >= LONG_EVENTS
    length, dropout = (200, 0.2) if is_long else (50, 0.5)
    negatives = (
        {"sampler": Sampler.ALL, "in_batch": False}
        if items <= MAX_SOFTMAX_ITEMS
        else {"num_sample": 4096 if events <= SMALL_EVENTS else 2048}
    )
    model = {
        "output_dim": 64,
        "hidden_units": [],
        "dropout": 0.0,
        "history_length": length,
        "poolings": [{"kind": PoolingKind.SEQUENCE, "length": length, "num_blocks": 2, "num_heads": 2, "dropout": dropout}],
        **negatives,
    }
    batch_size = 1600 if events >= LARGE_EVENTS else 512 if events > SMALL_EVENTS else 256
    pace = {"learning_rate": 3e-3, "embedding_learning_rate": 6e-3, "batch_size": batch_size}
    settings = replace(_settings(model, events=events), with_counts=False)
    return settings.with_training(group_users=True, warmup_frac=0.02, **pace)


def _poolings(events: int, *, is_ordered: bool) -> Settings:
    """The very last item, the last few and all of them; without an order all other items of the user."""
    recent = [Pooling(kind=PoolingKind.RECENCY, length=50, scale=scale) for scale in (1.0, 4.0)]
    ordered = {"history_length": 200, "poolings": [*recent, ROOT_200]}
    others = {
        "history": History.LEAVE_ONE_OUT,
        "history_length": 3000,
        "poolings": [ROOT_ALL, Pooling(kind=PoolingKind.MEAN, length=3000)],
    }
    model = {
        "output_dim": 128,
        "hidden_units": [128],
        "dropout": 0.1,
        "embedding_dropout": 0.2,
        "num_sample": 0,
        **(ordered if is_ordered else others),
    }
    return _settings(model, events=events)


def _settings(model: dict[str, Any], *, events: int) -> Settings:
    fitted = Model(norm=Norm.NONE, skip=True, temperature=0.1, min_history=1, **model)
    training = _training(_Pace(512, 2e-3, 0.998, epochs=min(30, max(2, MAX_SAMPLES // max(1, events)))))
    fits = 2 if events <= SMALL_EVENTS else 1
    return Settings(fitted, training, with_user_id=False, with_side=False, is_timed=False, fits=fits)
