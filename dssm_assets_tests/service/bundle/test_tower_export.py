"""Exported towers, run by onnxruntime alone, compute the trained towers' vectors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dssm_assets.core.arrays.bags import Bags
from dssm_assets.core.arrays.event_sequences import EventSequences
from dssm_assets.core.config.model import Model
from dssm_assets.core.models.tower_input import TowerInput
from dssm_assets.core.models.tower_spec import TowerSide, tower_spec
from dssm_assets.service.bundle.tower_export import export_tower
from dssm_assets.service.bundle.tower_layout import describe_towers, tower_layout
from dssm_assets_tests.service.bundle import tower_worlds as worlds

SHAPES: list[dict[str, Any]] = [
    {},
    {"similarity": "INNER_PRODUCT"},
    {"hidden_units": []},
    {"hidden_units": [12, 7, 5]},
    {"history_length": 0},
    {"dropout": 0.9},
    {"norm": "batch"},
    {"norm": "none", "hidden_units": [12, 7]},
    {"skip": True, "embedding_dropout": 0.9},
    {"skip": True, "hidden_units": []},
    {"prior": True},
    {"frozen_embedding": "item", "output_dim": 20},
    {"frozen_embedding": "item", "output_dim": 20, "prior": True, "skip": True, "poolings": [{"kind": "root"}, {"length": 2}]},
    {"poolings": [{"length": 4, "half_life_days": 0.7}]},
    {"poolings": [{"kind": "root", "length": 6, "half_life_days": 0.7}]},
    {"poolings": [{"length": 2}, {"kind": "root"}, {"kind": "recency", "scale": 0.4}], "skip": True},
    {"poolings": [{"kind": "attention"}]},
    {"poolings": [{"kind": "attention", "length": 2}, {}, {"kind": "attention"}], "skip": True, "norm": "batch"},
    {"poolings": [{"kind": "attention"}, {"kind": "root"}], "num_interests": 3, "skip": True, "prior": True},
    {"poolings": [{"kind": "attention"}] * 2, "num_interests": 2, "similarity": "INNER_PRODUCT"},
    {"poolings": [{"kind": "sequence"}]},
    {"poolings": [{"kind": "sequence", "length": 3, "num_blocks": 3, "num_heads": 3}, {"kind": "root"}], "skip": True},
    {"poolings": [{"kind": "sequence"}, {"kind": "attention"}, {"kind": "sequence", "num_heads": 1}], "num_interests": 2},
]


def vectors(two_tower: Any, users: Any, items: Any) -> tuple[Any, Any]:
    with torch.no_grad():
        user_vectors = two_tower.user_vectors(users).numpy()
        if two_tower.spec.prior:
            user_vectors = np.concatenate([user_vectors, np.ones_like(user_vectors[..., :1])], axis=-1)
        return user_vectors, two_tower.item_vectors(items).numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_exported_towers_compute_the_trained_vectors(shape: dict[str, Any], seed: int) -> None:
    spec = worlds.spec(**shape)
    two_tower, users, items = worlds.towers(spec, seed), worlds.user_rows(spec, seed), worlds.item_rows(spec, seed)
    user_vectors, item_vectors = vectors(two_tower, users, items)
    user_model, item_model = (
        export_tower(two_tower, "u.data", is_user=True).model,
        export_tower(two_tower, "i.data", is_user=False).model,
    )
    for model in (user_model, item_model):
        onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    np.testing.assert_allclose(
        worlds.run(user_model, tower_layout(spec, is_user=True).feed(users)), user_vectors, rtol=0, atol=2e-6
    )
    np.testing.assert_allclose(
        worlds.run(item_model, tower_layout(spec, is_user=False).feed(items)), item_vectors, rtol=0, atol=2e-6
    )
    assert np.abs(user_vectors).max() > 0.1


def test_tower_that_reads_nothing_but_the_encoded_history() -> None:
    model = Model(output_dim=6, hidden_units=[], history_length=4, poolings=[{"kind": "sequence"}])
    spec = tower_spec([feature for feature in worlds.FEATURES if feature.side in (TowerSide.ITEM, TowerSide.SEQUENCE)], model)
    two_tower, users = worlds.towers(spec), worlds.user_rows(spec)
    exported = worlds.run(export_tower(two_tower, "u.data", is_user=True).model, tower_layout(spec, is_user=True).feed(users))
    np.testing.assert_allclose(exported, vectors(two_tower, users, worlds.item_rows(spec))[0], rtol=0, atol=2e-6)


def test_long_gaps_and_histories_of_other_lengths_reach_the_exported_encoder() -> None:
    """Gaps beside each bound of the classes: a rounded logarithm would be in the wrong one. Lengths differ from call to call."""
    spec = worlds.spec(poolings=[{"kind": "sequence", "length": 70}])
    two_tower, users = worlds.towers(spec), worlds.user_rows(spec)
    model, singles = export_tower(two_tower, "u.data", is_user=True).model, users.singles[:1]
    bounds = [step * 2**power - 1 for power in range(1, 30) for step in (1, 1.5)]
    for gaps in (bounds[:3], [gap + 1 for gap in bounds], [gap - 1 for gap in bounds], bounds):
        seconds = np.concatenate([[0], np.asarray(gaps, np.int64)])[::-1].copy() * -1
        events = np.random.default_rng(0).integers(1, 3, (2, len(seconds)))
        sequences = EventSequences(tuple(events), seconds, np.array([0, len(seconds)]), np.array([len(seconds) - 1]))
        bags = tuple(Bags(np.zeros(0, np.int64), np.zeros(2, np.int64), np.zeros(0, np.float32)) for _ in users.bags)
        row = TowerInput(singles, bags, np.zeros(1, np.float32), (sequences,))
        with torch.no_grad():
            expected = two_tower.user_vectors(row).numpy()
        np.testing.assert_allclose(worlds.run(model, tower_layout(spec, is_user=True).feed(row)), expected, rtol=0, atol=2e-6)


def test_large_tables_go_to_a_data_file(tmp_path: Path) -> None:
    spec = worlds.spec()
    two_tower, feed = worlds.towers(spec), tower_layout(spec, is_user=True).feed(worlds.user_rows(spec))
    whole, split = (
        export_tower(two_tower, "u.data", is_user=True),
        export_tower(two_tower, "u.data", inline_bytes=0, is_user=True),
    )
    (tmp_path / "u.onnx").write_bytes(split.model)
    (tmp_path / "u.data").write_bytes(b"".join(piece.tobytes() for piece in split.data))
    onnx.checker.check_model(str(tmp_path / "u.onnx"))
    assert len(split.model) < len(whole.model)
    np.testing.assert_array_equal(worlds.run(str(tmp_path / "u.onnx"), feed), worlds.run(whole.model, feed))
    # city 4x4, age 5x8, interests 6x8, hour 25x4, pages 7x4, item 11x8, tag 3x4 floats; each table starts on a page.
    sizes = {tensor.name: tensor.dims for tensor in onnx.load_from_string(whole.model).graph.initializer}
    assert {name: list(dims) for name, dims in sizes.items() if name.startswith("embedding/")} == {
        "embedding/city": [4, 4],
        "embedding/age": [5, 8],
        "embedding/hour": [25, 4],
        "embedding/interests": [6, 8],
        "embedding/pages": [7, 4],
        "embedding/item": [11, 8],
        "embedding/h__tag": [3, 4],
    }
    assert (tmp_path / "u.data").stat().st_size == 7 * 4096


STANDALONE_SCRIPT = """
import json, sys
import numpy as np, onnxruntime
towers = json.load(open("towers.json"))
inputs = towers["towers"]["user"]["inputs"]
rows = json.load(open("rows.json"))
feed = {}
for entry in inputs:
    dtype = {"int64": np.int64, "float32": np.float32}[entry["type"]]
    if entry["name"] == "singles":
        feed["singles"] = np.array([[row[f["name"]] for f in entry["features"]] for row in rows], dtype)
    elif entry["name"] == "is_empty_history":
        feed[entry["name"]] = np.array([not row["h__item"] for row in rows], dtype)
    elif "feature" in entry:
        name = entry["feature"]["name"]
        length = max(max(len(row[name]) for row in rows), 1)
        indices, weights = np.zeros((len(rows), length), np.int64), np.zeros((len(rows), length), np.float32)
        for i, row in enumerate(rows):
            values = row[name]
            given_weights = row.get(name + "__weights", [1.0] * len(values))
            total = sum(abs(w) for v, w in zip(values, given_weights) if v)
            for j, (value, weight) in enumerate(zip(values, given_weights)):
                if value and total:
                    indices[i, j], weights[i, j] = value, weight / total
        feed[entry["name"]], feed["weights/" + name] = indices, weights
