"""Fitted towers as bytes and back."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch

from dssm_assets.core.config.model import Model
from dssm_assets.core.errors import ConfigError, StorageError
from dssm_assets.core.models.tower_spec import tower_spec
from dssm_assets.core.models.two_tower import TwoTower
from dssm_assets.core.training.model_format import mapped_model
from dssm_assets_tests.core.training.worlds import (
    FEATURES,
    SMALL_MODEL,
    infer_item_vectors,
    model_bytes,
    model_from_bytes,
    world,
)

SPEC = tower_spec(FEATURES, Model(**SMALL_MODEL))


def _towers(seed: int = 0) -> TwoTower:
    return TwoTower(SPEC, torch.Generator().manual_seed(seed))


def test_model_round_trip_keeps_every_weight_and_vector_and_tables_are_views() -> None:
    stored = model_bytes(_towers())
    stored_array = np.frombuffer(stored, np.uint8).copy()
    mapped = mapped_model(stored_array, SPEC)
    assert model_bytes(mapped) == stored == model_bytes(_towers()) != model_bytes(_towers(1))
    items = world().items
    assert (infer_item_vectors(mapped, items, 5) == infer_item_vectors(_towers(), items, 5)).all()
    assert all(np.shares_memory(mapped.tables.table(dim).numpy(), stored_array) for dim in mapped.tables.dims)
    assert not any(np.shares_memory(weights.detach().numpy(), stored_array) for weights in mapped.parameters())
    with pytest.raises(StorageError, match="stored model"):
        mapped_model(stored_array[:-4], SPEC)


def test_every_difference_of_specifications_is_named() -> None:
    other = tower_spec(FEATURES[:-1], Model(**{**SMALL_MODEL, "temperature": 0.5}))
    with pytest.raises(ConfigError) as caught:
        model_from_bytes(model_bytes(_towers()), other)
    places = [fault.where for fault in caught.value.faults]
    assert "stored model, temperature" in places
    assert "stored model, feature h__item.num_embeddings" in places
    assert "stored model, output_dim" not in places


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-4], lambda b: b + b"0000", lambda b: b[:40], lambda b: b"x" + b[1:], lambda b: b""]
)
def test_damaged_model_is_refused(damage: object) -> None:
    assert callable(damage)
    with pytest.raises(StorageError, match="stored model"):
        model_from_bytes(damage(model_bytes(_towers())), SPEC)


def test_tensor_of_another_shape_is_the_only_one_named() -> None:
    data = model_bytes(_towers())
    start = 16 + int.from_bytes(data[8:16], "little")
    header = json.loads(data[16:start])
    name = next(name for name, shape in sorted(header["shapes"].items()) if shape != shape[::-1] and "table_" not in name)
    expected = header["shapes"][name]
    header["shapes"][name] = expected[::-1]
    text = json.dumps(header, sort_keys=True).encode()
    message = f"expected tensors of the shapes {name} {expected}, got {name} {expected[::-1]}. To fix: fit the model again"
    with pytest.raises(StorageError, match=re.escape(message)):
        model_from_bytes(data[:8] + len(text).to_bytes(8, "little") + text + data[start:], SPEC)
