"""Of the faults of several processes the one that began it is told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from torch.distributed import DistBackendError

from dssm_assets.core.errors import Fault, SchemaError
from dssm_assets.steps.fit_faults import keep_fault, told_fault

LOST = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:5")
TYPED = SchemaError(Fault("table samples", "a column", "none", "write it"))


def _left(folder: Path, errors: dict[int, Exception]) -> str | None:
    """Keeps the faults, one second after the other, and returns which is told."""
    for second, (rank, error) in enumerate(errors.items()):
        keep_fault(folder, rank, error)
        (kept,) = folder.glob(f"fault-{rank}.*")
        os.utime(kept, (second, second))
    return told_fault(folder)


def test_a_typed_error_goes_before_others(tmp_path: Path) -> None:
    told = _left(tmp_path, {0: LOST, 3: ValueError("another"), 11: TYPED, 2: ValueError("last")})
    assert told is not None
    assert told.startswith("process 11:\n")
    assert "table samples: expected a column" in told


def test_else_the_earliest_that_is_no_lost_connection(tmp_path: Path) -> None:
    told = _left(tmp_path, {0: DistBackendError("NCCL"), 10: ValueError("the cause"), 2: ValueError("a consequence")})
    assert told is not None
    assert told.startswith("process 10:\n")
    assert "the cause" in told


def test_a_process_that_is_ended_while_it_writes_leaves_nothing_to_trip_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep_fault(tmp_path, 0, TYPED)
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("os.fsync", lambda handle: (_ for _ in ()).throw(KeyboardInterrupt))
        keep_fault(tmp_path, 1, LOST)
    told = told_fault(tmp_path)
    assert told is not None
    assert told.startswith("process 0:\n")


def test_lost_connections_alone_tell_nothing(tmp_path: Path) -> None:
    assert told_fault(tmp_path) is None
    assert _left(tmp_path, {0: LOST, 1: ConnectionResetError("gone")}) is None
