"""A process's part of a batch: the parts make up the batch of one process, and nothing else is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from dssm_assets.core.config.model import Model
from dssm_assets.core.config.training import Training
from dssm_assets.core.models.tower_input import SideReader
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.batches import Batch, epoch_batches
from dssm_assets.core.training.compute import SINGLE_PROCESS, Ranks
from dssm_assets.core.training.data import TrainData
from dssm_assets.extras.several_processes.process_group import ProcessGroup
from dssm_assets_tests.core.training.worlds import FEATURES, ITEMS, SMALL_MODEL, USERS, world

COUNT = 3
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "every setting that draws": ({"context_dropout": 0.5, "history_cut": {"sample_frac": 0.5}}, {}),
    "leave one out": ({"history": "leave_one_out", "history_cut": {"sample_frac": 0.5}}, {}),
    "hard negatives": ({"sampler": "hard", "num_hard_sample": 20, "user_positive_mask": True}, {}),
    "item features of the corpus": ({"item_snapshot": "corpus"}, {}),
    "no merged columns": ({"norm": "batch"}, {}),
    "sampled negatives alone": ({"in_batch": False}, {}),
}


def _data(model: Model) -> TrainData:
    shown = [(user, item) for user in range(USERS) for item in range(ITEMS) if (item < ITEMS // 2) == bool(user % 2)]
    columns = np.array([(*pair, 0) for pair in shown], np.int32).T
    hard = pa.table(dict(zip(("user_index", "item_index", "day"), columns, strict=True)))
    tables = world()
    names = ("samples", "user_rows", "item_rows", "history", "users", "items")
    return TrainData(tower_spec(FEATURES, model), **{name: getattr(tables, name) for name in names}, hard_negatives=hard)


def _batches(model: Model, training: Training, ranks: Ranks) -> list[Batch]:
    data = _data(model)
    rows = np.arange(data.num_samples)
    return list(epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0, ranks=ranks))


@pytest.mark.parametrize("name", CASES)
def test_parts_make_up_the_batch_of_one_process(name: str) -> None:
    model = Model(**{**SMALL_MODEL, **CASES[name][0]})
    training = Training(batch_size=26, num_threads=1, **CASES[name][1])
    whole = _batches(model, training, SINGLE_PROCESS)
    all_parts = [_batches(model, training, ProcessGroup(rank, COUNT)) for rank in range(COUNT)]
    for step, batch in enumerate(whole):
        parts = [parts_of_rank[step] for parts_of_rank in all_parts]
        assert sorted(row for part in parts for row in part.rows.tolist()) == list(range(batch.count))
        assert sum(len(part.terms.hard_rows) for part in parts) == len(batch.terms.hard_rows)
        assert sum(part.weight_frac for part in parts) == pytest.approx(1.0) == batch.weight_frac
        (num_items,) = {part.num_shared for part in parts}
        assert sum(len(part.items) - len(part.terms.hard_rows) for part in parts) == num_items == batch.num_shared
        for part in parts:
            rows = part.rows
            assert part.count == batch.count
            assert (part.user.singles == batch.user.singles[rows]).all()
            for bag, of_all in zip(part.user.bags, batch.user.bags, strict=True):
                bounds = [slice(of_all.offsets[row], of_all.offsets[row + 1]) for row in rows]
                assert bag.values.tolist() == [value for bound in bounds for value in of_all.values[bound].tolist()]
            assert part.terms.weight.tolist() == batch.terms.weight[rows].tolist()
            assert part.terms.positive_correction.tolist() == batch.terms.positive_correction[rows].tolist()
            assert (part.own == batch.own).all()
            of_rows = np.isin(batch.terms.hard_rows, rows)
            assert rows[part.terms.hard_rows].tolist() == batch.terms.hard_rows[of_rows].tolist()


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


def test_process_reads_the_features_of_all_distinct_items_and_computes_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    read = SideReader.read
    monkeypatch.setattr(SideReader, "read", lambda self, rows: (sizes.append(len(rows)), read(self, rows))[1])
    model, training = Model(**SMALL_MODEL), Training(batch_size=80, num_threads=1)
    (whole,) = _batches(model, training, SINGLE_PROCESS)
    alone, sizes[:] = list(sizes), []
    (part,) = _batches(model, training, ProcessGroup(0, 4))
    # Context and features of users; distinct items of samples and sampled ones, to find equal ones; those that the towers compute.
    assert alone[:2] == [80, 80] and sizes[:2] == [20, 20]
    assert sizes[2:4] == alone[2:4]
    assert sum(alone[4:]) == len(whole.items) == whole.num_shared
    assert sum(sizes[4:]) == len(part.items) == -(-whole.num_shared // 4)
