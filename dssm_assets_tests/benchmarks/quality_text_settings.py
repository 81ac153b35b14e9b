"""The fixed settings of text files without times and side features: `sequences` (leave one out) and `pair` (train and test).

They are the same for every file. They were chosen on files that are derived from the data sets of the other splits, on their
inner splits (`docs/recall_experiments.md`): sequences of rare items go to the encoder, of frequent ones to poolings; a graph, whose order means nothing, to towers that read
all other items of a user, next to codes in closed form, which alone are near EASE.

Belongs here: values and rules. Does not belong here: settings of MovieLens (`quality_settings.py`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from dssm_assets.core.config.model import History, Model, Norm, Pooling, PoolingKind
from dssm_assets.core.config.training import EmbeddingOptimiser, SvdInit, Training
from dssm_assets_tests.benchmarks.quality_features import CODE
from dssm_assets_tests.benchmarks.quality_settings import Settings

LOO, PAIR = "loo", "pair"
DENSE: Final = 30.0
"""Events per item from which on sequences are dense: between the films (36) and the groceries (11) they were chosen on."""
CHOSEN_ON: Final = "inner splits of files derived from MovieLens, Online Retail and Complete Journey"
EASE_L2: Final = 500.0


def text_settings(rule: str, events_per_item: float) -> Settings:
    """Returns the settings of a rule, loo or pair, for a training part with this many events per item."""
    if rule == PAIR:
        return _pair()
    return _dense_sequences() if events_per_item >= DENSE else _sparse_sequences()


def text_peer_settings(name: str) -> dict[str, Any]:
    """Returns the settings of a peer."""
    known: dict[str, dict[str, Any]] = {
        "ease": {"l2": EASE_L2},
        "als": {"factors": 64, "alpha": 5.0, "regularization": 10.0, "iterations": 15},
    }
    return known.get(name, {})


def _sparse_sequences() -> Settings:
    """The encoder alone, whose state is the user's vector: where items are rare, poolings find half as much."""
    encoder = {"kind": PoolingKind.SEQUENCE, "length": 50, "num_blocks": 2, "num_heads": 2, "dropout": 0.3}
    model = {
        "output_dim": 64,
        "hidden_units": [],
        "norm": Norm.NONE,
        "dropout": 0.0,
        "skip": True,
        "temperature": 0.1,
        "history_length": 50,
        "min_history": 1,
        "poolings": [encoder],
        "num_sample": 0,
    }
    settings = replace(_settings(model, epochs=10, code_dim=0, codes=None), with_counts=False)
    pace = {"group_users": True, "batch_size": 256, "learning_rate": 1e-3, "embedding_learning_rate": 1e-3}
    return settings.with_training(**pace, warmup_frac=0.02, final_learning_rate_frac=0.1)


def _dense_sequences() -> Settings:
    """The very last item, the last few and all of them: where items are frequent, they learn faster than the encoder."""
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
    return _settings(model, epochs=20, code_dim=0, codes=None)


def _pair() -> Settings:
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
    return _settings(model, epochs=5, code_dim=128, codes=codes)


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
