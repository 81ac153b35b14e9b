"""The recipes of docs/architecture.md, followed from outside the package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dssm_assets.core.config.features import Statistics
from dssm_assets.core.config.model import Model
from dssm_assets.core.errors import ConfigError, FeatureSpecError
from dssm_assets.core.features.generator import FeatureGenerator
from dssm_assets.core.statistics.binning import bin_features
from dssm_assets.core.statistics.bucketizer import Bucketizer
from dssm_assets.core.statistics.feature_config import decide_feature_config
from dssm_assets.storage.plugins import import_plugins
from dssm_assets_tests.core.statistics.counting import count_categories, count_numbers
from dssm_assets_tests.core.training.worlds import fitted


def test_a_loss_from_outside_the_package_trains_towers(own_project: Path) -> None:
    with pytest.raises(ValueError, match="a registered loss: softmax, sigmoid, l2"):
        Model(loss="bpr")
    ConfigError.raise_if(import_plugins(["own_recall.ranking"]))
    losses = fitted({"loss": "bpr"}, {"epochs": 10}).loss_by_step
    # A user's negatives come from both halves of the items; those of its own half it cannot tell from its positives.
    assert losses[-3:].mean() < 0.65 * losses[:3].mean()


def test_an_operator_from_outside_the_package_generates_and_gets_embedding_indices(own_project: Path) -> None:
    length = {"feature_type": "length_feature", "feature_name": "length", "expression": "item:title", "boundaries": [3, 6]}
    fg: dict[str, Any] = {"features": [length]}
    with pytest.raises(
        FeatureSpecError, match=r"feature_type: expected one of: id_feature, raw_feature, .*, got 'length_feature'"
    ):
        FeatureGenerator.from_fg_json(fg)
    ConfigError.raise_if(import_plugins([]))
    generator = FeatureGenerator.from_fg_json(fg)
    items = pa.table({"title": ["a", None, "abcd", "abcdefg"]})
    assert generator.generate(items).to_pydict() == {"length": [1, 0, 4, 7]}
    assert [generator.generate_one(item) for item in items.to_pylist()] == generator.generate(items).to_pylist()
    assert generator.bucketize(items).to_pydict() == {"length": [[0], [0], [1], [2]]}

    encoded, features = generator.encode(items), generator.spec.features
    binning, counts = bin_features(count_numbers(encoded, features), 10), count_categories(encoded, features)
    config = decide_feature_config(generator.spec, Statistics(), binning, counts)
    indices = Bucketizer(config, counts).bucketize("length", encoded.column("length"))
    assert indices.to_pylist() == [1, 1, 2, 3]
