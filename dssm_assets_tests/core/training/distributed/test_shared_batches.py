"""A process's part of a batch: nothing else is read. That the parts are the whole: steps/test_shared_fits."""

from __future__ import annotations

import numpy as np
import pytest

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.tower_input import SideReader
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.distributed.process_group import ProcessGroup
from dssm_assets_tests.core.training.worlds import FEATURES, SMALL_MODEL, world

COUNT = 3


def _batches(model: Model, training: Training, ranks: Ranks) -> list[Batch]:
    data = world().data(tower_spec(FEATURES, model))
    rows = np.arange(data.num_samples)
    return list(epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0, ranks=ranks))


def test_session_is_read_by_one_process_with_all_its_samples() -> None:
    model, training = Model(**{**SMALL_MODEL, "history": "day"}), Training(batch_size=26, group_sessions=True, num_threads=1)
    spec = [feature for feature in FEATURES if feature.side != "context"]
    data = world().data(tower_spec(spec, model))
    rows, sessions = np.arange(data.num_samples), []
    for rank in range(COUNT):
        ranks = ProcessGroup(rank, COUNT)
        batch = next(epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0, ranks=ranks))
        assert batch.user_of is not None
        assert sorted(set(batch.user_of.tolist())) == list(range(len(batch.user)))
        assert len(batch.user_of) == len(batch.rows)
        sessions.append(len(batch.user))
    whole = next(epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0))
    assert sum(sessions) == len(whole.user)


def test_process_reads_features_of_its_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read = SideReader.read
    monkeypatch.setattr(SideReader, "read", lambda self, rows: (sizes.append(len(rows)), read(self, rows))[1])
    model, training = Model(**SMALL_MODEL, norm="batch"), Training(batch_size=80, num_threads=1)
    _batches(model, training, SINGLE_PROCESS)
    assert sizes == [80, 80, 80, 8]
    sizes.clear()
    _batches(model, training, ProcessGroup(0, 4))
    assert sizes == [20, 20, 20, 2]
