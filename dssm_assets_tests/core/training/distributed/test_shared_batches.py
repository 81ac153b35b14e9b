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
from dssm_assets.core.training.batches import Batch, Epoch, epoch_batches
from dssm_assets.core.training.data import TrainData
from dssm_assets.core.training.distributed.process_group import ProcessGroup
from dssm_assets.core.training.distributed.shared_batches import SharedBatch
from dssm_assets_tests.core.training.worlds import FEATURES, ITEMS, SMALL_MODEL, USERS, world

COUNT = 3
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "every setting that draws": ({"context_dropout": 0.5, "history_cut": {"sample_frac": 0.5}, "cold_item_frac": 0.5}, {}),
    "leave one out": ({"history": "leave_one_out", "history_cut": {"sample_frac": 0.5}}, {}),
    "hard negatives": ({"sampler": "hard", "num_hard_sample": 20, "user_positive_mask": True}, {}),
    "item features of the corpus": ({"item_snapshot": "corpus"}, {}),
    "no merged columns": ({"collision_mask": False}, {}),
    "sampled negatives alone": ({"in_batch": False}, {}),
}


def _data(model: Model) -> TrainData:
    shown = [(user, item) for user in range(USERS) for item in range(ITEMS) if (item < ITEMS // 2) == bool(user % 2)]
    columns = np.array([(*pair, 0) for pair in shown], np.int32).T
    hard = pa.table(dict(zip(("user_index", "item_index", "day"), columns, strict=True)))
    tables = world()
    names = ("samples", "user_rows", "item_rows", "history", "users", "items")
    return TrainData(tower_spec(FEATURES, model), **{name: getattr(tables, name) for name in names}, hard_negatives=hard)


def _batches(model: Model, training: Training, ranks: ProcessGroup | None) -> list[Batch]:
    data = _data(model)
    new_epoch = Epoch if ranks is None else ranks.new_epoch
    rows = np.arange(data.num_samples)
    return list(epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0, new_epoch=new_epoch))


@pytest.mark.parametrize("name", CASES)
def test_parts_make_up_the_batch_of_one_process(name: str) -> None:
    model = Model(**{**SMALL_MODEL, **CASES[name][0]})
    training = Training(batch_size=26, num_threads=1, **CASES[name][1])
    whole = _batches(model, training, None)
    all_parts = [_batches(model, training, ProcessGroup(rank, COUNT)) for rank in range(COUNT)]
    for step, batch in enumerate(whole):
        parts = [parts_of_rank[step] for parts_of_rank in all_parts]
        assert sorted(row for part in parts for row in _rows(part)) == list(range(len(batch)))
        assert sum(part.num_hard for part in parts) == batch.num_hard
        (num_items,) = {part.item_side(model).num_shared for part in parts}
        assert sum(len(part.items) - part.num_hard for part in parts) == num_items <= len(batch.item_index)
        for part in parts:
            rows = _rows(part)
            assert len(part) == len(batch)
            assert (part.user.singles == batch.user.singles[rows]).all()
            for bag, of_all in zip(part.user.bags, batch.user.bags, strict=True):
                bounds = [slice(of_all.offsets[row], of_all.offsets[row + 1]) for row in rows]
                assert bag.values.tolist() == [value for bound in bounds for value in of_all.values[bound].tolist()]
            assert part.terms.weight.tolist() == batch.terms.weight[rows].tolist()
            assert part.terms.positive_correction.tolist() == batch.terms.positive_correction[rows].tolist()
            assert (part.item_index == batch.item_index).all()
            of_rows = np.isin(batch.terms.hard_rows, rows)
            assert np.asarray(rows)[part.terms.hard_rows].tolist() == batch.terms.hard_rows[of_rows].tolist()


@pytest.mark.parametrize("snapshot", ["sample", "corpus"])
@pytest.mark.parametrize("mask", [False, True])
def test_parts_of_the_item_tower_are_the_rows_of_one_process(snapshot: str, mask: bool) -> None:
    model = Model(**SMALL_MODEL, item_snapshot=snapshot, collision_mask=mask)
    training = Training(batch_size=26, num_threads=1)
    whole = _batches(model, training, None)
    all_parts = [_batches(model, training, ProcessGroup(rank, COUNT)) for rank in range(COUNT)]
    for step, batch in enumerate(whole):
        side = batch.item_side(model)
        parts = [parts_of_rank[step].item_side(model).items.singles for parts_of_rank in all_parts]
        merged = {tuple(row) for row in np.concatenate(parts).tolist()}
        assert merged == {tuple(row) for row in side.items.singles.tolist()}


def test_session_is_read_by_one_process_with_all_its_samples() -> None:
    model, training = Model(**{**SMALL_MODEL, "history": "day"}), Training(batch_size=26, group_sessions=True, num_threads=1)
    spec = [feature for feature in FEATURES if feature.side != "context"]
    data = world().data(tower_spec(spec, model))
    rows, sessions = np.arange(data.num_samples), []
    for rank in range(COUNT):
        new_epoch = ProcessGroup(rank, COUNT).new_epoch
        batch = next(epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0, new_epoch=new_epoch))
        assert batch.user_of is not None
        assert sorted(set(batch.user_of.tolist())) == list(range(len(batch.user)))
        assert len(batch.user_of) == len(_rows(batch))
        sessions.append(len(batch.user))
    whole = next(epoch_batches(data, rows, model=model, training=training, seed=1, epoch=0))
    assert sum(sessions) == len(whole.user)


def test_process_reads_features_of_its_part_only(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    read_values = SideReader.read_values
    monkeypatch.setattr(SideReader, "read_values", lambda self, rows: (read.append(len(rows)), read_values(self, rows))[1])
    model, training = Model(**SMALL_MODEL), Training(batch_size=80, num_threads=1)
    _batches(model, training, None)
    whole = list(read)
    read.clear()
    _batches(model, training, ProcessGroup(0, 4))
    # User and context features of 80 samples become those of 20; items of 80 + 8 rows at most a quarter of the distinct.
    assert sorted(whole) == [8, 80, 80, 80]
    assert read[:2] == [20, 20]
    assert sum(read[2:]) <= -(-88 // 4)


def _rows(batch: Batch) -> list[int]:
    assert isinstance(batch, SharedBatch)
    return list(batch.rows.tolist())
