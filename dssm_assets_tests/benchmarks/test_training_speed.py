"""The training benchmark on a tiny world: every contender trains on the same data, and the tables list all of them."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.data import TrainData
from dssm_assets_tests.benchmarks import training_arrays, training_contenders, training_peers, training_world
from dssm_assets_tests.benchmarks.process_cost import run_apart
from dssm_assets_tests.benchmarks.training_arrays import ArrayReader, EnoughError, Pace
from dssm_assets_tests.benchmarks.training_settings import setting_of
from dssm_assets_tests.benchmarks.training_speed import NAIVE, PEER, measure, render

_TINY = {"name": "wide", "samples": 400, "users": 20, "items": 30, "batch_size": 64}


def _run_here(work: Callable[..., Any], /, python: str = "", **arguments: Any) -> Any:
    return work(**arguments)


def test_products_of_a_sample_by_hand() -> None:
    # User tower 25 * 16 -> 256 -> 128 -> 64, item tower 10 * 16 -> ... for 1.5 items a sample, 6144 columns of 64; all thrice.
    user, item = 400 * 256 + 256 * 128 + 128 * 64, 160 * 256 + 256 * 128 + 128 * 64
    assert setting_of({"name": "wide"}).multiply_adds == 3 * (user + item * 3 // 2 + 6144 * 64)
    assert setting_of({"name": "wide"}).num_features == 35


@pytest.mark.parametrize("name", ["wide", "demo-like"])
def test_tables_and_arrays_hold_the_same_samples(tmp_path: Path, name: str) -> None:
    """`TrainData` reads the values that the other contenders get, in any order within a list."""
    setting = setting_of({**_TINY, "name": name})
    training_world.write(tmp_path, setting)
    spec = tower_spec(training_contenders.features_of(setting), training_contenders.model_of(setting))
    data = TrainData(spec, **training_world.read_tables(tmp_path))
    reader = ArrayReader(tmp_path, setting)
    rows = np.array([0, 7, 399])
    sides = (
        (data.read_user_side(rows, data.read_keys(rows)), setting.user + setting.context, reader.user_side(rows)),
        (data.sample_items.read(data.read_key("item_row", rows)), setting.item, reader.item_side(reader.item[rows])),
    )
    for ours, columns, theirs in sides:
        singles = [column.name for column in columns if not column.is_multi]
        bags = [column.name for column in columns if column.is_multi] + [n for n in theirs if n.startswith("history__")]
        assert ours.singles.tolist() == torch.cat([theirs[name] for name in singles], dim=1).tolist()
        for column_name, bag in zip(bags, ours.bags, strict=True):
            for place in range(len(rows)):
                values = bag.values[bag.offsets[place] : bag.offsets[place + 1]].tolist()
                assert sorted(values) == sorted(value for value in theirs[column_name][place].tolist() if value)


def test_contenders_are_measured_or_reported_as_missing(tmp_path: Path) -> None:
    found = measure(_TINY, seconds=0.0, python=sys.executable, folder=tmp_path, run=_run_here)
    assert all(result["samples_per_s"] > 0 for name, result in found.items() if name != PEER)
    assert found[PEER] == {"missing": "torch-rechub"} or found[PEER]["samples_per_s"] > 0
    assert all(name in render(_TINY, found) for name in found)


def test_contender_runs_in_its_own_process() -> None:
    assert run_apart(statistics.mean, data=[1, 3]) == 2
    with pytest.raises(RuntimeError, match=r"training_peers\.rechub failed"):
        run_apart(training_peers.rechub, wrong=1)


def test_table_shows_ratios_with_the_same_negatives() -> None:
    pace = {"ours, float32": 3000.0, "ours, bfloat16": 6000.0, "in-batch only, float32": 5000.0}
    pace |= {"in-batch only, bfloat16": 8000.0, NAIVE: 1500.0, PEER: 2000.0}
    results = {name: {"samples_per_s": value, "steps": 9, "peak_mib": 10.0} for name, value in pace.items()}
    rows = [line.split() for line in render(_TINY, results).splitlines()]
    assert ["naive", "PyTorch", "1,500", "2.00", "4.00", "10", "9"] in rows
    assert ["torch-rechub", "DSSM", "2,000", "2.50", "4.00", "10", "9"] in rows


def test_pace_is_that_of_the_middle_step_after_the_first_two(monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps of 9, 9, 2, 4 and 5 seconds over 20 samples each, then a pause of 100.
    readings = iter([0.0, 9.0, 18.0, 20.0, 24.0, 29.0, 129.0, 133.0])
    monkeypatch.setattr(training_arrays.time, "process_time", lambda: next(readings))
    pace = Pace(budget_s=32.0, least_steps=3)
    pace.resume()
    for _ in range(5):
        pace.step(20)
    pace.resume()
    with pytest.raises(EnoughError):
        pace.step(20)
    assert pace.samples_per_s == 5.0
