"""The fixed settings of text files without times and side features: `sequences` (leave one out) and `pair` (train and test).

They are the same for every file, up to facts of it: the number of items, and of events per user. Sequences have two
candidates, the encoder and three poolings. Validation inside the training part decides for one of them or their sum, for their
epochs, and for how strongly codes in closed form, neighbours of items and popularity are added (`quality_choice.py`): which is
best depends on how much the order of a line says. A graph, whose order means nothing, has towers that read all other items of a
user, next to codes in closed form, which alone are near EASE. All values were chosen on files that are derived from the data sets
of the other splits, on their inner splits (`docs/recall_experiments.md`).

Belongs here: values and rules. Does not belong here: settings of MovieLens (`quality_settings.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from dssm_assets.core.config.model import History, Model, Norm, Pooling, PoolingKind, Sampler
from dssm_assets.core.config.training import EmbeddingOptimiser, SvdInit, Training
from dssm_assets_tests.benchmarks.quality_features import CODE
from dssm_assets_tests.benchmarks.quality_settings import Settings

LOO, PAIR = "loo", "pair"
MAX_SOFTMAX_ITEMS: Final = 20_000
"""Items up to which the loss is a softmax over all of them; of more items, those of the batch and 1,024 are drawn."""
MAX_SAMPLES: Final = 6_000_000
"""Samples of all epochs of one fit: some quarter of an hour on one thread."""
LARGE_EVENTS: Final = 500_000
"""Events from which on batches are large and there is one fit of each part instead of two."""
LONG_EVENTS: Final = 50.0
"""Events per user from which on the encoder reads 200 of them, with less dropout."""
CHOSEN_ON: Final = "inner splits of files derived from MovieLens, Online Retail and Complete Journey"
EASE_L2: Final = 500.0
_SASREC: Final[dict[str, Any]] = {
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
}
"""A softmax over all items, which one over sampled items approximates, costs less than one over 256 here."""
_LIGHTGCN: Final[dict[str, Any]] = {"dim": 64, "layers": 3, "lr": 5e-3, "l2": 1e-3, "batch_size": 2048, "epochs": 120}
ADDED_CODES: Final = SvdInit(embedding=CODE, score_std=0.05, ridge=30.0, popularity_exponent=0.25, user_exponent=0.5)
"""Codes whose products validation may add; those of a candidate have a deviation of .15 to .25, of their sum of .3."""


def text_candidates(rule: str, *, events: int, items: int, events_per_user: float) -> dict[str, Settings]:
    """Returns the candidates of a rule, loo or pair, by name, for a training part of this size."""
    if rule == PAIR:
        return {"codes and towers": _pair(events)}
    parts = {"encoder": _encoder(events, items, events_per_user), "poolings": _poolings(events)}
    fits = 1 if events >= LARGE_EVENTS else 2
    return {name: replace(part, fits=fits, added_codes=ADDED_CODES) for name, part in parts.items()}


def text_peer_settings(name: str) -> dict[str, Any]:
    """Returns the settings of a peer."""
    known: dict[str, dict[str, Any]] = {
        "ease": {"l2": EASE_L2},
        "als": {"factors": 64, "alpha": 5.0, "regularization": 10.0, "iterations": 15},
        "sasrec": _SASREC,
        "lightgcn": _LIGHTGCN,
    }
    return known.get(name, {})


def _encoder(events: int, items: int, events_per_user: float) -> Settings:
    """The encoder alone, whose state is the user's vector."""
    is_long = events_per_user >= LONG_EVENTS
    length = 200 if is_long else 50
    encoder = {
        "kind": PoolingKind.SEQUENCE,
        "length": length,
        "num_blocks": 2,
        "num_heads": 2,
        "dropout": 0.2 if is_long else 0.5,
    }
    negatives = {"sampler": Sampler.ALL, "in_batch": False} if items <= MAX_SOFTMAX_ITEMS else {"num_sample": 1024}
    model = {
        "output_dim": 64,
        "hidden_units": [],
        "norm": Norm.NONE,
        "dropout": 0.0,
        "skip": True,
        "temperature": 0.1,
        "history_length": length,
        "min_history": 1,
        "poolings": [encoder],
        **negatives,
    }
    settings = replace(_settings(model, epochs=_epochs(events, 30), code_dim=0, codes=None), with_counts=False)
    return settings.with_training(
        group_users=True,
        warmup_frac=0.02,
        learning_rate=3e-3,
        embedding_learning_rate=6e-3,
        batch_size=1600 if events >= LARGE_EVENTS else 256,
    )


def _poolings(events: int) -> Settings:
    """The very last item, the last few and all of them."""
    model = {
        "output_dim": 128,
        "hidden_units": [128],
        "norm": Norm.NONE,
        "dropout": 0.1,
        "skip": True,
        "embedding_dropout": 0.2,
        "temperature": 0.1,
        "history_length": 200,
        "min_history": 1,
        "poolings": [
            Pooling(kind=PoolingKind.RECENCY, length=50, scale=1.0),
            Pooling(kind=PoolingKind.RECENCY, length=50, scale=4.0),
            Pooling(kind=PoolingKind.ROOT, length=200),
        ],
        "num_sample": 0,
    }
    return _settings(model, epochs=_epochs(events, 30), code_dim=0, codes=None)


def _pair(events: int) -> Settings:
    """Towers of all other items of the user next to codes in closed form."""
    model = {
        "output_dim": 256,
        "frozen_embedding": CODE,
        "frozen_in_loss": False,
        "hidden_units": [128],
        "norm": Norm.NONE,
        "dropout": 0.1,
        "skip": True,
        "embedding_dropout": 0.2,
        "temperature": 0.1,
        "history": History.LEAVE_ONE_OUT,
        "history_length": 5000,
        "min_history": 1,
        "poolings": [Pooling(kind=PoolingKind.ROOT, length=5000), Pooling(kind=PoolingKind.MEAN, length=5000)],
        "num_sample": 0,
    }
    codes = SvdInit(embedding=CODE, score_std=0.2, ridge=30.0, popularity_exponent=0.25, user_exponent=0.5)
    return _settings(model, epochs=_epochs(events, 12), code_dim=128, codes=codes)


def _epochs(events: int, at_most: int) -> int:
    """Returns the epochs after which a search ends."""
    return min(at_most, max(2, MAX_SAMPLES // max(1, events)))


def _settings(model: dict[str, Any], *, epochs: int, code_dim: int, codes: SvdInit | None) -> Settings:
    training = Training(
        epochs=epochs,
        batch_size=512,
        learning_rate=2e-3,
        embedding_optimiser=EmbeddingOptimiser.ADAM,
        embedding_learning_rate=2e-3,
        warmup_frac=0.0,
        final_learning_rate_frac=1.0,
        weight_average=0.998,
        checkpoint_minutes=None,
        svd_init=codes,
        num_threads=1,
    )
    return Settings(
        Model(**model),
        training,
        with_user_id=False,
        with_side=False,
        is_timed=False,
        code_dim=code_dim,
        chosen_on=CHOSEN_ON,
    )
