"""The state of a running fit as bytes and back, and when it is stored."""

from __future__ import annotations

import pytest
import torch

from dssm_assets.core.errors import StorageError
from dssm_assets.core.training.fit_report import EpochScore, FitHistory
from dssm_assets.core.training.resume import read_state, state_chunks

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).view(2, 3),
    "count": torch.tensor(3),
    "dropout": torch.arange(9, dtype=torch.uint8),
    "fine": torch.tensor([0.1], dtype=torch.float64),
    "nothing": torch.zeros(0, 4),
}


def _history() -> FitHistory:
    scores = [EpochScore(1, 0.25, 0.2, (0.1, 0.0, 7.0, 0.5)), EpochScore(2, 0.5, 0.4, None)]
    return FitHistory(True, 2, 5, [0.1, 0.2], [1.5], scores)


def _bytes() -> bytes:
    return b"".join(state_chunks(_history(), TENSORS, "key"))


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b + b"0", lambda b: b[:30], lambda b: b"x" + b[1:], lambda b: b""]
)
def test_damaged_state_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(StorageError, match="state of a training"):
        read_state(damage(_bytes()), "key")
