"""The training benchmark on a tiny world: every contender trains on the same data, and the tables list all of them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.training.data import TrainData
from dssm_assets_tests.benchmarks import training_contenders, training_pace, training_peers, training_world
from dssm_assets_tests.benchmarks.training_arrays import ArrayReader
from dssm_assets_tests.benchmarks.training_pace import EnoughError, Pace
from dssm_assets_tests.benchmarks.training_settings import setting_of
from dssm_assets_tests.benchmarks.training_speed import Report, Result, measure, run_in_process

_TINY = {"name": "wide", "samples": 400, "users": 20, "items": 30, "batch_size": 64}


def _run_here(python: str, work: Callable[..., Any], /, **arguments: Any) -> Any:
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
        (data.read_sample_items(rows), setting.item, reader.item_side(reader.item[rows])),
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
    report = measure(_TINY, seconds=0.0, growth=2, python=sys.executable, folder=tmp_path, run=_run_here)
    assert min(result.samples_per_s or 0 for result in report.results[:5]) > 0
    peers = report.results[5:]
    assert len(peers) == 2
    for peer in peers:
        assert (peer.samples_per_s or 0) > 0 or peer.note.startswith("missing: ")
    assert [(samples, found.anonymous_mib > 0) for _, samples, found in report.growth] == [
        (400, True),
        (800, True),
        (800, True),
    ]
    assert "800" in report.text()


def test_contender_runs_in_its_own_process() -> None:
    assert run_in_process(sys.executable, training_peers.versions)["python"] == platform.python_version()
    with pytest.raises(RuntimeError, match=r"training_peers\.rechub failed"):
        run_in_process(sys.executable, training_peers.rechub, wrong=1)


def test_table_shows_ratios_and_shares_of_the_limit() -> None:
    setting = setting_of(_TINY)
    results = (
        Result("ours, float32", 3000.0, "9"),
        Result("ours, bfloat16", 6000.0, "9"),
        Result("in-batch only, float32", 5000.0, "9"),
        Result("naive PyTorch", 1500.0, "9"),
        Result("torch-rechub DSSM", 2000.0, "9"),
        Result("RecTools DSSM", None, "missing: rectools[torch]"),
    )
    limit = {"float32": 2 * setting.multiply_adds * 6000 / 1e9, "bfloat16": 2 * setting.multiply_adds * 12000 / 1e9}
    rows = Report(setting, limit, {"rectools": ""}, results, ()).text().splitlines()
    assert [row.split() for row in rows if row.startswith(("ours, b", "naive", "torch-rechub"))] == [
        ["ours,", "bfloat16", "6,000", "0.50", "1.00", "50%", "0", "9"],
        ["naive", "PyTorch", "1,500", "2.00", "4.00", "25%", "0", "9"],
        # Compared with ours in-batch only, which was not measured in bfloat16.
        ["torch-rechub", "DSSM", "2,000", "2.50", "-", "-", "0", "9"],
    ]
    assert "RecTools DSSM            missing: rectools[torch]" in rows
    assert "peers: rectools missing" in rows


def test_pace_is_that_of_the_middle_step_after_the_first_two(monkeypatch: pytest.MonkeyPatch) -> None:
    # Steps of 9, 9, 2, 4 and 5 seconds over 20 samples each, then a pause of 100.
    readings = iter([0.0, 9.0, 18.0, 20.0, 24.0, 29.0, 129.0, 133.0])
    monkeypatch.setattr(training_pace.time, "process_time", lambda: next(readings))
    pace = Pace(budget_s=32.0, least_steps=3)
    pace.resume()
    for _ in range(5):
        pace.step(20)
    pace.resume()
    with pytest.raises(EnoughError):
        pace.step(20)
    assert pace.samples_per_s == 5.0
