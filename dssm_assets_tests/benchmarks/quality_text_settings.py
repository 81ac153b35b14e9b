"""Text files of sequences ("user item item ..."): their split, and the fixed settings for them.

The last item of each user with three items or more is held out, everything before it trains. Nothing is changed: an event that
repeats an earlier one of its user stays. Seen items are left out of the lists, so a repeated held-out item can not be hit.

There are no times. Events of a user are a second apart and all users' last ones are at one midnight: before that day is
every user's line without its last item. Towers must not read more of a time than the order.

Settings are the same for every file, up to facts of it: the number of items, and of events per user. There are two
candidates, the encoder and three poolings. Validation inside the training part decides for one of them or their sum, for their
epochs, and for how strongly codes in closed form, neighbours of items and popularity are added (`quality_choice.py`). All values
were chosen on the inner splits of files that are derived from MovieLens, Online Retail and Complete Journey.

Belongs here: values and the split. Does not belong here: settings of MovieLens (`quality_settings.py`).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc

from dssm_assets.core.arrays.ragged import ranges
from dssm_assets.core.config.model import Model, Norm, Pooling, PoolingKind, Sampler
from dssm_assets.core.config.training import EmbeddingOptimiser, SvdInit, Training
from dssm_assets.datasets.sequences import read_sequences
from dssm_assets_tests.benchmarks.quality_features import CODE
from dssm_assets_tests.benchmarks.quality_settings import Settings
from dssm_assets_tests.benchmarks.quality_splits import SECONDS_PER_DAY, Log, Split, cut

MAX_SOFTMAX_ITEMS: Final = 20_000
"""Items up to which the loss is a softmax over all of them; of more items, those of the batch and 1,024 are drawn."""
MAX_SAMPLES: Final = 6_000_000
"""Samples of all epochs of one fit: some quarter of an hour on one thread."""
LARGE_EVENTS: Final = 500_000
"""Events from which on batches are large and there is one fit of each candidate instead of two."""
LONG_EVENTS: Final = 50.0
"""Events per user from which on the encoder reads 200 of them, with less dropout."""
TEXT_PEERS: Final[dict[str, dict[str, Any]]] = {
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
ADDED_CODES: Final = SvdInit(embedding=CODE, score_std=0.05, ridge=30.0, popularity_exponent=0.25, user_exponent=0.5)
"""Codes that validation may add; the products of a candidate have a deviation of .15 to .25, of their sum of .3."""


def read_sequence_split(path: Path, *, inner: bool = False) -> Split:
    """Returns leave one out of a file of sequences; inner: once more on the training part."""
    (lines,) = read_sequences(path)
    lengths = np.diff(lines.offsets)
    user, place = np.repeat(np.arange(len(lengths)), lengths), ranges(np.zeros(len(lengths), np.int64), lengths)
    item = pc.dictionary_encode(lines.items).indices.to_numpy().astype(np.int64)
    split = cut(Log(user, item, place), "loo", inner=inner)
    counts = np.bincount(split.user)
    from_end = np.repeat(counts, counts) - 1 - ranges(np.zeros(len(counts), np.int64), counts)
    by_time = np.argsort(-from_end, kind="stable")
    midnight = SECONDS_PER_DAY * (1 + -(-int(from_end.max(initial=0)) // SECONDS_PER_DAY))
    return replace(split, user=split.user[by_time], item=split.item[by_time], time_s=midnight - from_end[by_time])


def text_candidates(*, events: int, items: int, events_per_user: float) -> dict[str, Settings]:
    """Returns the candidates by name, for a training part of this size."""
    candidates = {"encoder": _encoder(events, items, events_per_user), "poolings": _poolings(events)}
    fits = 1 if events >= LARGE_EVENTS else 2
    return {name: replace(one, fits=fits, added_codes=ADDED_CODES) for name, one in candidates.items()}


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
    settings = replace(_settings(model, events=events), with_counts=False)
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
    return _settings(model, events=events)


def _settings(model: dict[str, Any], *, events: int) -> Settings:
    training = Training(
        epochs=min(30, max(2, MAX_SAMPLES // max(1, events))),
        batch_size=512,
        learning_rate=2e-3,
        embedding_optimiser=EmbeddingOptimiser.ADAM,
        embedding_learning_rate=2e-3,
        warmup_frac=0.0,
        final_learning_rate_frac=1.0,
        weight_average=0.998,
        checkpoint_minutes=None,
        num_threads=1,
    )
    return Settings(Model(**model), training, with_user_id=False, with_side=False, is_timed=False)