session = onnxruntime.InferenceSession(towers["towers"]["user"]["file"], providers=["CPUExecutionProvider"])
assert {i.name for i in session.get_inputs()} == set(feed) == {entry["name"] for entry in inputs}
json.dump(session.run([towers["towers"]["user"]["output"]["name"]], feed)[0].tolist(), sys.stdout)
assert not any(name.startswith(("dssm", "torch")) for name in sys.modules)
"""


def test_towers_json_suffices_to_run_the_tower_without_this_package(tmp_path: Path) -> None:
    """The script above knows only the description and the rules of towers.json; its rows are values, not tensors."""
    import pyarrow as pa

    from dssm_assets.core.models.tower_input import HistoryReader, SideReader
    from dssm_assets.core.models.tower_spec import TowerSide

    spec = worlds.spec()
    two_tower = worlds.towers(spec)
    plain = {
        "city": 1,
        "age": 0,
        "hour": 0,
        "interests": [2, 3],
        "pages": [],
        "pages__weights": [],
        "h__item": [],
        "h__tag": [],
    }
    rows = [
        plain,
        {**plain, "city": 3, "age": 4, "hour": 7, "pages": [1, 0, 6], "pages__weights": [2.0, 9.0, -0.5]},
        {**plain, "interests": [0], "h__item": [4, 5, 10], "h__tag": [1, 0, 2]},
    ]
    types = {"pages__weights": worlds.WEIGHTS, "interests": worlds.LIST, "pages": worlds.LIST}
    names = ["city", "age", "hour", "interests", "pages", "pages__weights"]
    table = pa.table({name: pa.array([row[name] for row in rows], types.get(name, pa.int32())) for name in names})
    read = SideReader(table, "users", spec.features_of(TowerSide.USER, TowerSide.CONTEXT)).read(np.arange(3))
    events = {name: pa.array([4, 5, 10] if name == "h__item" else [1, 0, 2], pa.int32()) for name in ("h__item", "h__tag")}
    history = HistoryReader(pa.table({"event_time_ms": pa.array([1, 2, 3]), **events}), spec)
    rows_read = read.with_history(history.read(np.array([0, 0, 0]), np.array([0, 0, 3])))
    with torch.no_grad():
        expected = two_tower.user_vectors(rows_read).numpy()
    (tmp_path / "user_tower.onnx").write_bytes(export_tower(two_tower, "u.data", is_user=True).model)
    (tmp_path / "towers.json").write_text(json.dumps(describe_towers(spec)))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    done = subprocess.run([sys.executable, "-c", STANDALONE_SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.array(json.loads(done.stdout)), expected, rtol=0, atol=2e-6)
